"""Table of stages on the terminal."""

from __future__ import annotations

import pytest
from rich.console import Console

from loadtest.capacity.report.capacity_terminal import _stages


@pytest.mark.parametrize("width", [80, 112])  # of a terminal; without one
def test_no_figure_is_cut_off(width: int) -> None:
    stage = {
        "number": 12,
        "purpose": "bracket",
        "rate": 1234.56,
        "requests": 14615,
        "share": 1.0,
        "share_low": 0.985,
        "share_high": 1.0,
        "ttft_ms": {"p50": 12345.6, "p95": 23456.7},
        "tpot_ms": {"p50": 1234.5, "p95": 2345.6},
        "void": [],
        "decision": "undecided",
    }
    console = Console(width=width)
    with console.capture() as captured:
        console.print(_stages({"stages": [stage]}, width))
    printed = captured.get()
    assert "\u2026" not in printed
    for text in ("12 bracket", "1234.56", "14,615", "100.0%", "23,456.7", "2,345.6", "undecided"):
        assert text in printed
    assert ("98.5% to 100.0%" in printed) == (width > 100)
