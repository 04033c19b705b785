"""Drills on the monitoring: Prometheus killed, its disk full, Grafana killed."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any

from drills import direct_http
from drills.engine_drills import TOKENS, expect_history, history
from drills.load_run import LoadTestRun, reasons
from drills.scene import Skip
from drills.stack import shell

if TYPE_CHECKING:
    from docker.models.containers import Container
    from drills.scene import Scene

SMALL_DISK = "32m"
RUN_S = 60


def newest(scene: Scene) -> float:
    """Unix time of Prometheus' newest sample of the engine; 0 for none in the last five minutes."""
    found = scene.stack.query(f"max(timestamp({TOKENS.removeprefix('sum(').removesuffix(')')}))")
    return float(found[0]["value"][1]) if found else 0.0


def prometheus_killed(scene: Scene) -> None:
    """Kill -9 of Prometheus while a load test runs."""
    before = history(scene)
    run = LoadTestRun(scene.stack, run_time=f"{RUN_S}s")
    run.wait_until_busy()
    last = newest(scene)
    scene.stack.signal("prometheus", "KILL", "prometheus")
    scene.broken("Prometheus is killed")
    first = scene.wait("new numbers in Prometheus", lambda: at if (at := newest(scene)) > last else None, 120)
    scene.result.recovered_s = scene.since()
    scene.result.user_saw = f"a gap of {first - last:.0f} s in the graphs"
    scene.result.alert = "none: it is what alerts"
    scene.say(scene.result.user_saw)
    scene.expect(first - last < 60, scene.result.user_saw)
    expect_history(scene, before)
    summary = run.summary(RUN_S + 120)
    scene.expect(not reasons(summary), f"the load test's report: {reasons(summary)}")
    scene.expect(summary["requests"]["ok"] >= 16, f"the load test's report: {summary['requests']}")
    scene.result.lost = f"nothing; the load test's report has all {summary['requests']['ok']} requests"


def prometheus_disk_full(scene: Scene) -> None:
    """Prometheus on a disk of 32 MB that something else fills, and then empties again."""

    def change(config: dict[str, Any]) -> None:
        user = config["User"].split(":")[0]
        host = config["HostConfig"]
        host["Binds"] = [one for one in host.get("Binds") or [] if one.split(":")[1] != "/prometheus"]
        host["Mounts"] = [one for one in host.get("Mounts") or [] if one["Target"] != "/prometheus"]
        config["Volumes"] = {path: one for path, one in (config.get("Volumes") or {}).items() if path != "/prometheus"}
        host["Tmpfs"] = {**(host.get("Tmpfs") or {}), "/prometheus": f"size={SMALL_DISK},uid={user},mode=0755"}

    before = history(scene)
    with scene.stack.stand_in("prometheus", change) as copy:
        scene.wait("numbers in the Prometheus with the small disk", lambda: newest(scene) > 0, 120)
        shell(copy, "cd /prometheus; for size in 64k 1k; do dd if=/dev/zero bs=$size 2>/dev/null >>filler; done; true")
        scene.broken("its disk is full")
        stuck = newest(scene)
        time.sleep(20)  # four scrapes, of which none may arrive
        scene.result.user_saw = "graphs stand still; asking still works" if newest(scene) == stuck else "nothing"
        scene.say(scene.result.user_saw)
        _expect_disk_full_logged(scene, copy)
        alerts = sorted({alert["labels"]["alertname"] for alert in scene.stack.alerts() if alert["state"] == "firing"})
        scene.result.alert = ", ".join(alerts) or "none: it is what alerts; DiskLow (profile host) comes before"
        shell(copy, "rm /prometheus/filler")
        freed_at = time.monotonic()
        scene.wait("new numbers in Prometheus", lambda: newest(scene) > stuck, 120)
        scene.result.recovered_s = scene.since()
        scene.result.notes.append(f"{time.monotonic() - freed_at:.0f} s after the disk has room again, by itself")
        scene.expect(copy.attrs["RestartCount"] == 0, "it restarted")
    expect_history(scene, before)
    scene.result.lost = "the time of the full disk; nothing from before"


def _expect_disk_full_logged(scene: Scene, copy: Container) -> None:
    full = [line for line in copy.logs().decode("utf-8", "replace").splitlines() if "no space left on device" in line]
    scene.expect(full, "its log does not say that the disk is full")


def grafana_killed(scene: Scene) -> None:
    """Kill -9 of Grafana."""
    if not scene.stack.has("grafana"):
        raise Skip("this stack has no Grafana")
    url = f"{scene.stack.url('grafana', 3000)}/api/health"
    scene.stack.signal("grafana", "KILL", "grafana")
    scene.broken("Grafana is killed")
    scene.result.user_saw = "the dashboards are gone"
    scene.wait("Grafana answers", lambda: direct_http.get(url, timeout=5).ok, 180)
    scene.result.recovered_s = scene.since()
    found = direct_http.get(f"{scene.stack.url('grafana', 3000)}/api/search?type=dash-db", timeout=10).json()
    scene.expect(found, "Grafana has no dashboards any more")
    scene.result.alert = "none: Prometheus goes on"
    scene.result.lost = f"nothing; {len(found)} dashboards are there"
