from __future__ import annotations

import os
import subprocess
from pathlib import Path

import pytest

from tests.bench import soak
from tests.bench.sampling import SCRIPT, Samples, Series, slope


def test_slope_of_a_noisy_line() -> None:
    line = Series()
    for second in range(100):
        line.add(1000.0 + second, 7 + 0.5 * second + (1 if second % 2 else -1))
    assert slope([line]) == pytest.approx(0.5, abs=0.01)
    assert line.after(50).at[0] == 1050
    assert slope([]) == slope([Series()]) == 0


def test_restart_does_not_count_as_growth() -> None:
    series = Series()
    for life, pid in enumerate((1, 2)):
        for second in range(100):
            start = 50 * second if second < 20 else 1000  # grows during the start, then stays
            series.add(1000.0 * life + second, start - 400 * life, frozenset({f"7/{pid}"}))
    assert len(series.lives()) == 2
    assert slope(series.lives(skip_s=20)) == 0
    assert slope([series]) < 0


def test_growth_excludes_the_warm_up() -> None:
    samples = Samples.__new__(Samples)
    nobody: frozenset[str] = frozenset()
    samples.series = {("vllm", "rss"): Series([0, 60, 120, 180], [0, 1000, 1000, 1000], [nobody] * 4)}
    assert samples.growth_per_minute("vllm", "rss") > 100
    assert samples.growth_per_minute("vllm", "rss", skip_s=60) == 0
    assert samples.first_and_last("vllm", "rss", skip_s=60) == (1000, 1000)


def test_process_key_has_id_and_start() -> None:
    # Process ids repeat after a container's restart.
    lines = subprocess.run(["sh", "-c", SCRIPT], capture_output=True, text=True, check=True).stdout.splitlines()
    started = Path("/proc/self/stat").read_text().rpartition(") ")[2].split()[19]
    (own,) = [line.split(" ", 3) for line in lines if line.startswith(f"{os.getpid()}/")]
    assert own[0] == f"{os.getpid()}/{started}"
    assert int(own[1]) > 2**20
    assert int(own[2]) >= 3


def growing(seconds: range, pid: int, still: int = 10_000) -> Series:
    """1 MiB a second until `still`, a point every 10 s."""
    values = [100e6 + 2**20 * min(second, still) for second in seconds]
    return Series([*seconds], values, [frozenset({str(pid)})] * len(seconds))


def test_only_long_lives_are_judged(capsys: pytest.CaptureFixture[str]) -> None:
    samples = Samples.__new__(Samples)
    samples.series = {("vllm: short", "rss"): growing(range(0, 700, 10), 1)}
    assert soak.slopes(samples, Series()) == []
    assert "10 min, 1 life: too short to tell" in capsys.readouterr().out
    samples.series = {("vllm: long", "rss"): growing(range(0, 730, 10), 2)}
    assert soak.slopes(samples, Series()) == ["vllm: long: MiB grow by 3600.0 an hour"]


def test_oscillating_memory_is_no_growth() -> None:
    samples = Samples.__new__(Samples)
    seconds = range(0, 1800, 10)
    values = [100e6 + 5e6 * (second // 120 % 4) for second in seconds]  # like the alternating loads
    samples.series = {("locust: up and down", "rss"): Series([*seconds], values, [frozenset({"1"})] * len(seconds))}
    assert soak.slopes(samples, Series()) == []


def test_filling_cache_is_no_growth() -> None:
    samples = Samples.__new__(Samples)
    samples.series = {("vllm: filled", "rss"): growing(range(0, 1800, 10), 1, still=900)}
    assert soak.slopes(samples, Series()) == []
