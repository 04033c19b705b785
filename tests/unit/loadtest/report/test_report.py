from __future__ import annotations

import csv
import io
import json
import re
from typing import TYPE_CHECKING, Any

import pytest
from rich.console import Console

from loadtest.client.request_record import Outcome, RequestRecord
from loadtest.input_error import InputError
from loadtest.locust_plugin.web_page import table
from loadtest.report.report_folder import RUN_SUMMARY, ReportFolder
from loadtest.report.run_page import render_page
from loadtest.report.run_summary import summarize
from loadtest.report.run_terminal import print_summary
from loadtest.results.csv_rows import read_rows, to_row
from loadtest.results.run_verdict import judge_run
from tests.rig.full_disk import full_disk
from tests.rig.loadtest_objects import plan, record, results

if TYPE_CHECKING:
    from pathlib import Path

    from loadtest.results.run_results import RunResults

SLO = ("--slo-ttft-ms", "200")
RECORDS = (*[record(schedule_delay=0.001)] * 120, record(Outcome.ERROR, detail='says "no", <b>twice</b>'))


def write(report: ReportFolder, summary: dict[str, Any], run: RunResults) -> bool:
    return report.write(RUN_SUMMARY, summary, lambda rows: render_page(summary, run, read_rows(rows)))


def written(folder: Path, *records: RequestRecord) -> dict[str, str]:
    run = results(*records, arguments=SLO)
    report = ReportFolder(folder)
    report.rows.add("local", [to_row(each, measured=True, good=True) for each in records])
    assert write(report, summarize(run, judge_run(run, None), None), run)
    return {path.name: path.read_text() for path in folder.iterdir()}


def test_row_is_written_at_once(tmp_path: Path) -> None:
    report = ReportFolder(tmp_path)
    report.rows.add("local", [to_row(RECORDS[0], measured=True, good=True)])
    assert len((tmp_path / "requests.csv.partial").read_text().splitlines()) == 2


def test_report_is_three_complete_files(tmp_path: Path) -> None:
    files = written(tmp_path / "new" / "folder", *RECORDS)
    assert set(files) == {"summary.json", "requests.csv", "report.html"}
    rows = list(csv.DictReader(io.StringIO(files["requests.csv"])))
    assert len(rows) == 121
    assert rows[0]["ttft_ms"] == "100.0"
    assert rows[-1]["outcome"] == "error"
    assert rows[-1]["detail"] == 'says "no", <b>twice</b>'


def test_summary_has_the_documented_figures(tmp_path: Path) -> None:
    summary = json.loads(written(tmp_path, *RECORDS)["summary.json"])
    assert summary["verdict"]["valid"] is True
    assert summary["requests"]["total"] == 121
    assert summary["requests"]["ok"] == 120
    for key in ("ttft_ms", "chunk_gap_ms", "tpot_ms", "e2e_ms", "schedule_delay_ms"):
        assert set(summary[key]) == {"count", "mean", "p50", "p90", "p95", "p99", "max"}
    assert summary["ttft_ms"]["p50"] == pytest.approx(100, rel=0.001)
    assert summary["throughput"]["requests_per_s"] == pytest.approx(121 / 0.5)
    assert summary["throughput"]["goodput_requests_per_s"] == pytest.approx(120 / 0.5)
    assert summary["client"]["timestamps"] == "kernel"
    assert summary["client"]["cpu_us_per_token"] == pytest.approx(1e6 / (120 * 21))


def test_pauses_are_in_every_report() -> None:
    run = results(*RECORDS)
    totals = run.measured.totals("chat")
    totals.pauses, totals.retry_after_pauses, totals.paused_s = 12, 5, 34.5
    summary = summarize(run, judge_run(run, None), None)
    assert summary["pauses"] == {"count": 12, "retry_after": 5, "user_s": 34.5}
    said = "users paused 12 times after failures (5 as Retry-After asked), 34.5 s in all, in which they were no load"
    assert said in render_page(summary, run, [])
    console = Console(width=200)
    with console.capture() as printed:
        print_summary(summary, console)
    assert said in " ".join(printed.get().split())


def test_p99_of_few_values_is_left_out(tmp_path: Path) -> None:
    summary = json.loads(written(tmp_path, *RECORDS[:50])["summary.json"])
    assert summary["ttft_ms"]["p99"] is None
    assert summary["ttft_ms"]["p95"] is not None


def test_page_starts_with_verdict_and_loads_nothing(tmp_path: Path) -> None:
    page = written(tmp_path, *RECORDS)["report.html"]
    body = page[page.index("<body>") :]
    assert body.index("Valid run, SLO met") < body.index("<h2>")
    assert not re.search(r"<(script|link|img|iframe)[^>]+(src|href)=", page)
    assert body.count('class="plotly-graph-div"') >= 8


def test_unwritable_folder_is_refused(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(InputError, match="--report-dir"):
        ReportFolder.check(tmp_path / "file" / "below")


def test_full_disk_is_noted_in_the_report(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    run = results(*RECORDS, arguments=SLO)
    report = ReportFolder(tmp_path)
    with full_disk(after=4096):
        report.rows.add("local", [to_row(each, measured=True, good=True) for each in RECORDS])
        run.notes += report.close_rows()
        summary = summarize(run, judge_run(run, None), None)
        assert not write(report, summary, run)
    assert summary["verdict"]["valid"]
    (note,) = summary["run"]["workload"]["notes"]
    assert note.startswith("requests.csv, and charts made of it, end before the run does")
    assert f"cannot write all of the report into {tmp_path}: File too large; make room" in caplog.messages[-1]
    assert {path.name for path in tmp_path.iterdir()} == {"requests.csv"}


def test_terminal_shows_an_invalid_run_first() -> None:
    run = results(*RECORDS)
    run.lose("local")
    output = io.StringIO()
    print_summary(summarize(run, judge_run(run, None), None), Console(file=output, width=120))
    lines = [line for line in output.getvalue().splitlines() if line.strip()]
    assert lines[0].startswith("INVALID RUN")
    assert "was lost" in lines[1]
    assert any(line.startswith("│ TTFT") for line in lines)


def test_late_cut_off_requests_are_reported(tmp_path: Path) -> None:
    text = "2 request(s) were cut off by the end of the run after their TTFT or E2E limit had passed"
    hung = [record(Outcome.CANCELLED, ttft=None, duration=5.0)] * 2
    files = written(tmp_path, *RECORDS, *hung, record(Outcome.CANCELLED, ttft=None, duration=0.001))
    summary = json.loads(files["summary.json"])
    assert summary["cut_off_late"] == summary["endpoints"]["chat"]["cut_off_late"] == 2
    assert text in files["report.html"]
    output = io.StringIO()
    print_summary(summary, Console(file=output, width=160))
    assert text in " ".join(output.getvalue().split())
    assert "cut off by the end" not in written(tmp_path / "none", *RECORDS)["report.html"]


def test_tab_has_a_row_per_endpoint_and_a_total() -> None:
    rows = table(results(record(), record(endpoint="completions"), record(Outcome.TIMEOUT)))
    assert [row["endpoint"] for row in rows] == ["chat", "completions", "all"]
    assert rows[2]["requests"] == 3
    assert rows[0]["outcomes"] == "timeout 1"
    assert str(rows[0]["ttft"]).startswith("100.")
    assert table(None) == []


def printed(run: RunResults, width: int = 160) -> str:
    output = io.StringIO()
    print_summary(summarize(run, judge_run(run, None), None), Console(file=output, width=width))
    return output.getvalue()


def test_frequent_failures_are_in_all_three_places(tmp_path: Path) -> None:
    texts = {"HTTP 413: body above 1 MB": 5, "no end within [5] s": 4, "closed <b>": 3, "rare": 1}
    failed = [record(Outcome.ERROR, detail=text) for text, count in texts.items() for _ in range(count)]
    files = written(tmp_path, *RECORDS[:3], *failed)
    shown = {text: count for text, count in texts.items() if count > 1}
    failures = json.loads(files["summary.json"])["failures"]
    assert {failure["text"]: failure["count"] for failure in failures} == shown
    assert {failure["outcome"] for failure in failures} == {"error"}
    lines = [line for line in printed(results(*failed)).splitlines() if line.startswith("Failures")]
    assert [line.split(maxsplit=1)[1] for line in lines] == [
        f"{count} x error: {text}" for text, count in shown.items()
    ]
    page = files["report.html"]
    for text in ("HTTP 413: body above 1 MB", "no end within [5] s", "closed &lt;b&gt;"):
        assert page.count(f"<td>{text}</td>") == 1
    assert "most frequent failures" not in written(tmp_path / "none", record())["report.html"]


def test_answer_token_is_shown_where_it_differs(tmp_path: Path) -> None:
    thinking = [record(ttft=0.1, ttfat=0.4, reasoning_tokens=15)] * 2
    files = written(tmp_path, *thinking)
    summary = json.loads(files["summary.json"])
    assert summary["ttfat_ms"]["p50"] == pytest.approx(400, rel=0.001)
    assert summary["tokens"]["reasoning"] == 30
    assert "Time to first answer token" in files["report.html"]
    assert "TTFT of answer" in printed(results(*thinking))
    assert "TTFT of answer" not in printed(results(*[record(ttft=0.1, ttfat=0.1)] * 2))
    (row, _) = csv.DictReader(io.StringIO(files["requests.csv"]))
    assert (row["ttfat_ms"], row["reasoning_tokens"]) == ("400.0", "15")


def test_unknown_tpot_is_noted(tmp_path: Path) -> None:
    hidden = [record(tpot=None), record(tpot=None, output_tokens=1, gaps=[]), record(tpot=None, ttft=None)]
    assert json.loads(written(tmp_path, *hidden)["summary.json"])["tpot_unknown"] == 1
    assert "1 request(s) ended ok without a TPOT" in " ".join(printed(results(*hidden)).split())
    assert "without a TPOT" not in printed(results(record()))


@pytest.mark.parametrize("name", ["llama3[awq]", "x[/y]", "[bold]", ":smile:", "a\\[b]"])
def test_names_are_printed_as_they_are(name: str) -> None:
    run = results(record(Outcome.ERROR, detail=f"The model `{name}` does not exist."))
    run.plan = plan(model=name)
    lines = printed(run).splitlines()
    assert sum(f"{name}: milliseconds of requests ok" in line for line in lines) == 1
    assert sum(f"error: The model `{name}` does not exist." in line for line in lines) == 1


def test_uncounted_tokens_are_not_shown(tmp_path: Path) -> None:
    uncounted = record(uncounted=True, output_tokens=0, tpot=None)
    files = written(tmp_path, uncounted, record())
    summary = json.loads(files["summary.json"])
    assert (summary["uncounted"], summary["requests"]["ok"]) == (1, 2)
    assert summary["throughput"]["output_tokens_per_s"] is summary["throughput"]["total_tokens_per_s"] is None
    text = " ".join(printed(results(uncounted, record())).split())
    assert "1 request(s) ended ok without token counts" in text
    assert "tokens/s not known" in text
    first, second = csv.DictReader(io.StringIO(files["requests.csv"]))
    assert (first["output_tokens"], second["output_tokens"] != "") == ("", True)
