"""Fuzz one target with libFuzzer, guided by coverage: `python -m tests.fuzz.one NAME [libFuzzer option...]`.

Everything that is imported inside the block is instrumented.
"""

import sys

import atheris  # type: ignore[import-untyped]  # it ships no types

with atheris.instrument_imports(include=["loadtest", "delivery", "settings", "explain", "buckets"]):
    from tests.fuzz.targets import TARGETS

if __name__ == "__main__":
    target = TARGETS[sys.argv[1]]
    atheris.Setup([sys.argv[0], *sys.argv[2:]], target.check)
    atheris.Fuzz()
