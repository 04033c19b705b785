"""Import Locust first: it patches the standard library."""

import locust  # noqa: F401  # for its patching

from collections.abc import Iterator

import pytest

from tests.rig.fault_engine.process import running_engine

TTFT_S = 0.05
GAP_S = 0.02


@pytest.fixture(scope="session")
def engine() -> Iterator[str]:
    """Root URL of a running fault engine: TTFT 50 ms, a token every 20 ms."""
    with running_engine("--ttft-ms", str(TTFT_S * 1000), "--gap-ms", str(GAP_S * 1000)) as url:
        yield url
