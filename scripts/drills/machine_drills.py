"""Drill on the box: everything ends at once and starts in any order, as after a power cut."""

from __future__ import annotations

import random
import threading
import time
from typing import TYPE_CHECKING

from compose_project import SERVICE_LABEL
from drills.engine_drills import START_S, expect_history, history
from drills.load_drills import expect_a_run
from drills.load_run import LoadTestRun, status, workers

if TYPE_CHECKING:
    from docker.models.containers import Container
    from drills.scene import Scene


def restarted(scene: Scene) -> None:
    """All containers are killed at the same moment and started together, in an order by chance."""
    stack = scene.stack
    before = history(scene)
    LoadTestRun(stack, max_requests="32").summary(300)
    kept = stack.shell("locust", "ls /reports")
    there = workers(stack)
    running = [one for one in stack.containers() if one.status == "running"]
    with scene.watched():
        at_once(running, "kill")
        scene.broken(f"{len(running)} containers are killed")
        random.shuffle(running)
        scene.say(f"starting {', '.join(str(one.labels[SERVICE_LABEL]) for one in running)}")
        at_once(running, "start")
        started_at = time.monotonic()
        scene.wait_for_answers(START_S, since=started_at)
        scene.wait("Locust's page answers", lambda: status(stack), 120)
        scene.wait("the workers have joined", lambda: workers(stack) >= there, 120)
        scene.wait_for_alert("EngineRestarted", 60)
        scene.note_users()
    scene.expect(stack.shell("locust", "ls /reports") == kept, "reports are gone")
    expect_history(scene, before)
    expect_a_run(scene)
    scene.result.lost = "requests under way; reports and metrics are there"


def at_once(containers: list[Container], what: str) -> None:
    """Call `kill` or `start` on all containers at the same time."""
    threads = [threading.Thread(target=getattr(one, what)) for one in containers]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
