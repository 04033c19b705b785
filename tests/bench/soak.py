"""`python -m tests.bench.soak --minutes 60`: mixed load with killed processes, on the running stack.

Exits with 1 when memory, descriptors or disk grow too fast, or client and server disagree.
"""

from __future__ import annotations

import argparse
import sys
import time
from typing import TYPE_CHECKING, Any

import requests
from drills.drill import check_ready
from drills.engine_drills import API_SERVER, ENGINE, START_S, WORKER
from drills.load_run import LoadTestRun, reasons
from drills.stack import RunningStack, StackError, wait_for

from tests.bench.sampling import Samples, Series, slope, slope_error

if TYPE_CHECKING:
    from collections.abc import Callable


RUN_S = 120
EVERY = 2  # in the first part, one of so many runs has a failure in its middle; none in the rest
HURT_PART = 0.4
# On a CPU, oneDNN keeps 1,024 compiled kernels (its default), four for each number of tokens in a step: 256 numbers
# fill them (docs/evidence, soak), and these are some more.
STEP_SIZES = range(2, 302)
# Chat and completions, streams and whole answers, short and long, closed and open loop.
LOADS: tuple[dict[str, object], ...] = (
    {"users": 8, "endpoint": "both", "prompt_tokens": "64:32", "output_tokens": "32:16"},
    {"users": 4, "endpoint": "chat", "prompt_tokens": "256:64", "output_tokens": "64:32"},
    {"users": 4, "endpoint": "completions", "stream": "false", "prompt_tokens": "32", "output_tokens": "16"},
    {"users": 8, "endpoint": "both", "arrival": "poisson", "rate": "2", "prompt_tokens": "64", "output_tokens": "32"},
)
# Limits of a week's growth: descriptors, MiB of memory, MiB of Prometheus' disk (its default limit is 5 GB).
LIMITS = {"fds": 1000.0, "rss": 2048.0, "disk": 5120.0}
WEEK_H = 7 * 24
# Ignored after each start of a process, while caches fill.
WARM_UP_S = 120
FEWEST_POINTS = 6
# Only lives of this length are judged, by their second half: early growth may be a cache.
LONG_LIFE_S = 600
# Tolerance: memory rises and falls with each load test, which looks like growth over minutes.
STANDARD_ERRORS = 3.0


def run(stack: RunningStack, minutes: float) -> int:
    """Run for `minutes` and print the slopes; return 1 for a problem, else 0."""
    samples = Samples(stack, interval_s=10)
    samples.start()
    disk = Series()
    begun = time.monotonic()
    problems: list[str] = []
    totals = {"requests": 0, "ok": 0, "tokens_client": 0.0, "tokens_server": 0.0}
    number = 0
    injections = injected(stack)
    filled = False
    try:
        while time.monotonic() - begun < 60 * minutes:
            all_live_on = time.monotonic() - begun > 60 * minutes * HURT_PART
            if all_live_on and not filled:
                fill_kernels(stack)
                filled = True
            fails = number % EVERY and not all_live_on
            failure = injections[number // EVERY % len(injections)] if fails else None
            problems += one_run(stack, number, failure, totals)
            disk.add(time.monotonic(), prometheus_bytes(stack))
            number += 1
    finally:
        samples.stop()
    ran_s = time.monotonic() - begun
    print(f"\n{ran_s / 60:.1f} minutes, {number} load tests: {totals['requests']} requests, {totals['ok']} ok")
    surplus = totals["tokens_server"] - totals["tokens_client"]
    print(
        f"calm runs: {totals['tokens_client']:.0f} output tokens by the clients, {totals['tokens_server']:.0f} by the "
        f"engine ({surplus:+.0f})"
    )
    problems += slopes(samples, disk)
    for problem in problems:
        print(f"PROBLEM: {problem}")
    return 1 if problems else 0


def injected(stack: RunningStack) -> list[tuple[str, Callable[[], object]]]:
    """Failures to inject in turn; a killed process is judged by its growth afterwards.

    The process that takes longest to fill its memory comes first.
    """
    return [
        ("Prometheus killed", lambda: stack.signal("prometheus", "KILL", "prometheus")),
        ("engine killed", lambda: stack.signal("vllm", "KILL", API_SERVER, ENGINE, WORKER)),
        ("worker killed", lambda: stack.signal("locust-worker", "KILL", "locust")),
    ]


def one_run(
    stack: RunningStack, number: int, failure: tuple[str, Callable[[], object]] | None, totals: dict[str, Any]
) -> list[str]:
    """Run one load test, with or without a failure in its middle; return problems."""
    wait_for_engine(stack)
    begun = time.monotonic()
    load = LoadTestRun(stack, run_time=f"{RUN_S}s", **LOADS[number % len(LOADS)])
    what = "calm"
    if failure is not None:
        time.sleep(RUN_S / 3)
        what = failure[0]
        failure[1]()
    summary = load.summary(RUN_S + 400)
    counts, verdict, server = summary["requests"], summary["verdict"], summary.get("server") or {}
    totals["requests"] += counts["total"]
    totals["ok"] += counts["ok"]
    if what in {"calm", "Prometheus killed"} and server:
        totals["tokens_client"] += server["client_generation_tokens"]
        totals["tokens_server"] += server["generation_tokens"]
    why = "; ".join(verdict["reasons"])
    print(
        f"{time.monotonic() - begun:6.0f} s  run {number}, {what}: {counts['ok']} ok of {counts['total']}, "
        f"{'valid' if verdict['valid'] else why}",
        flush=True,
    )
    if what in {"calm", "Prometheus killed"} and reasons(summary):
        return [f"run {number} ({what}) is invalid: {why}"]
    if what not in {"calm", "Prometheus killed"} and verdict["valid"]:
        return [f"run {number} ({what}) does not say that anything happened"]
    return []


def wait_for_engine(stack: RunningStack) -> None:
    """Wait until a request is answered. Raises StackError."""
    body = {"model": stack.model(), "prompt": "a", "max_tokens": 1}

    def answers() -> bool:
        url = f"{stack.url('vllm', 8000)}/v1/completions"
        return requests.post(url, json=body, headers=stack.headers(), timeout=60).ok

    wait_for("an answer of the engine", answers, START_S)


def fill_kernels(stack: RunningStack) -> None:
    """Make the engine compile for each number of tokens, so that later growth has another cause."""
    wait_for_engine(stack)
    begun = time.monotonic()
    url, model = f"{stack.url('vllm', 8000)}/v1/completions", stack.model()
    for tokens in STEP_SIZES:
        # Token ids, different at the start: one step of that size, and no hit in the prefix cache.
        body = {"model": model, "prompt": [*range(1000 + tokens, 1000 + 2 * tokens)], "max_tokens": 1}
        requests.post(url, json=body, headers=stack.headers(), timeout=60).raise_for_status()
    print(f"{time.monotonic() - begun:6.0f} s  one prompt of each length up to {STEP_SIZES[-1]} tokens", flush=True)


def prometheus_bytes(stack: RunningStack) -> float:
    """Bytes of Prometheus on disk."""
    return float(stack.shell("prometheus", "du -sk /prometheus").split()[0]) * 1024


def slopes(samples: Samples, disk: Series) -> list[str]:
    """Print growth rates; return those that exceed a week's limit."""
    problems = []
    print(f"\n{'':<30} {'':>4} {'first':>9} {'last':>9} {'per hour':>10} {'2nd half':>10}{'':11}   of")
    rows = [(who, what, samples.series[who, what].lives(WARM_UP_S)) for who, what in sorted(samples.series)]
    rows.append(("prometheus: disk", "disk", [disk]))
    for who, what, found in rows:
        lives = [life for life in found if len(life.at) >= FEWEST_POINTS]
        if not lives or ":" not in who:
            continue
        long = [life for life in lives if life.covered_s >= LONG_LIFE_S]
        lives = long or lives
        settled = [life.after(life.covered_s / 2).means(RUN_S) for life in long]
        unit = 1 if what == "fds" else 2**20
        first, last = lives[0].values[0] / unit, lives[-1].values[-1] / unit
        per_hour, lasting, error = (
            found * 3600 / unit for found in (slope(lives), slope(settled), STANDARD_ERRORS * slope_error(settled))
        )
        label = "fds" if what == "fds" else "MiB"
        seen_min = sum(life.covered_s for life in lives) / 60
        alive = f"{seen_min:.0f} min, {len(lives)} {'life' if len(lives) == 1 else 'lives'}"
        alive += "" if long else ": too short to tell"
        shown = f"{lasting:+10.2f} +- {error:<7.2f}" if long else f"{'-':>10}{'':11}"
        print(f"{who:<30} {label:>4} {first:9.1f} {last:9.1f} {per_hour:+10.2f} {shown}   {alive}")
        if (lasting - error) * WEEK_H > LIMITS[what]:
            problems.append(f"{who}: {label} grow by {lasting:.1f} an hour")
    return problems


def main() -> int:
    """Soak the stack of `--project`; return the exit code."""
    parser = argparse.ArgumentParser(prog="python -m tests.bench.soak", description=__doc__)
    parser.add_argument("-p", "--project", help="Compose project name; default: this folder's")
    parser.add_argument("--minutes", type=float, default=30, help="default: %(default)g")
    options = parser.parse_args()
    if not 1 <= options.minutes <= 24 * 60:
        parser.error(f"--minutes {options.minutes:g}: give 1 to 1440")
    try:
        stack = RunningStack(options.project)
        check_ready(stack)
    except StackError as error:
        print(f"soak: {error}", file=sys.stderr)
        return 2
    return run(stack, options.minutes)


if __name__ == "__main__":
    sys.exit(main())
