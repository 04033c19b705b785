"""Workload: prompts, lengths and request bodies, prepared before the run and repeatable from a seed."""

from loadtest.workload.workload import RequestSpec, Workload
from loadtest.workload.workload_options import WorkloadOptions

__all__ = ["RequestSpec", "Workload", "WorkloadOptions"]
