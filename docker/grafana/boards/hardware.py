"""GPU and host dashboard, with the cost of the monitoring itself."""

from __future__ import annotations

from typing import TYPE_CHECKING

from boards import monitoring
from boards.layout import Section, dashboard
from boards.panels import NO_GPU, NO_HOST, graph, thresholds, tile
from boards.promql import ENGINE, GPU, HOST, Query, rate, share

if TYPE_CHECKING:
    from grafana_foundation_sdk.models.dashboard import Dashboard

# Cards without profiling counters (GeForce) only have the coarser metric after `or`.
BUSY = f"max by (gpu) (DCGM_FI_PROF_GR_ENGINE_ACTIVE{{{GPU}}}) or max by (gpu) (DCGM_FI_DEV_GPU_UTIL{{{GPU}}} / 100)"
MEMORY_BUSY = (
    f"max by (gpu) (DCGM_FI_PROF_DRAM_ACTIVE{{{GPU}}}) or max by (gpu) (DCGM_FI_DEV_MEM_COPY_UTIL{{{GPU}}} / 100)"
)
MEMORY = (
    f"max by (gpu) (DCGM_FI_DEV_FB_USED{{{GPU}}}) "
    f"/ (max by (gpu) (DCGM_FI_DEV_FB_USED{{{GPU}}}) + max by (gpu) (DCGM_FI_DEV_FB_FREE{{{GPU}}}))"
)
DISKS = 'job="node", fstype!~"tmpfs|ramfs|overlay|squashfs"'
HOT, MAY_THROTTLE = 85, 80


def build() -> Dashboard:
    """Return the dashboard."""
    return dashboard(
        "hardware",
        "What the GPUs and the host do, and what the monitoring itself costs.",
        [_gpu(), _host(), monitoring.section()],
    )


def _gpu() -> Section:
    hot = thresholds((None, "green"), (MAY_THROTTLE, "orange"), (HOT, "red"))
    return Section(
        "GPU",
        [
            tile(
                "GPUs",
                "none",
                "DCGM_FI_DEV_GPU_TEMP: cards that report. Fewer than there are: see GPULost in docs/runbook.md.",
                f"count(DCGM_FI_DEV_GPU_TEMP{{{GPU}}})",
                nothing="No GPU exporter",
                width=4,
            ),
            tile(
                "Busiest GPU",
                "percentunit",
                "DCGM_FI_PROF_GR_ENGINE_ACTIVE, or DCGM_FI_DEV_GPU_UTIL where the card lacks it: share of time in "
                "which anything ran. Busy is not full: see memory bandwidth.",
                f"max({BUSY})",
                nothing="No GPU exporter",
                width=4,
            ),
            tile(
                "GPU memory",
                "percentunit",
                "DCGM_FI_DEV_FB_USED, DCGM_FI_DEV_FB_FREE: of the fullest card. The engine takes "
                "GPU_MEMORY_UTILIZATION at its start and keeps it; that is no leak.",
                f"max({MEMORY})",
                nothing="No GPU exporter",
                width=4,
            ),
            tile(
                "Hottest GPU",
                "celsius",
                f"DCGM_FI_DEV_GPU_TEMP: {HOT} °C for five minutes is an alert.",
                f"max(DCGM_FI_DEV_GPU_TEMP{{{GPU}}})",
                limits=hot,
                nothing="No GPU exporter",
                width=4,
            ),
            tile(
                "Power",
                "watt",
                "DCGM_FI_DEV_POWER_USAGE: all cards together.",
                f"sum(DCGM_FI_DEV_POWER_USAGE{{{GPU}}})",
                nothing="No GPU exporter",
                width=4,
            ),
            tile(
                "XID errors",
                "none",
                "DCGM_FI_DEV_XID_ERRORS: cards whose driver has reported an error since the exporter's start; 0 is "
                "right.",
                f"count(DCGM_FI_DEV_XID_ERRORS{{{GPU}}} > 0) or 0 * count(DCGM_FI_DEV_XID_ERRORS{{{GPU}}})",
                limits=thresholds((None, "green"), (1, "red")),
                nothing="No GPU exporter",
                width=4,
            ),
            graph(
                "GPU busy",
                "percentunit",
                "DCGM_FI_PROF_GR_ENGINE_ACTIVE; DCGM_FI_DEV_GPU_UTIL where the card lacks profiling counters.",
                Query(BUSY, "GPU {{gpu}}"),
                nothing=NO_GPU,
                width=8,
                most=1,
            ),
            graph(
                "Memory bandwidth in use",
                "percentunit",
                "DCGM_FI_PROF_DRAM_ACTIVE; DCGM_FI_DEV_MEM_COPY_UTIL where the card lacks it. Decode reads all weights "
                "each step: near 80 % it is as fast as the card allows.",
                Query(MEMORY_BUSY, "GPU {{gpu}}"),
                nothing=NO_GPU,
                width=8,
                most=1,
            ),
            graph(
                "Tensor cores in use",
                "percentunit",
                "DCGM_FI_PROF_PIPE_TENSOR_ACTIVE: prefill drives it. A card without profiling counters has no line, "
                "nothing else measures it.",
                Query(f"max by (gpu) (DCGM_FI_PROF_PIPE_TENSOR_ACTIVE{{{GPU}}})", "GPU {{gpu}}"),
                nothing="No profiling counters",
                width=8,
                most=1,
            ),
            graph(
                "GPU memory",
                "percentunit",
                "DCGM_FI_DEV_FB_USED of used and free.",
                Query(MEMORY, "GPU {{gpu}}"),
                nothing=NO_GPU,
                width=8,
                most=1,
            ),
            graph(
                "Temperature",
                "celsius",
                "DCGM_FI_DEV_GPU_TEMP, DCGM_FI_DEV_MEMORY_TEMP.",
                Query(f"max by (gpu) (DCGM_FI_DEV_GPU_TEMP{{{GPU}}})", "GPU {{gpu}}"),
                Query(f"max by (gpu) (DCGM_FI_DEV_MEMORY_TEMP{{{GPU}}}) > 0", "GPU {{gpu}} memory"),
                nothing=NO_GPU,
                width=8,
                limits=hot,
            ),
            graph(
                "SM clock",
                "suffix:MHz",
                "DCGM_FI_DEV_SM_CLOCK: falls when idle; falls while busy: heat or power holds it down.",
                Query(f"max by (gpu) (DCGM_FI_DEV_SM_CLOCK{{{GPU}}})", "GPU {{gpu}}"),
                nothing=NO_GPU,
                width=8,
            ),
            graph(
                "Power",
                "watt",
                "DCGM_FI_DEV_POWER_USAGE of each card.",
                Query(f"max by (gpu) (DCGM_FI_DEV_POWER_USAGE{{{GPU}}})", "GPU {{gpu}}"),
                nothing=NO_GPU,
                stacked=True,
            ),
            graph(
                "Energy per output token",
                "joule",
                "DCGM_FI_DEV_POWER_USAGE of all cards over vllm:generation_tokens_total: falls as the batch grows.",
                Query(
                    share(f"sum(DCGM_FI_DEV_POWER_USAGE{{{GPU}}})", rate("vllm:generation_tokens_total", ENGINE)),
                    "J per token",
                ),
                nothing=NO_GPU,
            ),
        ],
    )


def _host() -> Section:
    pressure = [
        Query(rate("node_pressure_cpu_waiting_seconds_total", HOST), "CPU"),
        Query(rate("node_pressure_memory_waiting_seconds_total", HOST), "memory"),
        Query(rate("node_pressure_io_waiting_seconds_total", HOST), "disk"),
    ]
    return Section(
        "Host",
        [
            graph(
                "CPU by mode",
                "percentunit",
                "node_cpu_seconds_total, idle left out; 100 % is all cores. A CPU engine drives it to the top; steal "
                "means that a neighbour takes it.",
                Query(
                    f'sum by (mode) (rate(node_cpu_seconds_total{{{HOST}, mode!="idle"}}[$__rate_interval])) '
                    f'/ on () group_left () count(node_cpu_seconds_total{{{HOST}, mode="idle"}})',
                    "{{mode}}",
                ),
                nothing=NO_HOST,
                width=8,
                stacked=True,
                most=1,
            ),
            graph(
                "Pressure",
                "percentunit",
                "node_pressure_cpu_waiting_seconds_total and its likes for memory and io: share of time in which "
                "something waited for it. Memory above 0 for long: the host swaps or is about to kill.",
                *pressure,
                nothing=NO_HOST,
                width=8,
            ),
            graph(
                "Memory",
                "bytes",
                "node_memory_MemTotal_bytes, node_memory_MemAvailable_bytes: used is what programs cannot give back.",
                Query(
                    f"sum(node_memory_MemTotal_bytes{{{HOST}}}) - sum(node_memory_MemAvailable_bytes{{{HOST}}})", "used"
                ),
                Query(f"sum(node_memory_MemTotal_bytes{{{HOST}}})", "total"),
                nothing=NO_HOST,
                width=8,
            ),
            graph(
                "Disk space in use",
                "percentunit",
                "node_filesystem_avail_bytes, node_filesystem_size_bytes. Above 90 % is an alert; Prometheus and "
                "downloads stop at 100 %.",
                Query(
                    f"1 - max by (mountpoint) (node_filesystem_avail_bytes{{{DISKS}}}) "
                    f"/ max by (mountpoint) (node_filesystem_size_bytes{{{DISKS}}})",
                    "{{mountpoint}}",
                ),
                nothing=NO_HOST,
                width=8,
                most=1,
                limits=thresholds((None, "green"), (0.9, "red")),
            ),
            graph(
                "Disk traffic",
                "Bps",
                "node_disk_read_bytes_total, node_disk_written_bytes_total. Reading while the engine starts: weights.",
                Query(rate("node_disk_read_bytes_total", HOST), "read"),
                Query(rate("node_disk_written_bytes_total", HOST), "written"),
                nothing=NO_HOST,
                width=8,
            ),
            graph(
                "Load",
                "none",
                "node_load1 beside the number of cores: processes that run or wait for a core or a disk.",
                Query(f"max(node_load1{{{HOST}}})", "load over 1 minute"),
                Query(f'count(node_cpu_seconds_total{{{HOST}, mode="idle"}})', "cores"),
                nothing=NO_HOST,
                width=8,
            ),
        ],
    )
