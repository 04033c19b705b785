"""`scripts/capacity`: search the capacity, compare results, plan from them."""

from __future__ import annotations

import argparse
import json
import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

from loadtest.capacity.planner.plan_command import plan
from loadtest.capacity.remote import LocustPage
from loadtest.capacity.report.capacity_summary import INVALID, exit_code
from loadtest.capacity.report.capacity_terminal import print_capacity
from loadtest.capacity.report.compare import compare
from loadtest.capacity.report.regression import check_same, gate, read_result
from loadtest.input_error import InputError
from loadtest.report.report_folder import ReportFolder
from loadtest.settings.capacity_options import DEFAULT_BUDGET
from loadtest.settings.run_options import MergeBody

if TYPE_CHECKING:
    from collections.abc import Sequence

_LOCUSTFILE = Path(__file__).resolve().parents[1] / "locustfile.py"
_INTERRUPTED = 130
_GATE_FAILED = 1

# Options passed on to the load test under the same name, with their help.
_LOAD = {
    "--host": "address of the server, such as http://localhost:8000",
    "--model": "model name; empty: the first that the server lists",
    "--endpoint": "chat, completions or both; default both",
    "--chat-share": "--endpoint both: percent of the requests that go to chat",
    "--prompt-tokens": "prompt length in tokens: N or mean:std",
    "--output-tokens": "most tokens to generate: N or mean:std",
    "--shared-prefix-tokens": "tokens that all prompts begin with",
    "--dataset": "ShareGPT conversations, or JSONL of whole request bodies",
    "--tokenizer": "folder or tokenizer.json of the model: exact prompt lengths",
    "--seed": "repeats a search's prompts and arrivals",
    "--request-timeout": "seconds for a whole request",
    "--slo-ttft-ms": "SLO: time to first token, ms",
    "--slo-tpot-ms": "SLO: time per output token, ms",
    "--slo-e2e-ms": "SLO: end-to-end latency, ms",
    "--slo-percentile": "percent of all due requests that must meet the SLO",
}
# Options of the search: (Locust's longer name, help).
_SEARCH = {
    "--budget": ("--capacity-budget", f"time for all of it, such as 90s, 15m or 1h; default {DEFAULT_BUDGET}"),
    "--interval": ("--capacity-interval", "ends when the result is known to so many percent; default 5"),
    "--start-rate": ("--capacity-start-rate", "requests/s to begin with"),
    "--max-rate": ("--capacity-max-rate", "never send more requests/s"),
}


def make_parser() -> argparse.ArgumentParser:
    """Return the parser of a search; `compare` and `plan` have their own."""
    parser = argparse.ArgumentParser(
        prog="capacity",
        description="The highest request rate at which a server meets an SLO, with its interval and what limits it.",
        epilog="More: capacity compare A B, capacity plan --help. Exit codes: 0 found; 1 the SLO is never met, or the "
        "gate failed; 2 invalid, or it could not run; 130 interrupted. The API key comes from VLLM_API_KEY.",
        allow_abbrev=False,
    )
    for name, text in _LOAD.items():
        parser.add_argument(name, default=None, help=text)
    parser.add_argument(
        "--body", default="", action=MergeBody, help="KEY=JSON: field of every request body; repeatable"
    )
    parser.add_argument("--header", action="append", default=[], help="NAME=VALUE: more headers; also REQUEST_HEADER")
    parser.add_argument("--ca-file", help="https: authorities to trust (PEM); also CA_BUNDLE_FILE")
    parser.add_argument("--insecure", action="store_true", help="https: accept any certificate")
    parser.add_argument("--ignore-eos", action="store_true", help="generate exactly --output-tokens (vLLM)")
    for name, (_, text) in _SEARCH.items():
        parser.add_argument(name, default=None, help=text)
    parser.add_argument("--report-dir", help="capacity.json, report.html and requests.csv; default capacity-report")
    parser.add_argument("--processes", type=int, default=1, help="processes that send load; default 1")
    parser.add_argument(
        "--locust",
        default=os.environ.get("LOCUST_URL", ""),
        help="drive the Locust whose page is there, with its workers, instead of one of its own; also LOCUST_URL",
    )
    parser.add_argument("--baseline", type=Path, help="capacity.json to hold the result against")
    parser.add_argument("--max-drop", default="5%", help="exit 1 when the capacity fell by more; default 5%%")
    return parser


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the program and return its exit code."""
    given = list(sys.argv[1:] if arguments is None else arguments)
    try:
        if given[:1] == ["compare"]:
            return compare(given[1:])
        if given[:1] == ["plan"]:
            return plan(given[1:])
        return _search(make_parser().parse_args(given))
    except InputError as error:
        print(error, file=sys.stderr)
        return INVALID


def _search(options: argparse.Namespace) -> int:
    max_drop = percentage(options.max_drop, "--max-drop")
    # Before the search, so that a wrong path fails at once.
    baseline = None if options.baseline is None else read_result(options.baseline, "--baseline")
    summary: dict[str, Any] | None
    if options.locust:
        for name in ("report_dir", "host", "header", "ca_file", "insecure"):
            if getattr(options, name):
                raise InputError("--" + name.replace("_", "-"), "is the running Locust's own", "leave it out")
        code, summary = _search_remote(options)
    else:
        code, summary = _search_here(options)
    if summary is None or baseline is None or not summary["verdict"]["valid"]:
        return code
    check_same(baseline, summary, "--baseline")
    passed, lines = gate(baseline, summary, max_drop)
    print("\n".join(lines))
    return code if passed else _GATE_FAILED


def percentage(text: str, option: str) -> float:
    """Parse `5%` or `5` as 0.05. Raises InputError."""
    try:
        value = float(text.strip().removesuffix("%")) / 100
    except ValueError:
        value = -1.0
    if not 0 <= value < 1:
        raise InputError(option, f"{text!r} is no percentage", "write it like 5%")
    return value


def _given_options(options: argparse.Namespace) -> dict[str, str]:
    """Return the given options of the load test and the search, under Locust's names."""
    values = {name: getattr(options, name[2:].replace("-", "_")) for name in _LOAD}
    values |= {longer: getattr(options, name[2:].replace("-", "_")) for name, (longer, _) in _SEARCH.items()}
    values["--body"] = options.body or None
    return {name: str(value) for name, value in values.items() if value is not None}


def _search_here(options: argparse.Namespace) -> tuple[int, dict[str, Any] | None]:
    """Search with a headless Locust in a new process, which prints progress and result."""
    if not options.host:
        raise InputError("--host", "is missing", "give the server's address, such as http://localhost:8000")
    if options.processes < 1:
        raise InputError("--processes", f"{options.processes} is too few", "give 1 or more")
    folder = Path(options.report_dir or "capacity-report")
    command = [sys.executable, "-m", "locust", "-f", str(_LOCUSTFILE), "--headless", "--only-summary"]
    command += ["--skip-log-setup", "--find-capacity", "--report-dir", str(folder)]
    for name, value in _given_options(options).items():
        command += [f"{name}={value}"]
    command += [f"--header={header}" for header in options.header]
    command += [f"--ca-file={options.ca_file}"] if options.ca_file else []
    command += ["--insecure"] if options.insecure else []
    command += ["--ignore-eos"] if options.ignore_eos else []
    if options.processes > 1:
        command += ["--processes", str(options.processes)]
    ReportFolder.check(folder)
    result, page = folder / "capacity.json", folder / "report.html"
    old = _written_at(result), _written_at(page)
    # Ctrl-C reaches Locust too, which ends the search and writes its result: wait for it.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    with subprocess.Popen(command, preexec_fn=_enable_interrupts) as locust:  # noqa: S603, PLW1509  # fixed command; no threads here
        code = locust.wait()
    signal.signal(signal.SIGINT, signal.default_int_handler)
    new = _written_at(result), _written_at(page)
    if new[0] == old[0]:
        return code or INVALID, None
    if new[1] != old[1]:  # it may not fit on a full disk
        print(f"Report: {page}")
    summary = read_summary(folder)
    if summary["capacity"]["ended"] == "stopped":
        return _INTERRUPTED, summary
    return code, summary


def _written_at(path: Path) -> int | None:
    """Return a file's modification time in nanoseconds; None without the file."""
    return path.stat().st_mtime_ns if path.exists() else None


def _enable_interrupts() -> None:
    signal.signal(signal.SIGINT, signal.default_int_handler)


def read_summary(folder: Path) -> dict[str, Any]:
    """Read the `capacity.json` of a search that has just ended."""
    result: dict[str, Any] = json.loads((folder / "capacity.json").read_text(encoding="utf-8"))
    return result


def _search_remote(options: argparse.Namespace) -> tuple[int, dict[str, Any]]:
    page = LocustPage(options.locust)
    form = {name[2:].replace("-", "_"): value for name, value in _given_options(options).items()}
    form |= {"find_capacity": "true", "ignore_eos": str(options.ignore_eos).lower()}
    run_id = page.start(form)
    try:
        summary = page.follow(run_id)
    except KeyboardInterrupt:
        print("stopping the search", file=sys.stderr)
        page.stop()
        summary = page.follow(run_id)
    print_capacity(summary)
    print(f"Report: {run_id}/report.html in the reports volume")
    return (_INTERRUPTED if summary["capacity"]["ended"] == "stopped" else exit_code(summary)), summary
