"""Fuzz one target with libFuzzer, guided by coverage: `python -m tests.fuzz.one NAME [libFuzzer option...]`.

All that is imported inside the block is instrumented: the readers, and the hubs' clients that read their answers.
"""

import sys

import atheris  # type: ignore[import-untyped]  # it ships no types

OURS = ["loadtest", "delivery", "settings", "explain", "buckets"]
with atheris.instrument_imports(include=[*OURS, "huggingface_hub.hf_api", "modelscope.hub.api"]):
    from tests.fuzz.targets import TARGETS

    target = TARGETS[sys.argv[1]]
    target.check(b"")  # what it imports at its first use

if __name__ == "__main__":
    atheris.Setup([sys.argv[0], *sys.argv[2:]], target.check)
    atheris.Fuzz()
