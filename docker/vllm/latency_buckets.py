"""Bucket edges of the engine's latency histograms: vLLM's defaults, and the SLO.

With the SLO as an edge, the share of requests that met it is exact, without interpolation. All default edges stay, for
people's own dashboards. loadtest/results/histogram_buckets.py has the same edges.
"""

from __future__ import annotations

# Defaults of vLLM 0.32.0, vllm/v1/metrics/buckets.py.
TIME_TO_FIRST_TOKEN = (
    *(0.001, 0.005, 0.01, 0.02, 0.04, 0.06, 0.08, 0.1, 0.25, 0.5, 0.75),
    *(1.0, 2.5, 5.0, 7.5, 10.0, 20.0, 40.0, 80.0, 160.0, 640.0, 2560.0),
)
INTER_TOKEN_LATENCY = (
    *(0.01, 0.025, 0.05, 0.075, 0.1, 0.15, 0.2, 0.3, 0.4, 0.5, 0.75),
    *(1.0, 2.5, 5.0, 7.5, 10.0, 20.0, 40.0, 80.0),
)
REQUEST_LATENCY = (
    *(0.3, 0.5, 0.8, 1.0, 1.5, 2.0, 2.5, 5.0, 10.0, 15.0, 20.0, 30.0, 40.0, 50.0, 60.0),
    *(120.0, 240.0, 480.0, 960.0, 1920.0, 7680.0),
)
# Added: queue and prefill times lie below vLLM's first edge of 0.3 s, where percentiles would be guesses.
SHORT_REQUEST_LATENCY = (0.005, 0.01, 0.025, 0.05, 0.1, 0.2)


def families(slo_ttft: float, slo_tpot: float) -> dict[str, list[float]]:
    """Value of `--custom-histogram-buckets`: rising edges in seconds by family; the SLOs are in seconds.

    The time per output token belongs to `inter_token_latency` too.
    """
    return {
        "time_to_first_token": sorted({*TIME_TO_FIRST_TOKEN, slo_ttft}),
        "inter_token_latency": sorted({*INTER_TOKEN_LATENCY, slo_tpot}),
        "request_latency": sorted({*SHORT_REQUEST_LATENCY, *REQUEST_LATENCY}),
    }
