"""Attack every reader of hostile input for a time, with libFuzzer guided by coverage.

    python -m tests.fuzz                          one minute for each reader
    python -m tests.fuzz --seconds 600 --corpus corpus dataset_file http_answer

Finds go into the corpus folder, so that the next run goes on from there; an input that breaks a reader is saved beside
it and named. Exit code 0: nothing broke; 1: something did.
"""

from __future__ import annotations

import argparse
import os
import re
import subprocess
import sys
import tempfile
import time
from pathlib import Path

ROOT = Path(__file__).parents[2]
# Modules that lie beside each other in a container import each other by their bare names.
FOLDERS = [str(ROOT / folder) for folder in (".", "docker/vllm", "docker/model")]
sys.path[:0] = FOLDERS

from tests.fuzz.targets import TARGETS  # noqa: E402  # from the folders above

LONGEST_INPUT = 20_000  # bytes; the seeds hold longer ones
SLOWEST_S = 10  # for one input
MOST_MEMORY_MB = 2048
_RUNS = re.compile(r"#(\d+)\s+DONE.*?cov: (\d+)|stat::number_of_executed_units:\s*(\d+)")


def attack(name: str, seconds: float, corpus: Path) -> bool:
    """Attack one reader and print its line; True when it held."""
    inputs, broken = corpus / name, corpus / f"{name}-broken"
    inputs.mkdir(parents=True, exist_ok=True)
    broken.mkdir(exist_ok=True)
    for number, seed in enumerate(TARGETS[name].seeds):
        (inputs / f"seed-{number}").write_bytes(seed)
    start, used = time.monotonic(), os.times()
    done = subprocess.run(  # our own module
        [
            *(sys.executable, "-m", "tests.fuzz.one", name),
            *(f"-max_total_time={seconds:.0f}", f"-timeout={SLOWEST_S}", f"-rss_limit_mb={MOST_MEMORY_MB}"),
            *(f"-max_len={LONGEST_INPUT}", f"-artifact_prefix={broken}/", "-print_final_stats=1", str(inputs)),
        ],
        env={**os.environ, "PYTHONPATH": os.pathsep.join(FOLDERS)},
        capture_output=True,
        text=True,
        errors="replace",
        check=False,
    )
    after = os.times()
    cpu = after.children_user + after.children_system - used.children_user - used.children_system
    runs = max((int(match[1] or match[3]) for match in _RUNS.finditer(done.stderr)), default=0)
    coverage = max(map(int, re.findall(r"cov: (\d+)", done.stderr)), default=0)
    verdict = "held" if done.returncode == 0 else "BROKE"
    print(
        f"{verdict:<5} {name:<19} {runs:>9} inputs, coverage {coverage:>5}, {cpu:6.1f} s CPU of "
        f"{time.monotonic() - start:6.1f} s",
        flush=True,
    )
    if done.returncode:
        print(f"      inputs in {broken}\n{_reason(done)}", flush=True)
    return done.returncode == 0


def _reason(done: subprocess.CompletedProcess[str]) -> str:
    """The traceback of an exception, or libFuzzer's own words about time or memory."""
    raised = "Uncaught Python exception" in done.stdout
    lines = (done.stdout if raised else done.stderr).strip().splitlines()
    return "\n".join(f"      {line}" for line in lines[-30:])


def main() -> int:
    """Exit code: 0 when every reader held."""
    parser = argparse.ArgumentParser(prog="python -m tests.fuzz", description="Attack the readers of hostile input.")
    parser.add_argument("--seconds", type=float, default=60, help="for each reader (default: %(default)g)")
    parser.add_argument("--corpus", type=Path, help="folder of inputs to go on from (default: none is kept)")
    parser.add_argument("target", nargs="*", help=f"one of {', '.join(TARGETS)}; default: all")
    args = parser.parse_args()
    if unknown := [name for name in args.target if name not in TARGETS]:
        print(f"fuzz: no reader is called {unknown[0]}: give one of {', '.join(TARGETS)}", file=sys.stderr)
        return 2
    with tempfile.TemporaryDirectory() as folder:
        held = [attack(name, args.seconds, args.corpus or Path(folder)) for name in args.target or TARGETS]
    print(f"{sum(held)} of {len(held)} readers held")
    return 0 if all(held) else 1


if __name__ == "__main__":
    sys.exit(main())
