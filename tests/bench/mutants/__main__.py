"""`python -m tests.bench.mutants [--list] [NAME...]`: run the tests on small faults, and count those they notice.

The faults are in mutants.toml. Each is put into a copy of the tracked files, never into the tree itself. Needs minutes;
`nice` it on a machine that others use.
"""

from __future__ import annotations

import argparse
import os
import queue
import re
import shutil
import subprocess
import sys
import tempfile
import time
import tomllib
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

_MUTANTS = Path(__file__).with_name("mutants.toml")
# A fault may make a test wait for ever; the slowest of these tests takes 10 s on an idle machine.
_TEST_TIMEOUT_S = 300
_TIMED_OUT = f"Timeout (>{_TEST_TIMEOUT_S:.1f}s)"
_PASSED, _FAILED, _INTERRUPTED = 0, 1, 2  # pytest's exit codes; the last is also that of a module that fails to import
_NOTICED = re.compile(r"^(?:FAILED|ERROR) (\S+)", re.MULTILINE)


@dataclass(frozen=True, slots=True)
class Mutant:
    """One fault: in `file`, `old` becomes `new`; `tests` are pytest's arguments."""

    name: str
    file: str
    old: str
    new: str
    breaks: str
    tests: tuple[str, ...]

    def apply(self, tree: Path) -> str:
        """Return the text of its file in `tree` with the fault. Raises ValueError unless `old` occurs once."""
        path = tree / self.file
        if not path.is_file():
            raise ValueError(f"{self.name}: {self.file} does not exist")
        text = path.read_text()
        if (count := text.count(self.old)) != 1:
            raise ValueError(f"{self.name}: {self.old.strip()!r} occurs {count} times in {self.file}")
        return text.replace(self.old, self.new)


def read_mutants(path: Path) -> list[Mutant]:
    """Read a list of mutants, grouped by the file they change."""
    groups = tomllib.loads(path.read_text())["file"]
    return [
        Mutant(file=group["path"], tests=tuple(group["tests"]), **mutant)
        for group in groups
        for mutant in group["mutant"]
    ]


def _copy_tree(tree: Path) -> None:
    """Copy the tracked files of the working tree to `tree`."""
    root = Path(subprocess.check_output(["git", "rev-parse", "--show-toplevel"], text=True).strip())
    for name in subprocess.check_output(["git", "ls-files", "-z"], cwd=root, text=True).split("\0")[:-1]:
        if (root / name).is_file():
            (tree / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(root / name, tree / name)


def _run_tests(tree: Path, tests: tuple[str, ...]) -> str | None:
    """Return the first test that fails in `tree`, None when all pass. Raises ValueError when they cannot be run."""
    # Compiled files are told apart by second and size: a mutant may differ in neither.
    env = {**os.environ, "PYTHONDONTWRITEBYTECODE": "1"}
    command = [sys.executable, "-m", "pytest", "-x", "-q", "-p", "no:cacheprovider", f"--timeout={_TEST_TIMEOUT_S}"]
    done = subprocess.run([*command, *tests], cwd=tree, env=env, capture_output=True, text=True, check=False)
    if done.returncode == _PASSED:
        return None
    if done.returncode not in {_FAILED, _INTERRUPTED}:
        raise ValueError(f"pytest {' '.join(tests)}: exit code {done.returncode}: {done.stderr.strip()}")
    noticed = _NOTICED.search(done.stdout)
    test = noticed[1] if noticed else "pytest itself ended"
    return f"{test} (timeout)" if _TIMED_OUT in done.stdout else test


class _Trees:
    """Copies of the tree, each for one run of the tests at a time."""

    def __init__(self, scratch: Path, count: int) -> None:
        self.first = scratch / "0"
        self._free: queue.SimpleQueue[Path] = queue.SimpleQueue()
        self._pool = ThreadPoolExecutor(count)
        for number in range(count):
            _copy_tree(scratch / str(number))
            self._free.put(scratch / str(number))

    def check_clean(self, tests: set[tuple[str, ...]]) -> None:
        """Raise ValueError unless the tests pass without any fault: else their failure would say nothing."""
        chosen = sorted(tests)
        for failed in self._pool.map(self._run, chosen):
            if failed:
                raise ValueError(f"{failed} fails without any mutant")

    def kill_all(self, mutants: list[Mutant]) -> int:
        """Run the tests on every mutant; returns the number that they notice."""
        return sum(self._pool.map(self._kill, mutants))

    def _run(self, tests: tuple[str, ...], mutant: Mutant | None = None) -> str | None:
        tree = self._free.get()
        try:
            if mutant is None:
                return _run_tests(tree, tests)
            path = tree / mutant.file
            original = path.read_text()
            try:
                path.write_text(mutant.apply(tree))
                return _run_tests(tree, tests)
            finally:
                path.write_text(original)
        finally:
            self._free.put(tree)

    def _kill(self, mutant: Mutant) -> bool:
        begun = time.monotonic()
        test = self._run(mutant.tests, mutant)
        seconds = time.monotonic() - begun
        print(f"{'killed' if test else 'SURVIVED':<8} {seconds:5.1f} s  {mutant.name}  {test or ''}", flush=True)
        return test is not None


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.bench.mutants", description=__doc__)
    parser.add_argument("names", nargs="*", metavar="NAME", help="default: all")
    parser.add_argument("--list", action="store_true", help="print the mutants and run nothing")
    parser.add_argument("--jobs", type=int, default=2, help="mutants at a time, each in a copy of its own")
    given = parser.parse_args()
    mutants = read_mutants(_MUTANTS)
    if unknown := set(given.names) - {mutant.name for mutant in mutants}:
        parser.error(f"no mutant is called {', '.join(sorted(unknown))}")
    chosen = [mutant for mutant in mutants if not given.names or mutant.name in given.names]
    if given.list:
        for mutant in chosen:
            print(f"{mutant.name:<32} {mutant.file:<60} {mutant.breaks}")
        return 0
    with tempfile.TemporaryDirectory() as scratch:
        try:
            trees = _Trees(Path(scratch), given.jobs)
            for mutant in chosen:
                mutant.apply(trees.first)
            trees.check_clean({mutant.tests for mutant in chosen})
            killed = trees.kill_all(chosen)
        except ValueError as error:
            print(error, file=sys.stderr)
            return 2
    print(f"{killed} of {len(chosen)} killed ({killed / len(chosen):.0%})")
    return 0


sys.exit(main())
