"""Images that nobody supports any more, from a dated table."""

from __future__ import annotations

import datetime as dt
import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import compose_project
from doctor_checks.check_result import CheckResult, ok, warn
from doctor_checks.docker_checks import version_of

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

# Label of docker/airgap/build-images.sh: the version inside an image that stands in for another.
CARRIES = "headroom.carries"


@dataclass(frozen=True)
class Line:
    """Versions from `oldest` to before `newer` (None: any newer), supported until a day (None: until the next one)."""

    image: str
    oldest: tuple[int, ...]
    newer: tuple[int, ...] | None
    until: dt.date | None
    why: str


# As of 2026-11-30. A version that is in no line is older than all, or between two that are supported.
LINES = (
    Line("prom/prometheus", (3, 5), (3, 6), dt.date(2026, 7, 31), "long-term line (prometheus.io)"),
    Line("prom/prometheus", (3, 13), (3, 14), dt.date(2027, 7, 31), "long-term line (prometheus.io)"),
    Line("prom/prometheus", (3, 15), None, None, "newest (a minor version has six weeks)"),
    # The lines that CVE-2026-13720 was mended in, in October 2026; their ends are not known here.
    Line("grafana/grafana", (12, 4, 12), (13,), None, "CVE-2026-13720 before it"),
    Line("grafana/grafana", (13, 1, 7), (13, 2), None, "CVE-2026-13720 before it"),
    Line("grafana/grafana", (13, 2, 3), (13, 3), None, "CVE-2026-13720 before it"),
    # Nine months for a minor version (Grafana's support policy), from 2026-10-28.
    Line("grafana/grafana", (13, 3), (13, 4), dt.date(2027, 7, 28), "nine months"),
    Line("grafana/grafana", (13, 4), None, None, "newest"),
    Line("prom/alertmanager", (0, 34), None, None, "newest"),
    Line("prom/node-exporter", (1, 12), None, None, "newest"),
    Line("caddy", (2, 11, 7), None, None, "newest; flaws before it"),
    Line("nvcr.io/nvidia/k8s/dcgm-exporter", (4, 6), None, None, "newest"),
    *(
        Line(f"vllm/vllm-openai{kind}", (0, 32), None, None, "CVE-2026-115911 before it")
        for kind in ("", "-cpu", "-rocm", "-xpu")
    ),
)


def check_images(model: Mapping[str, Any], today: dt.date | None = None) -> Iterator[CheckResult]:
    """Check each service's image against `LINES`; `today` is the box's day where left out."""
    day = today or dt.datetime.now(tz=dt.timezone.utc).date()  # noqa: UP017  # Python 3.9
    images = sorted({str(service["image"]) for service in model["services"].values() if "image" in service})
    old = [found for image in images if (found := _support(image, day))]
    yield from old
    others = [f"{image} stands in with {carried}" for image in images if (carried := _carried(image))]
    if not old or others:
        yield ok("images", "; ".join(others) or "all supported", "")


def _support(image: str, day: dt.date) -> CheckResult | None:
    """Finding for an image out of support; None for a supported one, and for one that the table does not know."""
    name, _, tag = image.removeprefix("docker.io/").rpartition(":")
    lines = [line for line in LINES if line.image == name]
    version = version_of(tag) if re.match(r"v?\d", tag) else ()
    if not lines or not version:
        return None
    own = next((one for one in lines if version >= one.oldest and (one.newer is None or version < one.newer)), None)
    newest = ".".join(map(str, lines[-1].oldest))
    if own is None:
        return warn("images", f"{image} is out of support", f"{newest} or newer", "`git pull`; or your own image's tag")
    if own.until is not None and day > own.until:
        return warn("images", f"{image} is out of support since {own.until}", own.why, "`git pull` for a newer one")
    return None


def _carried(image: str) -> str:
    """Version that an image of docker/airgap carries, where it is another than the tag's; else empty."""
    try:
        found = compose_project.docker(
            "image", "inspect", "-f", f'{{{{index .Config.Labels "{CARRIES}"}}}}', image
        ).strip()
    except compose_project.DockerError:
        return ""
    return found if version_of(found) and version_of(found) != version_of(image.rpartition(":")[2]) else ""
