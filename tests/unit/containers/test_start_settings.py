"""Start scripts: a value that the program would answer with its help, and a volume of somebody else, are one line."""

from __future__ import annotations

import os
import re
import subprocess
import tempfile
from itertools import takewhile
from pathlib import Path

import pytest

DOCKER = Path(__file__).parents[3] / "docker"


def check(service: str, *arguments: str, **env: str) -> tuple[int, str]:
    """Exit code and standard error of the script's checks."""
    done = subprocess.run(
        ["sh", str(DOCKER / service / "start.sh"), *arguments],
        env={"PATH": "/usr/bin:/bin", "CHECK_ONLY": "1", **env},
        capture_output=True,
        text=True,
        check=False,
    )
    return done.returncode, done.stderr


@pytest.mark.parametrize(
    ("flag", "good", "bad"),
    [
        ("time", ["30d", "12h", "1y", "1d12h", "90m", "0"], ["30", "30 d", "1.5d", "d", "", "12h1d", "9999y", "30D"]),
        ("size", ["5GB", "512MB", "1.5TB", "5GiB", "0"], ["5G", "5", "5 GB", "-5GB", "5gb", "", "lots"]),
    ],
)
def test_retention_is_checked_before_the_start(flag: str, good: list[str], bad: list[str]) -> None:
    def given(value: str) -> tuple[int, str]:
        return check("prometheus", f"--storage.tsdb.retention.{flag}={value}")

    assert [value for value in good if given(value) != (0, "")] == []
    for value in bad:
        code, said = given(value)
        assert code == 2
        assert said.startswith(f"headroom: PROMETHEUS_RETENTION_{flag.upper()}={value} is no ")
        assert said.count("\n") == 1


@pytest.mark.parametrize(
    ("service", "arguments", "env", "words"),
    [
        ("router", ["--policy=fair"], {}, "ROUTER_POLICY=fair"),
        ("router", ["--retry-max-retries=0"], {}, "ROUTER_ATTEMPTS=0"),
        ("edge", [], {"EDGE_DOMAIN": "a.b", "EDGE_MAX_BODY": "ten"}, "EDGE_MAX_BODY=ten"),
        ("edge", [], {"EDGE_DOMAIN": "a.b", "EDGE_USER": "me {"}, "EDGE_USER=me {"),
        ("alertmanager", [], {"ALERT_WEBHOOK_URL": "chat.example"}, "ALERT_WEBHOOK_URL"),
    ],
)
def test_wrong_value_is_one_line(service: str, arguments: list[str], env: dict[str, str], words: str) -> None:
    code, said = check(service, *arguments, **env)
    assert (code, words in said, said.count("\n")) == (2, True, 1)


def test_right_values_pass_every_script() -> None:
    given = {
        "router": (["--policy=round_robin", "--retry-max-retries=3", "--host=0.0.0.0"], {}),
        "edge": ([], {"EDGE_DOMAIN": "llm.example", "EDGE_PASSWORD": "p" * 12, "EDGE_MAX_BODY": "1.5 GiB"}),
        "alertmanager": (["--storage.path=/alertmanager"], {"ALERT_WEBHOOK_URL": "https://chat.example/hook"}),
        "prometheus": (["--storage.tsdb.retention.time=30d", "--storage.tsdb.retention.size=5GB"], {}),
        "grafana": ([], {"BIND_ADDRESS": "127.0.0.1"}),
    }
    for service, (arguments, env) in given.items():
        assert check(service, *arguments, **env) == (0, ""), service


@pytest.mark.parametrize("service", ["prometheus", "alertmanager", "grafana"])
def test_volume_of_another_user_is_one_line(tmp_path: Path, service: str) -> None:
    data = tmp_path / "data"
    data.mkdir(mode=0o555)
    flag = {"prometheus": "--storage.tsdb.path", "alertmanager": "--storage.path", "grafana": "--"}[service]
    env = {"ALERT_WEBHOOK_URL": "https://chat.example/hook", "GF_PATHS_DATA": str(data)}
    script = (DOCKER / service / "start.sh").read_text()
    # Whoever is root may write anywhere: as `nobody` then.
    command = ["sh", "-c", script, "sh", f"{flag}={data}"]
    for folder in takewhile(lambda folder: folder != Path(tempfile.gettempdir()), (tmp_path, *tmp_path.parents)):
        folder.chmod(0o755)
    nobody = ["setpriv", "--reuid=65534", "--regid=65534", "--clear-groups"] if os.getuid() == 0 else []
    done = subprocess.run(
        [*nobody, *command],
        env={"PATH": "/usr/bin:/bin", **env},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 2
    assert done.stderr.startswith(f"headroom: the volume {service}-data belongs to another user than ")
    assert re.search(rf"chown {service} -R \d+:\d+ {data}\n", done.stderr)
    assert done.stderr.count("\n") == 1
