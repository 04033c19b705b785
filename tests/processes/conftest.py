"""Tests that start the load test as a person does; they import no Locust themselves, so that pytest-xdist can run them.

Locust patches the standard library on import, and with it xdist's own threads.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from tests.rig.fault_engine.process import running_engine

if TYPE_CHECKING:
    from collections.abc import Iterator


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Put the longest test first."""
    items.sort(key=lambda item: item.get_closest_marker("longest") is None)


@pytest.fixture(scope="session")
def engine() -> Iterator[str]:
    """The root URL of a running fault engine: TTFT 50 ms, a token every 20 ms."""
    with running_engine("--ttft-ms", "50", "--gap-ms", "20") as url:
        yield url
