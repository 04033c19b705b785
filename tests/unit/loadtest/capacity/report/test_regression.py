from __future__ import annotations

import json
import math
from typing import TYPE_CHECKING, Any

import pytest

from loadtest.capacity.report.regression import change, check_same, differences, gate, read_result
from loadtest.input_error import InputError
from tests.rig.capacity_objects import result

if TYPE_CHECKING:
    from pathlib import Path


@pytest.mark.parametrize(
    ("old", "new", "passes"),
    [
        ((9.8, 10.0, 10.2), (9.8, 10.0, 10.2), True),
        ((9.8, 10.0, 10.2), (9.2, 9.4, 9.6), True),  # 6 % less, but the intervals allow 5 %
        ((9.8, 10.0, 10.2), (8.4, 8.7, 8.9), False),  # steps take 15 % longer
        ((9.8, 10.0, 10.2), (5.0, 8.0, 12.0), True),  # too noisy to fail
        ((9.8, 10.0, 10.2), (8.0, None, None), True),  # a floor may be anything above
        ((9.8, None, None), (7.8, 8.0, 8.2), False),  # less than a floor
        ((9.8, 10.0, 10.2), (None, None, None), False),
        ((None, None, None), (9.8, 10.0, 10.2), True),
    ],
)
def test_only_a_proven_drop_fails(old: Any, new: Any, passes: bool) -> None:
    passed, lines = gate(result(*old), result(*new), 0.05)
    assert passed is passes
    assert lines[0].startswith("Gate passed" if passes else "Gate FAILED")


def test_interval_errors_add_in_squares() -> None:
    changed = change(result(9.0, 10.0, 11.0), result(9.0, 10.0, 11.0))
    assert changed.mid == 1
    assert math.log(changed.high) == pytest.approx(math.hypot(math.log(10 / 9), math.log(11 / 10)))
    assert changed.low == pytest.approx(1 / changed.high)


def test_wide_interval_gives_a_note() -> None:
    _, lines = gate(result(9.8, 10.0, 10.2), result(5.0, 8.0, 12.0), 0.05)
    assert "too wide to rule a drop out" in lines[1]


def test_other_workload_is_refused() -> None:
    with pytest.raises(InputError, match=r"workload prompt_tokens = 64, this with 128"):
        check_same(result(9, 10, 11), result(9, 10, 11, workload={"prompt_tokens": "128"}), "--baseline")


def test_seed_and_date_are_not_compared() -> None:
    old, new = result(9, 10, 11, started=1.0, engine={"version": "1"}), result(9, 10, 11, started=2.0, seed=5)
    assert list(differences(old["run"], new["run"])) == [("engine", {"version": "1"}, None)]


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (None, "cannot read"),
        ("{}", "is no capacity.json"),
        ("[", "is no capacity.json"),
        (json.dumps(result(10, -1, 11)), "is no capacity.json"),
        (json.dumps(result(10, 9, 11)), "is no capacity.json"),
    ],
)
def test_bad_baseline_gives_one_line(tmp_path: Path, content: str | None, words: str) -> None:
    if content is not None:
        (tmp_path / "capacity.json").write_text(content)
    with pytest.raises(InputError, match=words):
        read_result(tmp_path, "--baseline")


def test_invalid_baseline_is_refused(tmp_path: Path) -> None:
    invalid = result(9, 10, 11)
    invalid["verdict"]["valid"] = False
    (tmp_path / "capacity.json").write_text(json.dumps(invalid))
    with pytest.raises(InputError, match="holds no valid capacity"):
        read_result(tmp_path / "capacity.json", "--baseline")
