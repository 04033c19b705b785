"""Every reader of hostile input by name."""

from tests.fuzz import capacity, load, stack

TARGETS = load.TARGETS | stack.TARGETS | capacity.TARGETS
