"""Every reader of hostile input by name."""

from tests.unit.hostile import capacity_readers, loadtest_readers, stack_readers

TARGETS = loadtest_readers.TARGETS | stack_readers.TARGETS | capacity_readers.TARGETS
