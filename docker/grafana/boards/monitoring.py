"""Section of GPU and host: cost and completeness of the monitoring itself."""

from __future__ import annotations

from boards.layout import Section
from boards.panels import graph, rows, thresholds
from boards.promql import Query


def section() -> Section:
    """Return the section."""
    prometheus = 'job="prometheus"'
    return Section(
        "The monitoring itself",
        [
            rows(
                "Targets",
                "none",
                "up: what Prometheus scrapes; 1 is up. http://localhost:9090/targets says why one is not.",
                "sort(max by (job, instance) (up))",
                {"job": "Job", "instance": "Target", "Value": "Up"},
                nothing="No targets",
                width=8,
            ),
            graph(
                "Scrape duration",
                "s",
                "scrape_duration_seconds of each job's slowest target. A scrape that takes 4 s is lost; a busy engine "
                "answers late.",
                Query("max by (job) (scrape_duration_seconds)", "{{job}}"),
                nothing="No targets",
                width=8,
                limits=thresholds((None, "green"), (4, "red")),
            ),
            graph(
                "Series per target",
                "none",
                "scrape_samples_post_metric_relabeling: what each job's largest target adds.",
                Query("max by (job) (scrape_samples_post_metric_relabeling)", "{{job}}"),
                nothing="No targets",
                width=8,
            ),
            graph(
                "Prometheus on disk",
                "bytes",
                "prometheus_tsdb_storage_blocks_bytes, prometheus_tsdb_wal_storage_size_bytes, "
                "prometheus_tsdb_head_chunks_storage_size_bytes. PROMETHEUS_RETENTION_SIZE and _TIME bound it.",
                Query(
                    f"prometheus_tsdb_storage_blocks_bytes{{{prometheus}}} "
                    f"+ prometheus_tsdb_wal_storage_size_bytes{{{prometheus}}} "
                    f"+ prometheus_tsdb_head_chunks_storage_size_bytes{{{prometheus}}}",
                    "in use",
                ),
                Query(f"prometheus_tsdb_retention_limit_bytes{{{prometheus}}}", "limit"),
                nothing="No Prometheus",
                width=8,
            ),
            graph(
                "Prometheus memory",
                "bytes",
                "process_resident_memory_bytes of Prometheus; it follows the number of series.",
                Query(f"process_resident_memory_bytes{{{prometheus}}}", "resident"),
                nothing="No Prometheus",
                width=8,
            ),
            graph(
                "Rule evaluation",
                "s",
                "prometheus_rule_group_last_duration_seconds of the slowest group; every 5 s they must be done.",
                Query(f"max(prometheus_rule_group_last_duration_seconds{{{prometheus}}})", "slowest group"),
                nothing="No Prometheus",
                width=8,
                limits=thresholds((None, "green"), (5, "red")),
            ),
        ],
    )
