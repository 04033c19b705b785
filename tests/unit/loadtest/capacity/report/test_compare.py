from __future__ import annotations

import copy
import json
from typing import TYPE_CHECKING, Any

import pytest

from loadtest.capacity.report.capacity_charts import curve_charts
from loadtest.capacity.report.compare import compare
from loadtest.input_error import InputError
from tests.unit.hostile.capacity_readers import GOOD

if TYPE_CHECKING:
    from pathlib import Path


def results(folder: Path, new: Any = GOOD) -> list[str]:
    paths = [folder / "old.json", folder / "new[/b].json"]
    for path, content in zip(paths, (GOOD, new), strict=True):
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(json.dumps(content))
    return [str(path) for path in paths]


def test_compare_shows_all_results(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    page = tmp_path / "page.html"
    assert compare([*results(tmp_path), "--report", str(page)]) == 0
    assert "+0.0%" in capsys.readouterr().out
    assert "Capacity compared" in page.read_text()


def test_many_results_share_one_slo_line() -> None:
    names = [f"box {number}" for number in range(10)]
    for chart in curve_charts(dict.fromkeys(names, GOOD)):
        drawn = [trace.name for trace in chart.data]
        lines = {sum(line == name or line.startswith(f"{name} ") for line in drawn) for name in names}
        assert len(lines) == 1
        assert lines.pop() > 0
        assert drawn.count("SLO") <= 1


@pytest.mark.parametrize(
    "missing",
    [
        ("stages",),
        ("stages", 0, "share"),
        ("capacity", "output_tokens_per_second"),
        ("capacity", "confidence"),
        ("verdict", "limit"),
        ("run", "slo", "percentile"),
        ("run", "workload", "dataset"),
    ],
)
def test_incomplete_result_is_refused(
    tmp_path: Path, missing: tuple[Any, ...], capsys: pytest.CaptureFixture[str]
) -> None:
    short = copy.deepcopy(GOOD)
    part: Any = short
    for key in missing[:-1]:
        part = part[key]
    del part[missing[-1]]
    page = tmp_path / "page.html"
    with pytest.raises(InputError, match=r"^RESULT: .*new.* says too little|^RESULT: was measured with"):
        compare([*results(tmp_path, short), "--report", str(page)])
    assert capsys.readouterr().out == ""
    assert not page.exists()


@pytest.mark.parametrize("report", ["none/page.html", "folder", "old.json/page.html"])
def test_unwritable_page_gives_one_line(tmp_path: Path, report: str) -> None:
    (tmp_path / "folder").mkdir()
    given = results(tmp_path)
    before = sorted(tmp_path.rglob("*"))
    with pytest.raises(InputError, match=r"^--report: cannot write .*; give another file$"):
        compare([*given, "--report", str(tmp_path / report)])
    assert sorted(tmp_path.rglob("*")) == before
