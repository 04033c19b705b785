"""A stack that has the model and no running engine."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from collections.abc import Callable

    from tests.rig.running_stack import Stack


@pytest.fixture(scope="session")
def downloaded(new_stack: Callable[..., Stack]) -> Stack:
    """A stack of its own whose model is on the volume and whose engine was not started."""
    stack = new_stack("downloaded")
    stack.compose("up", "-d", "--build", "--wait", "hub")
    stack.compose("up", "model")
    return stack
