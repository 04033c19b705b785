"""The rules and the configuration, as a container sees them."""

from __future__ import annotations

import pytest

from tests.rig.promtool import START, in_prometheus


def test_configuration_is_valid() -> None:
    done = in_prometheus(f"{START} && promtool check config /etc/prometheus/prometheus.yml")
    assert done.returncode == 0, done.stdout + done.stderr
    assert "5 rule files found" in done.stdout


@pytest.mark.parametrize("tests", ["alerts", "headroom", "recording", "router", "slo"])
def test_rules_pass_their_tests(tests: str) -> None:
    slo = {"SLO_TTFT_MS": "1000", "SLO_TPOT_MS": "42.5", "SLO_PERCENTILE": "99"}
    done = in_prometheus(f"{START} && promtool test rules /repo/tests/rules/{tests}.yaml", **slo)
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.parametrize(
    ("setting", "value"),
    [
        ("SLO_TTFT_MS", "5s"),
        ("SLO_TTFT_MS", "-1"),
        ("SLO_TPOT_MS", "1.2.3"),
        ("SLO_TPOT_MS", "0"),
        ("SLO_PERCENTILE", "p95"),
        ("SLO_PERCENTILE", "100"),
        ("SLO_PERCENTILE", "5"),
    ],
)
def test_bad_slo_is_named_in_one_line(setting: str, value: str) -> None:
    done = in_prometheus(START, **{setting: value})
    assert done.returncode == 2
    [line] = done.stderr.splitlines()
    assert line.startswith(f"headroom: {setting}={value} ")
