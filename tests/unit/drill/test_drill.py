from __future__ import annotations

import io
import subprocess
import sys
import time
from collections import Counter
from pathlib import Path

import pytest
from jobs.drill import main as program
from jobs.drill.report import markdown, table
from jobs.drill.sampling import Samples, Series, slope
from jobs.drill.scene import DrillError, Result, Scene
from jobs.drill.users import Answer, Asker

ROOT = Path(__file__).parents[3]


def asker(*answers: tuple[float, float, str]) -> Asker:
    made = Asker.__new__(Asker)
    made.answers = [Answer(*one) for one in answers]
    return made


def test_users_count_as_served_from_the_first_of_three_good_answers_in_a_row() -> None:
    user = asker((1, 2, "ok"), (3, 4, "ok"), (5, 6, "HTTP 500"), (7, 8, "ok"), (9, 10, "ok"), (11, 12, "ok"))
    assert user.answered_since(0, count=3) == 8
    assert user.answered_since(0) == 2
    assert user.answered_since(7.5, count=3) is None


def test_an_answer_to_a_question_from_before_the_break_is_no_recovery() -> None:
    assert asker((1, 6, "ok")).answered_since(5) is None


def test_what_users_saw_is_counted_from_the_break() -> None:
    user = asker((1, 2, "ok"), (3, 9, "connection refused"), (10, 11, "ok"))
    assert user.seen_since(5) == Counter({"connection refused": 1, "ok": 1})


def test_a_slope_is_that_of_the_line_through_the_points() -> None:
    line = Series()
    for second in range(100):
        line.add(1000.0 + second, 7 + 0.5 * second + (1 if second % 2 else -1))
    assert slope([line]) == pytest.approx(0.5, abs=0.01)
    assert line.after(50).at[0] == 1050
    assert slope([]) == slope([Series()]) == 0


def test_a_restart_is_no_shrinking_and_a_start_no_growth() -> None:
    series = Series()
    for life, pid in enumerate((1, 2)):
        for second in range(100):
            start = 50 * second if second < 20 else 1000  # grows while it starts, then stands still
            series.add(1000.0 * life + second, start - 400 * life, frozenset({pid}))
    assert len(series.lives()) == 2
    assert slope(series.lives(skip_s=20)) == 0
    assert slope([series]) < 0


def test_growth_leaves_the_warm_up_out() -> None:
    samples = Samples.__new__(Samples)
    nobody: frozenset[int] = frozenset()
    samples.series = {("vllm", "rss"): Series([0, 60, 120, 180], [0, 1000, 1000, 1000], [nobody] * 4)}
    assert samples.growth_per_minute("vllm", "rss") > 100
    assert samples.growth_per_minute("vllm", "rss", skip_s=60) == 0
    assert samples.first_and_last("vllm", "rss", skip_s=60) == (1000, 1000)


RESULTS = [
    Result("a", user_saw="ok 3", alert="EngineDown", noticed_s=0.4, detected_s=61.2, recovered_s=90, lost="nothing"),
    Result("bb", verdict="FAILED", error="alert EngineDown: not within 60 s"),
    Result("c", verdict="skipped", error="no Grafana", notes=["seen"]),
]


def test_the_table_has_a_row_each_and_says_why_one_failed() -> None:
    lines = table(RESULTS).splitlines()
    assert lines[1].split() == ["a", "passed", "0", "s", "EngineDown", "61", "s", "90", "s", "nothing", "ok", "3"]
    assert "bb: FAILED: alert EngineDown: not within 60 s" in lines
    assert "c: seen" in lines
    assert lines[-1] == "1 passed, 1 failed, 1 skipped"


def test_the_document_has_the_same_rows() -> None:
    text = markdown(RESULTS)
    assert "| a | passed | 0 s | EngineDown | 61 s | 90 s | nothing | ok 3 |" in text
    assert "- bb: FAILED: alert EngineDown" in text


def test_an_assertion_that_does_not_hold_says_what_was_seen_instead() -> None:
    scene = Scene(None, Result("x"), lambda _: None)  # type: ignore[arg-type]  # no stack is asked
    scene.expect([1], "never")
    with pytest.raises(DrillError, match="two is two"):
        scene.expect([], "two is two")
    begun = time.monotonic()
    with pytest.raises(DrillError, match=r"a thing: not within 1 s \(last seen: 0\)"):
        scene.wait("a thing", lambda: 0, 1)
    assert time.monotonic() - begun < 3


def test_a_drill_waits_for_a_stack_that_is_just_coming_back(monkeypatch: pytest.MonkeyPatch) -> None:
    told = ["starting", "starting", *["healthy"] * len(program.NEEDS)]

    class ComingBack:
        project = "mine"

        def state(self, _service: str) -> dict[str, object]:
            return {"Status": "running", "Health": {"Status": told.pop(0)}}

    ran: list[Scene] = []
    monkeypatch.setitem(program.DRILLS, "probe", program.Drill(ran.append, "nothing"))
    assert program.run("probe", ComingBack()).verdict == "passed"  # type: ignore[arg-type]
    assert len(ran) == 1


def run(*arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "scripts/drill", *arguments], cwd=ROOT, capture_output=True, text=True, check=False
    )


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["no-such-drill"], "no drill is called no-such-drill"),
        (["all", "engine-killed"], "all stands alone"),
        (["soak", "--minutes", "0"], "--minutes 0: give 1 to 1440"),
        ([], "DRILL"),
    ],
)
def test_a_wrong_command_line_is_refused_in_one_line(arguments: list[str], said: str) -> None:
    done = run(*arguments)
    assert done.returncode == 2
    assert said in done.stderr.splitlines()[-1]


def test_the_list_says_what_each_drill_does_and_costs() -> None:
    done = run("list")
    assert done.returncode == 0
    assert all(name in done.stdout for name in program.DRILLS)
    assert done.stdout.count("costs:") == len(program.DRILLS)
    assert all(drill.what.endswith(".") for drill in program.DRILLS.values())


@pytest.mark.parametrize(
    ("typed", "agreed"), [("y\n", True), ("yes\n", True), ("n\n", False), ("\n", False), ("", False)]
)
def test_only_a_yes_is_a_yes(typed: str, *, agreed: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "stdin", io.StringIO(typed))
    stack = type("Named", (), {"project": "mine"})()
    assert program.agreed(stack, {"engine-killed": "much"}, yes=False) is agreed


def test_every_drill_is_in_the_docs() -> None:
    text = (ROOT / "docs" / "drills.md").read_text()
    assert [name for name in program.DRILLS if f"`{name}`" not in text] == []
