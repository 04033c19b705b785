"""Locust patches the standard library on import, so it comes before everything that these tests import."""

import locust  # noqa: F401  # for its patching

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[3]))

from collections.abc import Iterator

import pytest

from tests.fault_engine.process import running_engine

TTFT_S = 0.05
GAP_S = 0.02


@pytest.fixture(scope="session")
def engine() -> Iterator[str]:
    """The root URL of a running fault engine: TTFT 50 ms, a token every 20 ms."""
    with running_engine("--ttft-ms", str(TTFT_S * 1000), "--gap-ms", str(GAP_S * 1000)) as url:
        yield url
