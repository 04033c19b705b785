"""Drills on the engine: killed, frozen, out of memory, a wrong flag, its model gone."""

from __future__ import annotations

import contextlib
import time
from typing import TYPE_CHECKING, Any

from drills import direct_http
from drills.users import Streams

if TYPE_CHECKING:
    from collections.abc import Iterator

    from docker.models.containers import Container
    from drills.scene import Scene
    from drills.stack import RunningStack

# Half a minute on a CPU with the small model, many minutes with a large one.
START_S = 1800
DEFAULT_STALL_S = 120
API_SERVER, ENGINE, WORKER = "vllm", "VLLM::Engine", "VLLM::Worker"
TOKENS = "sum(vllm:generation_tokens_total)"


def history(scene: Scene) -> tuple[float, float]:
    """A past time and Prometheus' value for it, to compare at the end."""

    def known() -> tuple[float, float] | None:
        at = time.time() - 5
        found = scene.stack.value(TOKENS, at)
        return None if found is None else (at, found)

    return scene.wait("numbers of the engine in Prometheus", known, 60)


def expect_history(scene: Scene, before: tuple[float, float]) -> None:
    """Check that Prometheus still has the same value for a past time."""
    at, value = before
    now = scene.wait("the past in Prometheus", lambda: scene.stack.query(TOKENS, at), 30)
    scene.expect(float(now[0]["value"][1]) == value, f"Prometheus had {value:.0f} tokens then and now says {now}")


def streams_under_way(scene: Scene, count: int = 4) -> Streams:
    """Start long answers, and wait until all have begun."""
    streams = Streams(scene.stack, count, tokens=1500)
    scene.wait(f"{count} streams begin", lambda: len(streams.begun) == count, 120)
    return streams


def engine_restarts(scene: Scene) -> int:
    """Docker's restart count, which restarts inside the container must not use up."""
    return int(scene.stack.state("vllm")["RestartCount"])


def expect_cut(scene: Scene, streams: Streams, within_s: float) -> None:
    """Check that every stream ended visibly truncated."""
    ends = streams.ended(within_s)
    scene.expect(set(ends) == {"truncated"}, f"streams under way ended otherwise than cut off: {dict(ends)}")
    scene.result.lost = f"{ends.total()} streams under way, seen as cut off"


def killed(scene: Scene) -> None:
    """Kill -9 of the API server and of the engine behind it, with streams under way."""
    before = history(scene)
    restarts = engine_restarts(scene)
    with scene.watched():
        streams = streams_under_way(scene)
        count = scene.stack.signal("vllm", "KILL", API_SERVER, ENGINE, WORKER)
        scene.broken(f"{count} processes of the engine killed")
        expect_cut(scene, streams, 30)
        scene.wait_for_answers(START_S)
        scene.wait_for_alert("EngineRestarted", 60)
        scene.note_users()
    scene.expect(engine_restarts(scene) == restarts, "Docker's restarts were used up")
    expect_history(scene, before)


def frozen(scene: Scene) -> None:
    """SIGSTOP of the engine behind the API server, with streams under way; /health goes on answering."""
    limit_s = float(scene.stack.env("vllm", "ENGINE_STALL_TIMEOUT_S") or DEFAULT_STALL_S)
    scene.expect(limit_s > 0, "ENGINE_STALL_TIMEOUT_S=0: nobody would end the frozen engine")
    before = history(scene)
    restarts = engine_restarts(scene)
    with scene.watched():
        streams = streams_under_way(scene)
        scene.stack.signal("vllm", "STOP", ENGINE)
        scene.broken("the engine is frozen")
        health = direct_http.get(f"{scene.stack.url('vllm', 8000)}/health", timeout=10)
        scene.expect(health.ok, f"/health says {health.status_code}: this freeze is no silent one")
        if limit_s >= DEFAULT_STALL_S:
            scene.wait_for_alert("EngineStalled", DEFAULT_STALL_S + 30)
        scene.wait(
            "the watchdog ends it",
            lambda: any("has made no step" in line for line in scene.stack.messages_since("vllm", scene.broken_unix)),
            limit_s + 60,
        )
        scene.result.notes.append(f"ended by the watchdog after {scene.since():.0f} s")
        scene.say(scene.result.notes[-1])
        expect_cut(scene, streams, 30)
        scene.wait_for_answers(START_S, since=time.monotonic())
        if limit_s < DEFAULT_STALL_S:
            scene.wait_for_alert("EngineRestarted", 60)
        scene.note_users()
    scene.expect(engine_restarts(scene) == restarts, "Docker's restarts were used up")
    expect_history(scene, before)


def out_of_memory(scene: Scene) -> None:
    """The container may take little more than it has, and something in it takes more."""
    stack = scene.stack
    container = stack.container("vllm")
    before = history(scene)
    stats: Any = container.stats(stream=False)
    used = int(stats["memory_stats"]["usage"])
    restarts = engine_restarts(scene)
    with scene.watched():
        with memory_limit(stack, container, used + 200 * 2**20) as limit:
            # It ends at once, so that the restarted engine finds its memory.
            hog = "held = bytearray(1 << 30); held[::4096] = bytes(len(held[::4096]))"
            scene.broken(f"limit of {limit / 2**30:.1f} GiB, and a process in the container takes 1 GiB")
            container.exec_run(["python3", "-c", hog])
        scene.wait(
            "the kernel ends a process, and the engine starts again",
            lambda: any("starts again" in line for line in stack.messages_since("vllm", scene.broken_unix)),
            60,
        )
        scene.wait_for_answers(START_S, since=time.monotonic())
        scene.wait_for_alert("EngineRestarted", 60)
        scene.note_users()
    scene.result.lost = "requests under way"
    scene.expect(engine_restarts(scene) == restarts, "Docker's restarts were used up")
    expect_history(scene, before)


@contextlib.contextmanager
def memory_limit(stack: RunningStack, container: Container, limit: int) -> Iterator[int]:
    """Set a memory limit in bytes, then restore the container's own; no limit is the host's total memory."""
    host = container.attrs["HostConfig"]
    memory, swap = host["Memory"] or int(stack.client.info()["MemTotal"]), host["MemorySwap"]
    container.update(mem_limit=limit, memswap_limit=limit)
    try:
        yield limit
    finally:
        # In two steps: cgroups v1 refuses a memory limit above that of memory and swap.
        container.update(mem_limit=memory, memswap_limit=max(memory, swap))
        if swap <= 0:
            container.update(mem_limit=memory, memswap_limit=-1)


def bad_flag(scene: Scene) -> None:
    """The engine starts with a flag that vLLM does not know."""

    def change(config: dict[str, Any]) -> None:
        config["Env"] = [line for line in config["Env"] if not line.startswith("VLLM_EXTRA_ARGS=")]
        config["Env"].append("VLLM_EXTRA_ARGS=--no-such-flag")

    before = history(scene)
    with scene.watched():
        with scene.stack.stand_in("vllm", change) as copy:
            scene.broken("an engine with --no-such-flag takes the engine's place")

            def given_up() -> bool:
                copy.reload()
                return copy.status == "exited" and copy.attrs["RestartCount"] == 5

            scene.wait("five tries, then an end", given_up, 300)
            message = [line for line in copy.logs().decode().splitlines() if line.startswith("headroom: ")][-1]
            scene.expect("VLLM_EXTRA_ARGS" in message and "--no-such-flag" in message, f"the last line is: {message}")
            scene.say(message)
            scene.wait_for_alert("EngineDown", 180)
        mended_at = time.monotonic()
        scene.wait_for_answers(START_S, since=mended_at)
        at = scene.broken_at + (scene.result.recovered_s or 0)
        scene.result.notes.append(f"served {at - mended_at:.0f} s after the flag was taken away")
        scene.note_users()
    scene.result.lost = "nothing"
    expect_history(scene, before)


class Shelf:
    """Moves the model's files aside on their own volume, and back."""

    def __init__(self, stack: RunningStack) -> None:
        """Take image, volume and user from the `model` service."""
        self._stack = stack
        model = stack.container("model")
        self._image = model.attrs["Config"]["Image"]
        self._volume = next(
            mount["Name"] for mount in model.attrs["Mounts"] if mount["Destination"] == "/models" and mount.get("Name")
        )
        self._user = model.attrs["Config"]["User"]

    def _run(self, script: str) -> None:
        self._stack.client.containers.run(
            self._image,
            ["-c", script],
            entrypoint=["sh"],
            user=self._user,
            volumes={self._volume: {"bind": "/models", "mode": "rw"}},
            working_dir="/models",
            network_mode="none",
            remove=True,
        )

    def put_aside(self) -> None:
        """Hide all links and files from the engine and the download."""
        self._run('set -e; mkdir .drill; for one in * .store; do [ ! -e "$one" ] || mv "$one" .drill/; done')

    def put_back(self) -> None:
        """Restore all models and revisions, replacing what was downloaded meanwhile."""
        self._run(
            'set -e; for one in .drill/* .drill/.store; do [ -e "$one" ] || continue; rm -rf "${one#.drill/}"; '
            'mv "$one" .; done; rmdir .drill'
        )


def model_emptied_running(scene: Scene) -> None:
    """The model's volume is emptied under a running engine, which has it in memory."""
    before = history(scene)
    shelf = Shelf(scene.stack)
    with scene.watched():
        try:
            shelf.put_aside()
            scene.broken("the volume is empty")
            scene.wait_for_answers(120, since=time.monotonic() + 5)
            scene.result.recovered_s = None
            seen = scene.asker.seen_since(scene.broken_at) if scene.asker else {}
            scene.expect(set(seen) == {"ok"}, f"users saw {dict(seen)}")
            scene.note_users()
        finally:
            shelf.put_back()
    scene.result.alert = "none: nobody is affected until the next start"
    scene.result.lost = "nothing"
    expect_history(scene, before)


def model_emptied_before_start(scene: Scene) -> None:
    """The model's volume is emptied, and the engine starts; then the download is asked for, as its log says."""
    stack = scene.stack
    before = history(scene)
    shelf = Shelf(stack)
    with scene.watched():
        engine = stack.container("vllm")
        engine.stop()
        try:
            shelf.put_aside()
            scene.broken("the volume is empty, the engine starts")
            engine.start()
            scene.wait("the engine gives up", lambda: stack.state("vllm")["Status"] == "exited", 120)
            message = stack.last_message("vllm")
            scene.expect("MODEL_ID" in message and "up -d model" in message, f"the last line is: {message}")
            scene.say(message)
            scene.wait_for_alert("EngineDown", 180)
            mended_at = time.monotonic()
            download = stack.container("model")
            download.start()
            code = download.wait(timeout=3600)["StatusCode"]
            scene.expect(code == 0, f"the download ended with {code}: {stack.logs('model', 5)}")
            # Without a download it logs "on the volume".
            message = stack.logs("model", 1).strip()
            scene.expect(message.endswith("READY"), f"nothing was downloaded: {message}")
            engine.start()
            scene.wait_for_answers(START_S, since=mended_at)
        finally:
            shelf.put_back()
            engine.start()
        at = scene.broken_at + (scene.result.recovered_s or 0)
        scene.result.notes.append(f"served {at - mended_at:.0f} s after the download was asked for")
        scene.note_users()
    scene.result.lost = "nothing"
    expect_history(scene, before)
