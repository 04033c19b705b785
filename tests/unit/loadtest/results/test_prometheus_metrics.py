from __future__ import annotations

from prometheus_client import generate_latest
from prometheus_client.parser import text_string_to_metric_families

from loadtest.client.request_record import Outcome, RequestRecord
from loadtest.results import histogram_buckets
from loadtest.results.prometheus_metrics import LoadTestMetrics
from loadtest.results.run_results import RunResults
from loadtest.results.totals import RunTotals
from tests.rig.loadtest_objects import options, plan, record

NAMES = {
    "loadtest_requests",
    "loadtest_time_to_first_token_seconds",
    "loadtest_time_to_first_answer_token_seconds",
    "loadtest_inter_token_latency_seconds",
    "loadtest_request_time_per_output_token_seconds",
    "loadtest_e2e_request_latency_seconds",
    "loadtest_schedule_delay_seconds",
    "loadtest_prompt_tokens",
    "loadtest_generation_tokens",
    "loadtest_goodput_requests",
    "loadtest_pauses",
    "loadtest_paused_seconds",
    "loadtest_users",
    "loadtest_target_requests_per_second",
    "loadtest_client_lag_seconds",
    "loadtest_client_cpu_ratio",
    "loadtest_run_info",
}


def exported(*records: RequestRecord) -> dict[str, dict[tuple[str, ...], float]]:
    metrics = LoadTestMetrics(lambda: 8)
    run = RunResults(options(), plan())
    metrics.start_run(run, 2.5)
    totals = RunTotals(run.options.slo)
    for each in records:
        totals.add(each)
    metrics.add(totals)
    page = generate_latest(metrics.registry()).decode()
    found: dict[str, dict[tuple[str, ...], float]] = {}
    for family in text_string_to_metric_families(page):
        found.setdefault(family.name, {})
        for sample in family.samples:
            key = (sample.name, *(f"{name}={value}" for name, value in sorted(sample.labels.items())))
            found[family.name][key] = sample.value
    return found


def test_every_documented_metric_is_exported() -> None:
    assert set(exported(record())) >= NAMES


def test_metrics_keep_no_per_second_counts() -> None:
    # A load generator runs for weeks.
    metrics = LoadTestMetrics(lambda: 0)
    totals = RunTotals(options().slo)
    totals.add(record())
    assert totals.combined().deltas_at
    metrics.start_run(RunResults(options(), plan()))
    metrics.add(totals)
    assert not metrics._totals.combined().deltas_at
    assert totals.combined().deltas_at  # the run's own results keep them, for the plots


def test_series_are_zero_before_the_first_run() -> None:
    # Prometheus sees no increase up to a counter's first value, so series must exist before the first request.
    page = generate_latest(LoadTestMetrics(lambda: 0).registry()).decode()
    for endpoint in ("chat", "completions"):
        assert f'loadtest_requests_total{{endpoint="{endpoint}",outcome="ok"}} 0.0' in page
        assert f'loadtest_time_to_first_token_seconds_count{{endpoint="{endpoint}"}} 0.0' in page


def test_requests_count_by_endpoint_and_outcome() -> None:
    requests = exported(record(), record(), record(Outcome.TIMEOUT))["loadtest_requests"]
    assert requests["loadtest_requests_total", "endpoint=chat", "outcome=ok"] == 2
    assert requests["loadtest_requests_total", "endpoint=chat", "outcome=timeout"] == 1
    assert requests["loadtest_requests_total", "endpoint=chat", "outcome=rejected"] == 0


def test_histograms_have_vllm_edges() -> None:
    metric = "loadtest_time_to_first_token_seconds"
    samples = exported(record(ttft=0.05))[metric]
    chat = [key for key in samples if key[0] == f"{metric}_bucket" and key[1] == "endpoint=chat"]
    edges = [key[-1].removeprefix("le=") for key in chat]
    assert [float(edge) for edge in edges] == [*histogram_buckets.TTFT, float("inf")]
    assert samples[f"{metric}_bucket", "endpoint=chat", "le=0.04"] == 0
    assert samples[f"{metric}_bucket", "endpoint=chat", "le=0.06"] == 1
    assert samples[f"{metric}_count", "endpoint=chat"] == 1
    assert samples[f"{metric}_sum", "endpoint=chat"] == 0.05


def test_counters_rise_from_run_to_run() -> None:
    metrics = LoadTestMetrics(lambda: 0)
    for expected in (1, 2):
        run = RunResults(options(), plan())
        metrics.start_run(run)
        totals = RunTotals(run.options.slo)
        totals.add(record())
        metrics.add(totals)
        page = generate_latest(metrics.registry()).decode()
        assert f'loadtest_requests_total{{endpoint="chat",outcome="ok"}} {expected}.0' in page
