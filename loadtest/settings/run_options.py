"""Options of the load test: on the command line, in the environment, and in Locust's web form."""

from __future__ import annotations

import argparse
import json
import math
import os
import secrets
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, cast

from loadtest.client.access import find_ca_file
from loadtest.client.target import Target
from loadtest.input_error import InputError
from loadtest.settings.capacity_options import CapacityOptions, add_capacity_options, read_capacity_options
from loadtest.workload import WorkloadOptions
from loadtest.workload.body_fields import parse_body
from loadtest.workload.trace import TRACE_UNITS, TraceUnit
from loadtest.workload.workload_options import DEFAULT_OUTPUT_TOKENS, DEFAULT_PROMPT_TOKENS

if TYPE_CHECKING:
    from collections.abc import Mapping

Endpoint = Literal["chat", "completions", "both"]
Arrival = Literal["closed", "constant", "poisson", "gamma", "trace"]
ENDPOINTS = ("chat", "completions", "both")
ARRIVALS = ("auto", "closed", "constant", "poisson", "gamma", "trace")
_SEED_BITS = 31
_MOST_DIGITS = 15  # of a whole number: a float holds this many exactly


@dataclass(frozen=True, slots=True)
class Slo:
    """Service-level objective of one request: limits in seconds; None is no limit."""

    ttft: float | None = None
    tpot: float | None = None
    e2e: float | None = None

    @property
    def asked(self) -> bool:
        """True if there is any limit."""
        return any(limit is not None for limit in (self.ttft, self.tpot, self.e2e))


@dataclass(frozen=True, slots=True)
class Pacing:
    """Pace of requests.

    Open loop unless `arrival` is closed: `rate` in requests/s over the whole test, `burstiness` is the shape of gamma
    gaps, `trace_speed` the speed-up of a replayed trace. The run ends after `max_requests`; None is no end. The first
    `warmup_requests` are sent but not measured.
    """

    arrival: Arrival
    rate: float | None
    burstiness: float
    trace_speed: float
    max_requests: int | None
    warmup_requests: int


@dataclass(frozen=True, slots=True)
class RunOptions:
    """Checked options of one run. Times in seconds."""

    target: Target
    wanted_model: str  # "": the first model that the server lists
    workload: WorkloadOptions  # the plan fills in the model and the seed
    slo: Slo
    slo_percentile: float  # percent of the requests that must meet the SLO
    pacing: Pacing
    request_timeout: float
    report_dir: Path | None
    capacity: CapacityOptions | None = None  # a search instead of one load


def add_options(parser: argparse.ArgumentParser) -> None:
    """Add the load test's options to Locust's own.

    An option that may be empty is text, with "" for empty: Locust's form keeps each value's type and rejects an empty
    number with an error of its own. `read_options` parses all, so form and command line raise the same errors.
    """
    # Added to the parser itself: options of a group do not reach Locust's form.
    add = cast("Any", parser).add_argument
    add(
        "--model",
        default="",
        env_var="SERVED_MODEL_NAME",
        help="model name; empty: the first that the server lists",
    )
    add(
        "--endpoint",
        default="both",
        choices=ENDPOINTS,
        help="which API to call; both: shared out by --chat-share",
    )
    add("--chat-share", default="50", help="--endpoint both: percent of the requests that go to chat")
    add(
        "--stream",
        default=True,
        action=argparse.BooleanOptionalAction,
        help="ask for streams; without, no TTFT and no chunk gaps",
    )
    add(
        "--prompt-tokens",
        default="",
        help=f"prompt length in tokens: N or mean:std; empty: {DEFAULT_PROMPT_TOKENS}, or what --dataset says",
    )
    add(
        "--output-tokens",
        default="",
        help=f"most tokens to generate: N or mean:std; empty: {DEFAULT_OUTPUT_TOKENS}, or what --dataset says",
    )
    add(
        "--shared-prefix-tokens",
        default="0",
        help="tokens that all prompts begin with; 0: the prefix cache stays cold",
    )
    add("--dataset", default="", help="ShareGPT conversations, or JSONL of whole request bodies")
    add(
        "--tokenizer",
        default="",
        env_var="TOKENIZER",
        help="folder or tokenizer.json of the model: exact prompt lengths; empty: estimated",
    )
    add("--ignore-eos", default=False, action="store_true", help="generate exactly --output-tokens (vLLM)")
    add(
        "--body",
        default="",
        action=MergeBody,
        metavar="KEY=JSON",
        help="add or replace a field of every request body; KEY= removes it; repeatable; also a whole JSON object",
    )
    add("--trace", default="", help="recorded requests (files of Azure, BurstGPT, Mooncake, Qwen): lengths and times")
    add(
        "--trace-unit",
        default="auto",
        choices=TRACE_UNITS,
        help="unit of the trace's time stamps, if they are numbers; auto: what its publisher uses",
    )
    add("--trace-speed", default="1", help="how fast the trace is replayed; 2: twice as fast")
    add(
        "--arrival",
        default="auto",
        choices=ARRIVALS,
        help="closed: a user's next when its last ended; others: open loop; auto: closed, or the trace's",
    )
    add("--rate", default="", help="open loop: requests/s of the whole test")
    add("--burstiness", default="1", help="gamma: shape of the gaps; below 1 is burstier than Poisson")
    add("--max-requests", default="", help="end after this many requests; empty: at --run-time")
    add("--warmup-requests", default="0", help="requests sent first and not measured")
    add("--seed", default="", help="repeats a run's prompts and arrivals; empty: a new one each run")
    add("--request-timeout", default="300", help="seconds for a whole request")
    add("--slo-ttft-ms", default="", env_var="SLO_TTFT_MS", help="SLO: time to first token, ms; empty: none")
    add("--slo-tpot-ms", default="", env_var="SLO_TPOT_MS", help="SLO: time per output token, ms; empty: none")
    add("--slo-e2e-ms", default="", env_var="SLO_E2E_MS", help="SLO: end-to-end latency, ms; empty: none")
    add("--slo-percentile", default="95", env_var="SLO_PERCENTILE", help="percent of requests that must meet the SLO")
    add_capacity_options(add)
    add(
        "--report-dir",
        default="",
        include_in_web_ui=False,
        help="write summary.json, requests.csv and report.html of each run into this folder",
    )
    # Not in the form, whose values Locust writes into the page.
    add(
        "--api-key",
        default="",
        env_var="VLLM_API_KEY",
        include_in_web_ui=False,
        help="bearer token; better given as VLLM_API_KEY, which the process list does not show",
    )
    add(
        "--header",
        default=[],
        action="append",
        env_var="REQUEST_HEADER",
        include_in_web_ui=False,
        metavar="NAME=VALUE",
        help="one more header of every request, such as api-key=SECRET; repeatable; REQUEST_HEADER: one a line",
    )
    add(
        "--ca-file",
        default="",
        env_var="CA_BUNDLE_FILE",
        include_in_web_ui=False,
        help="https: certificates (PEM) of the authorities to trust; empty: SSL_CERT_FILE, else the system's",
    )
    add(
        "--insecure",
        default=False,
        action="store_true",
        include_in_web_ui=False,
        help="https: accept any certificate; the result says so",
    )
    add(
        "--engine-urls",
        default="",
        env_var="ENGINE_URLS",
        include_in_web_ui=False,
        help="behind a router: roots of the engines, whose counters are added up; a name stands for all its addresses",
    )
    add(
        "--metrics-port",
        type=int,
        default=0,
        include_in_web_ui=False,
        help="headless: serve Prometheus metrics on this port (with the web UI they are at its /metrics); 0: do not",
    )


class MergeBody(argparse.Action):
    """Merges several --body into one JSON object, which Locust's form can show."""

    def __call__(self, _parser: Any, namespace: argparse.Namespace, values: Any, _option: str | None = None) -> None:
        """Keep what cannot be parsed as it is: `read_options` reports it."""
        before, given = getattr(namespace, self.dest), " ".join(str(values).splitlines())
        try:
            merged = json.dumps({**parse_body(before), **parse_body(given)})
        except InputError:
            merged = given
        setattr(namespace, self.dest, merged)


def read_options(values: Mapping[str, Any], host: str) -> RunOptions:
    """Check the options in `values`, from argparse or Locust's form. Raises InputError."""
    endpoint = str(values["endpoint"])
    if endpoint not in ENDPOINTS:
        raise InputError("--endpoint", f"{endpoint!r} is unknown", "give chat, completions or both")
    wanted_model = _wanted_model(_text(values, "model"))
    slo = Slo(
        ttft=_milliseconds(values, "slo_ttft_ms"),
        tpot=_milliseconds(values, "slo_tpot_ms"),
        e2e=_milliseconds(values, "slo_e2e_ms"),
    )
    return RunOptions(
        target=_target(values, host),
        wanted_model=wanted_model,
        workload=WorkloadOptions(
            model=wanted_model or "the first that the server lists",
            endpoint=cast("Endpoint", endpoint),
            chat_share=_share(values, "chat_share"),
            stream=bool(values["stream"]),
            prompt_tokens=_text(values, "prompt_tokens") or None,
            output_tokens=_text(values, "output_tokens") or None,
            shared_prefix_tokens=_whole(values, "shared_prefix_tokens") or 0,
            dataset=_path(values, "dataset"),
            trace=_path(values, "trace"),
            trace_unit=cast("TraceUnit", _text(values, "trace_unit") or "auto"),
            tokenizer=_path(values, "tokenizer"),
            ignore_eos=bool(values["ignore_eos"]),
            body=parse_body(_text(values, "body")),
            seed=_whole(values, "seed") or 0,
        ),
        slo=slo,
        slo_percentile=_percentile(values),
        pacing=_pacing(values),
        request_timeout=_positive(values, "request_timeout") or 300.0,
        report_dir=_path(values, "report_dir"),
        capacity=read_capacity_options(values, slo_asked=slo.asked),
    )


def _wanted_model(text: str) -> str:
    """Return the name to ask for: SERVED_MODEL_NAME may hold several, --model has one."""
    several = os.environ.get("SERVED_MODEL_NAME", "").split()
    return several[0] if several and text.split() == several else text


def _target(values: Mapping[str, Any], host: str) -> Target:
    headers = [_header(line) for text in values.get("header") or () for line in text.splitlines() if line.strip()]
    target = Target.parse(host, str(values.get("api_key") or ""), str(values.get("engine_urls") or ""), headers)
    insecure = bool(values.get("insecure"))
    ca_file = str(values.get("ca_file") or "").strip()
    if ca_file or (target.any_tls and not insecure):
        ca_file = find_ca_file(ca_file, os.environ)
    return target.trust(ca_file, insecure=insecure and target.any_tls)


def _header(text: str) -> tuple[str, str]:
    name, equals, value = text.partition("=")
    if not equals:
        # Not repeated: it may be a secret.
        raise InputError("--header", "one has no '=' between its name and its value", "write it like NAME=VALUE")
    return name.strip(), value.strip()


def _pacing(values: Mapping[str, Any]) -> Pacing:
    if values["find_capacity"]:
        return Pacing("closed", None, 1.0, 1.0, None, 0)  # each load of the search has its own
    arrival = str(values["arrival"])
    if arrival not in ARRIVALS:
        raise InputError("--arrival", f"{arrival!r} is unknown", f"give one of {', '.join(ARRIVALS)}")
    trace = _text(values, "trace")
    if arrival == "auto":
        arrival = "trace" if trace else "closed"
    rate = _positive(values, "rate")
    if arrival == "trace" and not trace:
        raise InputError("--arrival", "trace needs a trace", "give --trace FILE")
    if arrival in {"constant", "poisson", "gamma"} and rate is None:
        raise InputError("--rate", f"--arrival {arrival} needs one", "give requests/s, such as --rate 2.5")
    if arrival in {"closed", "trace"} and rate is not None:
        raise InputError("--rate", f"has no meaning with --arrival {arrival}", "give --arrival poisson or leave it out")
    most, warmup = _whole(values, "max_requests"), _whole(values, "warmup_requests") or 0
    if most is not None and most <= warmup:
        raise InputError("--max-requests", f"{most} leaves none after {warmup} warm-up requests", "give more")
    return Pacing(
        arrival=cast("Arrival", arrival),
        rate=rate,
        burstiness=_positive(values, "burstiness") or 1.0,
        trace_speed=_positive(values, "trace_speed") or 1.0,
        max_requests=most,
        warmup_requests=warmup,
    )


def _percentile(values: Mapping[str, Any]) -> float:
    percent = _positive(values, "slo_percentile") or 95.0
    if percent > 100:
        raise InputError("--slo-percentile", f"{percent:g} is above 100", "give a percentage, such as 95")
    return percent


def _share(values: Mapping[str, Any], key: str) -> float:
    """Return a percentage as a share of 1. Raises InputError."""
    text = _text(values, key)
    try:
        percent = float(text)
    except ValueError:
        percent = math.nan
    if not 0 <= percent <= 100:
        raise InputError(_option(key), f"{text!r} is no percentage", "give 0 to 100")
    return percent / 100


def new_seed() -> int:
    """Return a random seed for a run without one: no earlier run has put its prompts in the prefix cache."""
    return secrets.randbits(_SEED_BITS)


def _option(key: str) -> str:
    return "--" + key.replace("_", "-")


def _text(values: Mapping[str, Any], key: str) -> str:
    return str(values[key]).strip()


def _path(values: Mapping[str, Any], key: str) -> Path | None:
    text = _text(values, key)
    return Path(text).expanduser() if text else None


def _whole(values: Mapping[str, Any], key: str) -> int | None:
    text = _text(values, key)
    if not text:
        return None
    if not text.isdecimal() or len(text) > _MOST_DIGITS:
        raise InputError(
            _option(key), f"{text[:40]!r} is not a whole number", f"give 0 or more, {_MOST_DIGITS} digits at most"
        )
    return int(text)


def _positive(values: Mapping[str, Any], key: str) -> float | None:
    text = _text(values, key)
    if not text:
        return None
    try:
        number = float(text)
    except ValueError:
        raise InputError(_option(key), f"{text!r} is not a number", "give a number above 0") from None
    if not (math.isfinite(number) and number > 0):
        raise InputError(_option(key), f"{text} is not above 0", "give a number above 0")
    return number


def _milliseconds(values: Mapping[str, Any], key: str) -> float | None:
    number = _positive(values, key)
    return None if number is None else number / 1000
