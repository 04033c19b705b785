"""Search the same engines over HTTP with other tools: their answers and durations.

    python -m tests.bench.capacity rivals --engines batch_slots     # 3 to 7 minutes a tool

guidellm's profile `goodput` searches the streams of a closed loop, and so does aiperf's recipe
`max-concurrency-under-sla`; what they carried at their answer, in requests/s, is held against the true open-loop
capacity. `aiperf-rate` is the nearest to ours that can be put together from aiperf's options: its bisection, over the
rate of Poisson arrivals. Each lives in an environment of its own, as for `tests.bench`.

The rivals have a tokenizer whose tokens are bytes, and the engine that is served to them counts bytes. Ours sends
words, and its engine counts these: as many tokens either way.
"""

from __future__ import annotations

import json
import subprocess
import time
from dataclasses import dataclass, replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any, Protocol

from rich.table import Table

from tests.bench.capacity.engines import JSON_WORDS
from tests.bench.capacity.served import limits_ms, search_served
from tests.bench.capacity.truth import served
from tests.bench.tools import MODEL, TOOLS
from tests.rig.fault_engine.process import running_engine
from tests.rig.simulated_engine.engine_kinds import KINDS, Kind

if TYPE_CHECKING:
    from collections.abc import Sequence

_LONGEST_S = 840
# Duration of each probe, for a search about as long as ours. aiperf makes twice as many probes.
_GUIDELLM_S, _AIPERF_S = 30, 10
_MOST_RATE = 128  # requests/s: aiperf needs a range


@dataclass(frozen=True, slots=True)
class RivalAnswer:
    """A tool's answer; `streams` of a closed loop, if it searches these."""

    requests_per_s: float | None
    streams: float | None = None
    low: float | None = None
    high: float | None = None


@dataclass(frozen=True, slots=True)
class RivalSearch:
    """One search by one tool."""

    tool: str
    engine: str
    answer: RivalAnswer
    seconds: float


class Rival(Protocol):
    """A search tool; `environment` is the folder that it is installed in."""

    name: str
    environment: str
    tokens: str  # how the engine counts them

    def search(self, kind: Kind, url: str, environment: Path, out: Path, budget_s: float) -> RivalAnswer:
        """Search, and keep the tool's files in `out`."""


class Headroom:
    """Headroom itself."""

    name = environment = "headroom"
    tokens = "words"

    def search(self, kind: Kind, url: str, environment: Path, out: Path, budget_s: float) -> RivalAnswer:  # noqa: ARG002  # it needs none
        found = search_served(kind, url, out, budget_s)
        return RivalAnswer(found.mid, None, found.low, found.high)


class Guidellm:
    """guidellm: doubles the streams from 4, then bisects to 10 %."""

    name = environment = "guidellm"
    tokens = "bytes"

    def search(self, kind: Kind, url: str, environment: Path, out: Path, budget_s: float) -> RivalAnswer:  # noqa: ARG002  # it has no budget
        data = {"kind": "synthetic_text"}
        for name, tokens in (("prompt", kind.prompt), ("output", kind.output)):
            data[f"{name}_tokens"] = str(tokens.mean)
            if tokens.std:
                data |= {f"{name}_tokens_stdev": f"{tokens.std:g}", f"{name}_tokens_min": str(tokens.least)}
        slo = {f"{name}_ms": limit for name, limit in limits_ms(kind).items()}
        _run(
            [
                *(str(environment / "bin" / "guidellm"), "run", "--disable-console"),
                *("--data", ",".join(f"{name}={value}" for name, value in data.items())),
                *("--backend", f"kind=openai_http,target={url},model={MODEL},request_format=/v1/chat/completions"),
                *("--profile", f"kind=goodput,target_attainment={kind.objective}"),
                *("--metrics", json.dumps({"kind": "generative", "slo": slo})),
                *("--constraint", f"kind=max_duration,seconds={_GUIDELLM_S}"),
                *("--tokenizer", f"kind=hf_auto,model={environment}/tokenizer"),
                *("--output", f"kind=json,path={out}/result.json"),
            ],
            out,
        )
        result = json.loads((out / "result.json").read_text())
        streams = _find(result["conclusions"], "best_passing_streams")
        rates = [
            benchmark["metrics"]["requests_per_second"]["successful"]["mean"]
            for benchmark in result["benchmarks"]
            if _find(benchmark["config"]["strategy"], "streams") == streams
        ]
        return RivalAnswer(rates[-1] if rates else None, streams)


class Aiperf:
    """aiperf: bisects the concurrency from 1 to 5 %, with two probes of each value."""

    name, environment, tokens = "aiperf", "aiperf", "bytes"

    def search(self, kind: Kind, url: str, environment: Path, out: Path, budget_s: float) -> RivalAnswer:  # noqa: ARG002  # it has no budget
        _run([*self._command(kind, url, environment, out), *self._wanted(kind)], out)
        history = json.loads(next(out.rglob("search_history.json")).read_text())
        best = (history["boundary_summary"] or {}).get("feasible_max")
        if best is None:
            return RivalAnswer(None)
        return self._answer(out, history, best)

    def _command(self, kind: Kind, url: str, environment: Path, out: Path) -> list[str]:
        command = [
            *(str(environment / "bin" / "aiperf"), "profile", "--model", MODEL, "--url", url, "--streaming"),
            *("--endpoint-type", "chat", "--benchmark-duration", str(_AIPERF_S), "--ui", "none"),
            *("--tokenizer", str(environment / "tokenizer"), "--use-server-token-count"),
            *("--artifact-dir", str(out)),
        ]
        for name, tokens in (("synthetic-input", kind.prompt), ("output", kind.output)):
            command += [f"--{name}-tokens-mean", str(tokens.mean), f"--{name}-tokens-stddev", f"{tokens.std:g}"]
        return command

    def _wanted(self, kind: Kind) -> list[str]:
        limits = limits_ms(kind)
        return [
            *("--search-recipe", "max-concurrency-under-sla", "--search-style", "monotonic"),
            *(part for name, limit in limits.items() for part in (f"--{name}-sla-ms", f"{limit:g}")),
            *("--error-rate-sla", f"{1 - kind.objective:.2f}"),
        ]

    def _answer(self, out: Path, history: dict[str, Any], best: dict[str, Any]) -> RivalAnswer:  # noqa: ARG002  # the rate's need
        export = next(out.rglob(f"search_iter_{best['iteration_idx']:04d}/**/profile_export_aiperf.json"))
        return RivalAnswer(json.loads(export.read_text())["request_throughput"]["avg"], best["value"])


class AiperfRate(Aiperf):
    """aiperf: bisects whole requests/s of Poisson arrivals, by the share of requests within all limits."""

    name = "aiperf-rate"

    def _wanted(self, kind: Kind) -> list[str]:
        tags = {"ttft": "time_to_first_token", "tpot": "inter_token_latency"}
        return [
            *("--request-rate", "1", "--arrival-pattern", "poisson"),
            *("--search-space", f"phases.profiling.rate:1,{_MOST_RATE}:int", "--search-planner", "monotonic-sla"),
            *("--search-metric", "request_throughput", "--search-direction", "maximize"),
            *("--search-max-iterations", "20"),
            *("--goodput", " ".join(f"{tags[name]}:{limit:g}" for name, limit in limits_ms(kind).items())),
            *("--search-sla", f"good_request_fraction:avg:ge:{kind.objective}"),
        ]

    def _answer(self, out: Path, history: dict[str, Any], best: dict[str, Any]) -> RivalAnswer:  # noqa: ARG002  # it is there
        above = (history["boundary_summary"].get("infeasible_min") or {}).get("value")
        return RivalAnswer(float(best["value"]), None, float(best["value"]), above)


RIVALS: dict[str, Rival] = {rival.name: rival for rival in (Headroom(), Guidellm(), Aiperf(), AiperfRate())}


def compare(tool: Rival, engine: str, cache: Path, budget_s: float, keep: Path | None = None) -> RivalSearch:
    """Search `engine` with `tool`; `keep` is a folder for its files."""
    kind = KINDS[engine]
    if tool.tokens == "bytes":  # the true capacity includes the words of the message's JSON
        kind = replace(kind, prompt=replace(kind.prompt, mean=kind.prompt.mean + JSON_WORDS))
    environment = cache / tool.environment
    TOOLS[tool.environment].install(environment)
    with (
        TemporaryDirectory() as scratch,
        running_engine("--kind", engine, "--tokens", tool.tokens, module="tests.rig.simulated_engine") as url,
    ):
        out = Path(scratch) if keep is None else keep / f"{engine}-{tool.name}"
        out.mkdir(parents=True, exist_ok=True)
        started = time.monotonic()
        answer = tool.search(kind, url, environment, out, budget_s)
        seconds = time.monotonic() - started
    return RivalSearch(tool.name, engine, answer, seconds)


def table(rows: Sequence[RivalSearch]) -> Table:
    """Return a table with a row per search; errors are relative to the true open-loop capacity."""
    shown = Table(title="Capacity by each tool, requests/s")
    for column in ("engine", "truth", "tool", "streams", "answer", "interval", "error", "seconds"):
        shown.add_column(column, justify="left" if column in {"engine", "tool"} else "right")
    for search in rows:
        answer, truth = search.answer, served(search.engine).rate
        shown.add_row(
            search.engine,
            f"{truth:.2f}",
            search.tool,
            "-" if answer.streams is None else f"{answer.streams:g}",
            "none" if answer.requests_per_s is None else f"{answer.requests_per_s:.2f}",
            "-" if answer.low is None else f"{answer.low:.2f} to {answer.high or float('inf'):.2f}",
            "-" if answer.requests_per_s is None else f"{answer.requests_per_s / truth - 1:+.1%}",
            f"{search.seconds:.0f}",
        )
    return shown


def _run(command: list[str], out: Path) -> None:
    with (out / "output.txt").open("w") as output:
        subprocess.run(command, stdout=output, stderr=output, check=True, timeout=_LONGEST_S)


def _find(value: Any, name: str) -> Any:
    """Return the first value of this name at any depth."""
    if isinstance(value, dict):
        if name in value:
            return value[name]
        value = list(value.values())
    if isinstance(value, list):
        return next((found for part in value if (found := _find(part, name)) is not None), None)
    return None
