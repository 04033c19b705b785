"""Runs the checks in the order of their dependencies and prints the table."""

from __future__ import annotations

import argparse
import shutil
import sys
import textwrap
from typing import TYPE_CHECKING

import compose_project
from doctor_checks import (
    box_checks,
    checkout_checks,
    docker_checks,
    gpu_checks,
    image_checks,
    setting_checks,
    stack_checks,
)
from doctor_checks.check_result import FAIL, OK, WARN, CheckResult, fail, ok

if TYPE_CHECKING:
    from collections.abc import Iterator

# Sizes in bytes and stored type of the default models, for use before the download.
_DEFAULT_MODEL_BYTES = {"cpu": 1e9, "gpu": 15.3e9}
_DEFAULT_MODEL_CONFIG = {"torch_dtype": "bfloat16"}
_DEFAULT_CACHE_GIB = 1.0
_COLOURS = {OK: "\x1b[32m", WARN: "\x1b[33m", FAIL: "\x1b[31m"}


def examine() -> Iterator[CheckResult]:
    """Run every check that is possible here."""
    versions = list(docker_checks.check_versions())
    yield from versions
    yield from box_checks.check_clock()
    yield from box_checks.check_kernel()
    if any(finding.verdict == FAIL for finding in versions):
        yield from box_checks.check_processor(on_gpu=False)
        return
    try:
        model = compose_project.rendered()
        docker_info = compose_project.info()
        containers = compose_project.containers()
    except compose_project.DockerError as error:
        yield fail("compose files", str(error), "valid", "correct what Compose names, most often a line of .env")
        return
    yield ok("compose files", f"{len(model['services'])} services, project {model['name']}", "valid")
    on_gpu = model["services"]["vllm"]["environment"].get("ENGINE_DEVICE") == "gpu"
    yield from image_checks.check_images(model)
    yield from setting_checks.check_values(model)
    yield from checkout_checks.check_checkout(model, docker_info)
    yield from box_checks.check_processor(on_gpu=on_gpu)
    yield from gpu_checks.check_gpu(model, on_gpu=on_gpu)
    found = stack_checks.wanted_model(model)
    ports = stack_checks.published(containers)
    size = found.bytes if found.ready else _DEFAULT_MODEL_BYTES["gpu" if on_gpu else "cpu"]
    if not on_gpu:
        cache = _gib(model["services"]["vllm"]["environment"].get("CPU_KV_CACHE_GIB"))
        weights = setting_checks.cpu_weight_bytes(model, size, found.config or _DEFAULT_MODEL_CONFIG) / 2**30
        needed = weights + cache + 2
        yield from box_checks.check_memory(
            needed,
            f"weights {weights:.1f}, KV cache {cache:g}, processes 2",
            engine_runs=stack_checks.runs("vllm", containers),
        )
    missing = 0 if found.ready else size
    yield from box_checks.check_disk(docker_info["DockerRootDir"], model, on_gpu=on_gpu, model_bytes=missing)
    yield from box_checks.check_ports(model, {place for places in ports.values() for place in places})
    yield from stack_checks.check_model(model, found)
    yield from stack_checks.check_containers(model, containers)
    yield from stack_checks.check_targets(stack_checks.prometheus_at(containers))


def _gib(text: str | None) -> float:
    """KV cache size in GiB; the default if not a number, which check_values already reports."""
    try:
        return float(text or _DEFAULT_CACHE_GIB)
    except ValueError:
        return _DEFAULT_CACHE_GIB


def show(finding: CheckResult, width: int, *, colour: bool) -> str:
    """Format one row: verdict, subject, finding and requirement; the fix on a line of its own."""
    verdict = f"{finding.verdict:<4}"
    if colour:
        verdict = f"{_COLOURS[finding.verdict]}{verdict}\x1b[0m"
    text = f"{finding.found}  (needed: {finding.needed})" if finding.needed else finding.found
    lines = textwrap.wrap(text, max(30, width - 23)) or [""]
    if finding.fix:
        lines += textwrap.wrap(f"-> {finding.fix}", max(30, width - 23))
    return f"{verdict}  {finding.what:<16} " + f"\n{'':23}".join(lines)


def main() -> int:
    """Run all checks; return 0 when nothing fails, else 1."""
    parser = argparse.ArgumentParser(
        prog="scripts/doctor",
        description="Say what is missing or wrong here, and how to mend it.",
    )
    parser.parse_args()
    width = min(140, shutil.get_terminal_size((120, 24)).columns)
    counts = dict.fromkeys((OK, WARN, FAIL), 0)
    for finding in examine():
        counts[finding.verdict] += 1
        print(show(finding, width, colour=sys.stdout.isatty()), flush=True)
    print(f"{counts[OK]} ok, {counts[WARN]} warnings, {counts[FAIL]} failures")
    return 1 if counts[FAIL] else 0
