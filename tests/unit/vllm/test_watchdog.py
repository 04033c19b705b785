"""Stalled and busy engines, by their own metrics."""

from __future__ import annotations

import pytest
from api_client import parse_metrics
from watchdog import CANARY_IDLE_S, CANARY_WAITING_S, EngineProgress, Sample

LIMIT_S = 120.0
TICK_S = 5.0


def page(steps: int, running: int = 0, waiting: int = 0, unanswered: int = 0, engine: int = 0) -> str:
    labels = f'{{engine="{engine}",model_name="m"}}'
    return (
        "# HELP vllm:iteration_tokens_total Histogram of the number of tokens per engine_step.\n"
        f"vllm:iteration_tokens_total_count{labels} {steps}.0\n"
        f"vllm:num_requests_running{labels} {running}.0\n"
        f"vllm:num_requests_waiting{labels} {waiting}.0\n"
        f"vllm:kv_cache_usage_perc{labels} {running / 100}\n"
        f"headroom_engine_requests_unanswered {unanswered}.0\n"
    )


class Watched:
    """An EngineProgress with one sample every five seconds."""

    def __init__(self, *, cpu_counts: bool = True) -> None:
        self.progress = EngineProgress(LIMIT_S, cpu_counts)
        self.engine_cpu_s = self.api_cpu_s = 0.0
        self.compiling = False

    def see(self, text: str | None, seconds: float, *, engine_cores: float = 0, api_cores: float = 0) -> None:
        for _ in range(round(seconds / TICK_S)):
            self.engine_cpu_s += engine_cores * TICK_S
            self.api_cpu_s += api_cores * TICK_S
            metrics = None if text is None else parse_metrics(text)
            self.progress.observe(Sample(metrics, self.engine_cpu_s, self.api_cpu_s), TICK_S, compiling=self.compiling)


@pytest.fixture
def watched() -> Watched:
    return Watched()


def test_requests_without_steps_stall(watched: Watched) -> None:
    watched.see(page(7, running=3), TICK_S)
    watched.see(page(7, running=3), LIMIT_S / 2)
    assert watched.progress.suspect
    watched.see(page(7, running=3), LIMIT_S / 2 - TICK_S)
    assert not watched.progress.stalled
    watched.see(page(7, running=3), TICK_S)
    assert watched.progress.stalled
    assert watched.progress.describe() == "the engine holds 3 requests and has made no step for 120 s"


def test_waiting_requests_count_as_work(watched: Watched) -> None:
    watched.see(page(7, waiting=1), LIMIT_S + TICK_S)
    assert watched.progress.stalled


def test_saturated_engine_is_not_stalled(watched: Watched) -> None:
    for step in range(2000):
        watched.see(page(step, running=128, waiting=5000, unanswered=5000), TICK_S)
        assert not watched.progress.suspect


def test_cache_growth_is_progress(watched: Watched) -> None:
    for used in range(100):
        watched.see(page(7, running=1).replace(" 0.01\n", f" {0.01 + used / 1000}\n"), TICK_S)
    assert not watched.progress.suspect


def test_idle_engine_is_not_stalled(watched: Watched) -> None:
    watched.see(page(7), 10 * LIMIT_S)
    assert not watched.progress.suspect


def test_computing_on_cpu_extends_limit(watched: Watched) -> None:
    watched.see(page(7, running=1), 10 * LIMIT_S - TICK_S, engine_cores=1)
    assert not watched.progress.stalled
    watched.see(page(7, running=1), 2 * TICK_S, engine_cores=1)
    assert watched.progress.stalled


def test_warm_up_extends_limit() -> None:
    watched = Watched(cpu_counts=False)
    watched.compiling = True
    watched.see(page(7, running=1), 10 * LIMIT_S - TICK_S)
    assert not watched.progress.stalled
    watched.see(page(7, running=1), 2 * TICK_S)
    assert watched.progress.stalled


def test_spinning_on_gpu_is_a_stall() -> None:
    watched = Watched(cpu_counts=False)
    watched.see(page(7, running=1), LIMIT_S + TICK_S, engine_cores=1)
    assert watched.progress.stalled


def test_api_server_cpu_is_ignored(watched: Watched) -> None:
    watched.see(page(7, running=1), LIMIT_S + TICK_S, api_cores=1)
    assert watched.progress.stalled


def test_silent_api_server_is_stalled(watched: Watched) -> None:
    watched.see(page(7), TICK_S)
    watched.see(None, 2 * LIMIT_S, api_cores=0.9)
    assert not watched.progress.stalled
    watched.see(None, LIMIT_S, api_cores=0)
    assert watched.progress.stalled
    assert "API server has not answered" in watched.progress.describe()


def test_one_of_two_engines_stalls(watched: Watched) -> None:
    for step in range(26):
        watched.see(page(7, running=1, engine=0) + page(step, running=1, engine=1), TICK_S)
    assert watched.progress.stalled


def test_alternating_engines_are_alive(watched: Watched) -> None:
    for step in range(200):
        watched.see(page(step // 2, running=1, engine=0) + page((step + 1) // 2, running=1, engine=1), TICK_S)
    assert not watched.progress.suspect


def test_suspended_time_is_capped(watched: Watched) -> None:
    watched.see(page(7, running=1), TICK_S)
    sample = Sample(parse_metrics(page(7, running=1)), 0, 0)
    watched.progress.observe(sample, 36_000)
    assert not watched.progress.suspect


def test_idle_engine_gets_a_canary(watched: Watched) -> None:
    metrics = parse_metrics(page(7))
    watched.see(page(7), CANARY_IDLE_S)
    assert not watched.progress.wants_canary(metrics)
    watched.see(page(7), TICK_S)
    assert watched.progress.wants_canary(metrics)
    watched.progress.canary_pending = True
    watched.see(page(7), LIMIT_S)
    assert watched.progress.stalled
    assert "was asked for a token" in watched.progress.describe()


def test_answered_canary_resets_clocks(watched: Watched) -> None:
    watched.see(page(7), CANARY_IDLE_S + TICK_S)
    watched.progress.canary_pending = True
    watched.see(page(7), LIMIT_S / 2)
    watched.see(page(8), TICK_S)
    watched.see(page(8), LIMIT_S)
    assert not watched.progress.suspect
    assert not watched.progress.canary_pending


def test_unreported_request_hastens_canary(watched: Watched) -> None:
    waiting = page(7, unanswered=1)
    watched.see(waiting, CANARY_WAITING_S + TICK_S)
    assert watched.progress.wants_canary(parse_metrics(waiting))
    # Alone it ends nothing: the request may wait for something else.
    watched.see(waiting, 3 * LIMIT_S)
    assert not watched.progress.suspect


def test_computing_starts_the_clock_anew(watched: Watched) -> None:
    for _ in range(3):
        watched.see(page(7, running=1), LIMIT_S - 2 * TICK_S)
        watched.see(page(7, running=1), TICK_S, engine_cores=1)
    assert not watched.progress.stalled


def test_equal_series_of_one_engine_add_up() -> None:
    metrics = parse_metrics(page(7, running=2) + page(5, running=1))
    assert metrics.engines["0"].held == 3
