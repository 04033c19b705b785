"""Fingerprint of a result: model, engine, hardware, workload, seeds and versions."""

from __future__ import annotations

import hashlib
import json
import os
import platform
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Any

import psutil

from loadtest.report.run_summary import VERSIONS, slo_figures, workload_figures

if TYPE_CHECKING:
    from loadtest.capacity.finding import SearchFinding

# Engine settings of .env that compose.yaml passes to the load generator too.
ENGINE_SETTINGS = (
    *("ENGINE_IMAGE", "MODEL_ID", "MODEL_REVISION", "MAX_MODEL_LEN", "DTYPE", "CHAT_TEMPLATE", "VLLM_EXTRA_ARGS"),
    *("CPU_KV_CACHE_GIB", "GPU_MEMORY_UTILIZATION", "TENSOR_PARALLEL_SIZE", "MAX_CONCURRENT_REQUESTS"),
)


def fingerprint(finding: SearchFinding) -> dict[str, Any]:
    """Return the part `run` of `capacity.json`."""
    options, plan, settings = finding.options, finding.plan, finding.settings
    return {
        "id": plan.run_id,
        "started": plan.started,
        "duration_s": finding.duration_s,
        "seed": plan.seed,
        "target": options.target.name,
        "workload": {**workload_figures(options.workload), "notes": list(finding.notes)},
        "slo": slo_figures(options),
        "search": {
            "budget_s": finding.budget_s,
            "start_rate": settings.start_rate,
            "max_rate": settings.max_rate,
            "relative_interval": settings.relative_interval,
            "confidence": settings.confidence,
        },
        "model": {"name": plan.model, "max_model_len": plan.max_model_len, **_manifest(options.workload.tokenizer)},
        "engine": {
            "version": finding.engine_version,
            "cache_config": dict(finding.cache_config),
            "settings": engine_settings(),
        },
        "hardware": _hardware(),
        "processes": max((record.processes for record in finding.stages), default=0),
        "versions": {"python": platform.python_version(), **{name: version(name) for name in VERSIONS}},
    }


def engine_settings() -> dict[str, str]:
    """Return the engine's settings in this environment, without empty ones."""
    return {name: value for name in ENGINE_SETTINGS if (value := os.environ.get(name, "").strip())}


def _manifest(model: Path | None) -> dict[str, Any]:
    """Return the facts in the model's manifest, if its folder is known (--tokenizer)."""
    if model is None:
        return {}
    folder = model if model.is_dir() else model.parent
    try:
        content = (folder / "manifest.json").read_bytes()
        parsed = json.loads(content)
    except (OSError, ValueError):
        return {}
    known = {name: parsed.get(name) for name in ("source", "id", "revision")}
    return {**known, "manifest_sha256": hashlib.sha256(content).hexdigest()}


def _hardware() -> dict[str, Any]:
    """Return the load generator's hardware, which may be the engine's too."""
    return {
        "machine": platform.machine(),
        "cpu": _cpu_model(),
        "cores": os.cpu_count(),
        "memory_bytes": psutil.virtual_memory().total,
        "kernel": platform.release(),
    }


def _cpu_model() -> str | None:
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:
        return None
    return next((line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")), None)
