"""A search in the running stack: started by the job, shown by Prometheus and the page, kept over a restart."""

from __future__ import annotations

import json
import subprocess
import threading
from typing import TYPE_CHECKING, Any

import pytest

from tests.rig.running_stack import http, wait_for

if TYPE_CHECKING:
    from tests.rig.running_stack import Stack

# The fixture runs a search, and starts the stack where it is the first.
pytestmark = pytest.mark.timeout(900)

# So slow that any box meets it: the floor at the highest rate is the answer, after two short stages.
SEARCH = (
    *("--endpoint", "chat", "--prompt-tokens", "64", "--output-tokens", "8", "--budget", "90s"),
    *("--start-rate", "1", "--max-rate", "2", "--slo-ttft-ms", "20000", "--slo-tpot-ms", "5000"),
)


def page(stack: Stack) -> list[dict[str, Any]]:
    """Return the rows of the tab Capacity."""
    report = json.loads(http(stack.url("LOCUST_PORT") + "/stats/requests"))
    tab = next(table for table in report["extended_stats"] if table["key"] == "capacity")
    rows: list[dict[str, Any]] = tab["data"]
    return rows


def state(stack: Stack) -> str:
    """Return Locust's state."""
    result: str = json.loads(http(stack.url("LOCUST_PORT") + "/stats/requests"))["state"]
    return result


@pytest.fixture(scope="module")
def searched(stack: Stack) -> dict[str, Any]:
    """Observations while a search ran, and its result."""
    done: list[subprocess.CompletedProcess[str]] = []
    job = threading.Thread(
        target=lambda: done.append(stack.compose("run", "--rm", "-T", "capacity", *SEARCH, check=False))
    )
    job.start()
    seen: dict[str, Any] = {}
    wait_for("a stage on the page", lambda: page(stack), timeout_s=120)
    wait_for(
        "the search in Prometheus", lambda: stack.value("max(headroom_capacity_search_running)") == 1, timeout_s=60
    )
    seen["rows"] = page(stack)
    wait_for(
        "a stage's rate in Prometheus",
        lambda: stack.value("max(loadtest_target_requests_per_second)") in {1, 2},
        timeout_s=60,
    )
    job.join()
    seen["run"] = done[0]
    return seen


def test_job_prints_progress_and_result(searched: dict[str, Any]) -> None:
    run = searched["run"]
    assert run.returncode == 0, run.stdout + run.stderr
    assert "stage 0 (probe) at 1.00 requests/s: 100.0% of" in run.stdout
    assert "Capacity: at least 2.00 requests/s (the highest rate that may be tried)" in run.stdout


def test_page_shows_the_running_search(searched: dict[str, Any]) -> None:
    assert searched["rows"][-1]["stage"] == "0 probe"


def test_report_names_model_and_engine(stack: Stack, searched: dict[str, Any]) -> None:
    run_id = searched["run"].stdout.split("Report: ")[1].split("/")[0]
    result = json.loads(stack.compose("exec", "locust", "cat", f"/reports/{run_id}/capacity.json").stdout)
    assert result["verdict"] == {"valid": True, "reasons": [], "limit": None}
    assert len(result["run"]["model"]["manifest_sha256"]) == 64
    assert result["run"]["engine"]["version"]
    assert result["run"]["engine"]["settings"]["MAX_MODEL_LEN"] == "2048"
    assert all(stage["engine"]["steps_per_s"] > 0 for stage in result["stages"])
    for name in ("report.html", "requests.csv"):
        stack.compose("exec", "locust", "test", "-s", f"/reports/{run_id}/{name}")


def test_capacity_outlives_a_restart(stack: Stack, searched: dict[str, Any]) -> None:
    assert searched
    stack.compose("restart", "locust")
    wait_for(
        "the capacity after a restart",
        lambda: stack.value('max(headroom_capacity_requests_per_second{bound="mid"})') == 2,
        timeout_s=90,
    )
    wait_for("load over capacity", lambda: stack.value("max(model:capacity_load:ratio_rate2m)") >= 0, timeout_s=60)
    assert stack.query('model:capacity_invalid:reason{reason=~"settings|engine|model"}') == []
    # As it was found: the worker is back with the master.
    wait_for(
        "the worker again",
        lambda: len(json.loads(http(stack.url("LOCUST_PORT") + "/stats/requests"))["workers"]) == 1,
        timeout_s=180,
    )


def test_ctrl_c_ends_the_search_in_locust(stack: Stack, searched: dict[str, Any]) -> None:
    assert searched
    done: list[subprocess.CompletedProcess[str]] = []
    name = f"{stack.project}-interrupted"
    run = ("run", "--rm", "-T", "--name", name, "capacity", *SEARCH)
    job = threading.Thread(target=lambda: done.append(stack.compose(*run, check=False)))
    job.start()
    wait_for("a stage on the page", lambda: page(stack)[-1:] and state(stack) == "running", timeout_s=120)
    subprocess.run(["docker", "kill", "--signal", "INT", name], check=True, capture_output=True)
    job.join()
    assert done[0].returncode == 130, done[0].stdout + done[0].stderr
    wait_for("Locust stops", lambda: state(stack) == "stopped", timeout_s=60)
    assert stack.value('max(headroom_capacity_requests_per_second{bound="mid"})') == 2
