"""What is sent: prompts, lengths and request bodies, prepared before the run and repeatable from a seed."""

from loadtest.workload.errors import InputError
from loadtest.workload.options import WorkloadOptions
from loadtest.workload.workload import RequestSpec, Workload

__all__ = ["InputError", "RequestSpec", "Workload", "WorkloadOptions"]
