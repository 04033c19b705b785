"""A linter for Compose security (compose-lint: OWASP's cheat sheet and the CIS benchmark) over every rendered layer.

It finds nothing but what docs/security.md explains.
"""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.rig.compose_model import LAYERS, ROOT, render

# Rule: services, or None for all that have no image of their own kind; docs/security.md says why each stays.
EXPLAINED: dict[str, set[str] | None] = {
    "CL-0001": {"node-exporter"},
    "CL-0004": None,
    "CL-0005": {"edge"},
    "CL-0009": {"vllm", "generate", "throughput"},
    "CL-0013": {"vllm", "generate", "throughput"},
    "CL-0018": {"gpu-exporter"},
    "CL-0019": None,
    "CL-0020": {"locust", "locust-worker", "capacity"},
    "CL-0022": {"vllm", "generate", "throughput"},
    "CL-0024": {"gpu-exporter"},
    "CL-0026": None,
}


def findings(model: dict[str, Any], folder: Path) -> list[dict[str, Any]]:
    """Return the linter's findings in a rendered model."""
    file = folder / "compose.yaml"
    # Compose writes JSON; YAML is what the linter is made for. `x-` blocks are no services.
    file.write_text(yaml.safe_dump({key: value for key, value in model.items() if not key.startswith("x-")}))
    done = subprocess.run(
        [str(Path(sys.executable).parent / "compose-lint"), "check", "--format", "json", str(file)],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.stdout, done.stderr
    found: list[dict[str, Any]] = json.loads(done.stdout)["findings"]
    return found


@pytest.mark.parametrize("layer", LAYERS)
def test_linter_finds_only_the_explained(layer: str, tmp_path: Path) -> None:
    unexplained = []
    for finding in findings(render(*LAYERS[layer]), tmp_path):
        services = EXPLAINED.get(finding["rule_id"], set())
        if services is not None and finding["service"] not in services:
            unexplained.append(f"{finding['rule_id']} {finding['service']}: {finding['message']}")
    assert unexplained == []


def test_linter_finds_a_mistake(tmp_path: Path) -> None:
    model = render()
    vllm = model["services"]["vllm"]
    del vllm["cap_drop"], vllm["security_opt"]
    vllm["ports"][0]["host_ip"] = "0.0.0.0"
    found = {finding["rule_id"] for finding in findings(model, tmp_path) if finding["service"] == "vllm"}
    assert {"CL-0003", "CL-0006"} <= found


def test_every_exception_is_explained() -> None:
    text = (ROOT / "docs" / "security.md").read_text()
    assert [rule for rule in EXPLAINED if rule not in text] == []
