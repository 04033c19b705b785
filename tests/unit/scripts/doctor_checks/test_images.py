"""Images are held to the dated table of what is supported."""

from __future__ import annotations

import datetime as dt
import re

import compose_project
import pytest
import repository
from doctor_checks import docker_checks, image_checks
from doctor_checks.check_result import OK, WARN

DAY = dt.date(2026, 11, 30)


@pytest.fixture(autouse=True)
def no_images(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(compose_project, "docker", lambda *_: "")


def verdicts(*images: str, day: dt.date = DAY) -> list[str]:
    services = {str(number): {"image": image} for number, image in enumerate(images)}
    return [found.verdict for found in image_checks.check_images({"services": services}, day)]


@pytest.mark.parametrize(
    "image",
    [
        *("prom/prometheus:v3.5.3", "prom/prometheus:v2.53.3", "prom/prometheus:v3.14.0", "docker.io/caddy:2.11.4"),
        *("grafana/grafana:12.2.0", "grafana/grafana:13.2.2", "vllm/vllm-openai:v0.31.0", "prom/alertmanager:v0.33.1"),
        "nvcr.io/nvidia/k8s/dcgm-exporter:4.5.3-4.8.2-distroless",
    ],
)
def test_former_image_is_warned_of(image: str) -> None:
    assert verdicts(image) == [WARN]


@pytest.mark.parametrize(
    "image", ["grafana/grafana:13.2.3", "prom/prometheus:v3.15.1", "mine-edge", "my.registry/vllm:7", "caddy:latest"]
)
def test_newer_and_foreign_images_pass(image: str) -> None:
    assert verdicts(image) == [OK]


def test_line_ends_on_its_day() -> None:
    assert verdicts("prom/prometheus:v3.13.4", day=dt.date(2027, 7, 31)) == [OK]
    assert verdicts("prom/prometheus:v3.13.4", day=dt.date(2027, 8, 1)) == [WARN]


def test_pinned_images_are_all_supported() -> None:
    pinned = set()
    for file in (*repository.ROOT.glob("compose*.yaml"), repository.ROOT / "docker/edge/Dockerfile"):
        pinned |= set(re.findall(r"^(?:FROM| +image:) (\S+:v?\d\S*)$", file.read_text(), re.MULTILINE))
    assert {image.rpartition(":")[0] for image in pinned} >= {line.image for line in image_checks.LINES}
    assert verdicts(*pinned) == [OK]


def test_stand_in_says_what_it_carries(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(compose_project, "docker", lambda *words: "3.5.3\n" if "prometheus" in words[-1] else "2.11.7")
    services = {"a": {"image": "prom/prometheus:v3.13.4"}, "b": {"image": "caddy:2.11.7"}}
    [found] = image_checks.check_images({"services": services}, DAY)
    assert (found.verdict, found.found) == (OK, "prom/prometheus:v3.13.4 stands in with 3.5.3")


def test_compose_is_compared_to_the_patch() -> None:
    for text, enough in (("2.24.3", False), ("v2.24.4", True), ("2.26.1-4", True), ("5.5.0", True), ("2.9.1", False)):
        assert (docker_checks.version_of(text) >= docker_checks.MIN_COMPOSE) is enough, text
