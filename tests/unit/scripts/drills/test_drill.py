from __future__ import annotations

import io
import os
import subprocess
import sys
import time
from collections import Counter
from pathlib import Path
from types import SimpleNamespace

import pytest
import requests
from drills import drill
from drills.drill_report import markdown, table
from drills.engine_drills import Shelf
from drills.scene import Alerts, DrillError, DrillResult, Scene
from drills.stack import RunningStack, StackError
from drills.users import Asker, UserAnswer

ROOT = Path(__file__).parents[4]


def asker(*answers: tuple[float, float, str]) -> Asker:
    made = Asker.__new__(Asker)
    made.answers = [UserAnswer(*one) for one in answers]
    return made


def test_served_from_first_of_three_answers() -> None:
    user = asker((1, 2, "ok"), (3, 4, "ok"), (5, 6, "HTTP 500"), (7, 8, "ok"), (9, 10, "ok"), (11, 12, "ok"))
    assert user.answered_since(0, count=3) == 8
    assert user.answered_since(0) == 2
    assert user.answered_since(7.5, count=3) is None


def test_earlier_question_is_no_recovery() -> None:
    assert asker((1, 6, "ok")).answered_since(5) is None


def test_outcomes_count_from_the_break() -> None:
    user = asker((1, 2, "ok"), (3, 9, "connection refused"), (10, 11, "ok"))
    assert user.seen_since(5) == Counter({"connection refused": 1, "ok": 1})


class LocalShelf(Shelf):
    """A shelf on a local folder."""

    def __init__(self, volume: Path) -> None:
        self.volume = volume
        self.path = os.environ["PATH"]

    def _run(self, script: str) -> None:
        subprocess.run(["sh", "-c", script], cwd=self.volume, env={"PATH": self.path}, check=True)

    def deliver(self, name: str, weights: str) -> None:
        """Place a model like docker/model does."""
        folder = self.volume / ".store/modelscope" / name / "master"
        folder.mkdir(parents=True)
        (folder / "weights").write_text(weights)
        link = self.volume / name
        link.parent.mkdir(exist_ok=True)
        link.symlink_to(os.path.relpath(folder, link.parent))

    def weights(self) -> dict[str, str]:
        return {str(path.relative_to(self.volume)): path.read_text() for path in self.volume.glob("*/*/weights")}


@pytest.fixture
def shelf(tmp_path: Path) -> LocalShelf:
    (tmp_path / "volume").mkdir()
    made = LocalShelf(tmp_path / "volume")
    made.deliver("Qwen/a", "old a")
    made.deliver("Qwen/b", "old b")
    return made


def test_shelf_hides_and_restores_all(shelf: LocalShelf) -> None:
    shelf.put_aside()
    assert [path.name for path in shelf.volume.iterdir()] == [".drill"]
    shelf.put_back()
    assert shelf.weights() == {"Qwen/a/weights": "old a", "Qwen/b/weights": "old b"}
    assert sorted(path.name for path in shelf.volume.iterdir()) == [".store", "Qwen"]


def test_shelf_replaces_a_new_download(shelf: LocalShelf) -> None:
    shelf.put_aside()
    shelf.deliver("Qwen/a", "new a")
    assert shelf.weights() == {"Qwen/a/weights": "new a"}
    shelf.put_back()
    assert shelf.weights() == {"Qwen/a/weights": "old a", "Qwen/b/weights": "old b"}
    assert not (shelf.volume / ".drill").exists()


def test_failed_restore_deletes_nothing(shelf: LocalShelf, tmp_path: Path) -> None:
    shelf.put_aside()
    broken = tmp_path / "mv"
    broken.write_text("#!/bin/sh\nexit 1\n")
    broken.chmod(0o755)
    path, shelf.path = shelf.path, f"{tmp_path}:{shelf.path}"
    with pytest.raises(subprocess.CalledProcessError):
        shelf.put_back()
    shelf.path = path
    shelf.put_back()
    assert shelf.weights() == {"Qwen/a/weights": "old a", "Qwen/b/weights": "old b"}


RESULTS = [
    DrillResult(
        "a", user_saw="ok 3", alert="EngineDown", noticed_s=0.4, detected_s=61.2, recovered_s=90, lost="nothing"
    ),
    DrillResult("bb", verdict="FAILED", error="alert EngineDown: not within 60 s"),
    DrillResult("c", verdict="skipped", error="no Grafana", notes=["seen"]),
]


def test_table_has_rows_and_errors() -> None:
    lines = table(RESULTS).splitlines()
    assert lines[1].split() == ["a", "passed", "0", "s", "EngineDown", "61", "s", "90", "s", "nothing", "ok", "3"]
    assert "bb: FAILED: alert EngineDown: not within 60 s" in lines
    assert "c: seen" in lines
    assert lines[-1] == "1 passed, 1 failed, 1 skipped"


def test_markdown_has_the_same_rows() -> None:
    text = markdown(RESULTS)
    assert "| a | passed | 0 s | EngineDown | 61 s | 90 s | nothing | ok 3 |" in text
    assert "- bb: FAILED: alert EngineDown" in text


def test_failed_assertion_shows_last_value() -> None:
    scene = Scene(None, DrillResult("x"), lambda _: None)  # type: ignore[arg-type]  # no stack is asked
    scene.expect([1], "never")
    with pytest.raises(DrillError, match="two is two"):
        scene.expect([], "two is two")
    begun = time.monotonic()
    with pytest.raises(DrillError, match=r"a thing: not within 1 s \(last seen: 0\)"):
        scene.wait("a thing", lambda: 0, 1)
    assert time.monotonic() - begun < 3


class Alerting:
    """Prometheus with successive answers: values of EngineRestarted, or None for no answer."""

    def __init__(self, *looks: list[int] | None) -> None:
        self.looks = list(looks)

    def alerts(self) -> list[dict[str, object]]:
        values = self.looks.pop(0) if len(self.looks) > 1 else self.looks[0]
        if values is None:
            raise requests.ConnectionError
        return [{"labels": {"alertname": "EngineRestarted"}, "state": "firing", "value": str(one)} for one in values]


@pytest.mark.parametrize(
    ("looks", "counts"),
    [
        ([[], [1]], True),
        ([[1], [1]], False),
        ([[1], [2]], True),
        ([[2], [1], [2]], True),
        ([[1], [], [1]], True),
        ([[1], None, [1]], False),
    ],
    ids=["new", "old", "rises", "falls-and-rises", "again", "no-answer"],
)
def test_earlier_alert_counts_when_it_rises(
    looks: list[list[int] | None], *, counts: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("drills.scene.LOOK_S", 0.01)
    prometheus = Alerting(*looks)
    alerts = Alerts(prometheus)  # type: ignore[arg-type]  # the only method that it calls
    deadline = time.monotonic() + 10
    while len(prometheus.looks) > 1 or (counts and not alerts.fired):
        assert time.monotonic() < deadline, (prometheus.looks, alerts.fired)
        time.sleep(0.01)
    time.sleep(0.1)  # one more poll
    alerts.stop()
    assert ("EngineRestarted" in alerts.fired) == counts


def test_drill_waits_for_recovering_stack(monkeypatch: pytest.MonkeyPatch) -> None:
    told = ["starting", "starting", *["healthy"] * len(drill.NEEDS)]

    class ComingBack:
        project = "mine"

        def state(self, _service: str) -> dict[str, object]:
            return {"Status": "running", "Health": {"Status": told.pop(0)}}

    ran: list[Scene] = []
    monkeypatch.setitem(drill.DRILLS, "probe", drill.Drill(ran.append, "nothing"))
    assert drill.run("probe", ComingBack()).verdict == "passed"  # type: ignore[arg-type]
    assert len(ran) == 1


def test_key_from_environment_or_file(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    mount = {"Destination": "/run/secrets/vllm_api_key", "Source": "/dev/null"}
    attributes = {
        "Config": {"Env": ["VLLM_API_KEY=", "VLLM_API_KEY_FILE=/run/secrets/vllm_api_key"]},
        "Mounts": [{"Destination": "/models", "Source": "/"}, mount],
    }
    monkeypatch.delenv("VLLM_API_KEY", raising=False)
    monkeypatch.setattr(RunningStack, "container", lambda *_: SimpleNamespace(attrs=attributes))
    stack = RunningStack.__new__(RunningStack)
    assert stack.headers() == {}
    mount["Source"] = str(tmp_path / "key")
    with pytest.raises(StackError, match="No such file or directory: set VLLM_API_KEY"):
        stack.headers()
    (tmp_path / "key").write_text("from-file\n")
    assert stack.headers() == {"Authorization": "Bearer from-file"}
    monkeypatch.setenv("VLLM_API_KEY", "from-shell")
    assert stack.headers() == {"Authorization": "Bearer from-shell"}


def run(*arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "scripts/drill", *arguments], cwd=ROOT, capture_output=True, text=True, check=False
    )


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["no-such-drill"], "no drill is called no-such-drill"),
        (["all", "engine-killed"], "all stands alone"),
        ([], "DRILL"),
    ],
)
def test_wrong_command_line_is_one_line(arguments: list[str], said: str) -> None:
    done = run(*arguments)
    assert done.returncode == 2
    assert said in done.stderr.splitlines()[-1]


def test_list_shows_drills_and_costs() -> None:
    done = run("list")
    assert done.returncode == 0
    assert all(name in done.stdout for name in drill.DRILLS)
    assert done.stdout.count("costs:") == len(drill.DRILLS)
    assert all(one.what.endswith(".") for one in drill.DRILLS.values())


@pytest.mark.parametrize(
    ("typed", "agreed"), [("y\n", True), ("yes\n", True), ("n\n", False), ("\n", False), ("", False)]
)
def test_consent_needs_a_yes(typed: str, *, agreed: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "stdin", io.StringIO(typed))
    stack = type("Named", (), {"project": "mine"})()
    assert drill.agreed(stack, {"engine-killed": "much"}, yes=False) is agreed


def test_drills_are_documented() -> None:
    text = (ROOT / "docs" / "drills.md").read_text()
    assert [name for name in drill.DRILLS if f"`{name}`" not in text] == []
