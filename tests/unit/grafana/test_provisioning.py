"""Provisioning files agree with Compose and Prometheus; Grafana would only log a mismatch."""

from __future__ import annotations

from typing import Any

import yaml

from tests.rig import dashboards

# Fields in Grafana 12's documentation of provisioning; unknown ones are silently ignored.
DATASOURCE_FIELDS = {"name", "uid", "type", "access", "url", "isDefault", "editable", "jsonData"}
PROVIDER_FIELDS = {"name", "folder", "type", "allowUiUpdates", "options"}


def read(path: str) -> Any:
    return yaml.safe_load((dashboards.ROOT / path).read_text())


def test_data_source_is_the_stacks_prometheus() -> None:
    [source] = read("docker/grafana/provisioning/datasources/prometheus.yaml")["datasources"]
    assert source.keys() <= DATASOURCE_FIELDS
    assert (source["type"], source["access"], source["isDefault"]) == ("prometheus", "proxy", True)
    assert source["url"] == "http://prometheus:9090"
    assert "prometheus" in read("compose.yaml")["services"]
    assert source["jsonData"] == {
        "httpMethod": "POST",
        "timeInterval": read("docker/prometheus/prometheus.yml")["global"]["scrape_interval"],
    }


def test_dashboard_path_matches_compose() -> None:
    [provider] = read("docker/grafana/provisioning/dashboards/headroom.yaml")["providers"]
    assert provider.keys() <= PROVIDER_FIELDS
    assert (provider["type"], provider["allowUiUpdates"]) == ("file", False)
    service = read("compose.yaml")["services"]["grafana"]
    mounts = dict(volume.split(":")[1::-1] for volume in service["volumes"])
    path = provider["options"]["path"]
    assert mounts[path] == "./docker/grafana/dashboards"
    assert mounts["/etc/grafana/provisioning"] == "./docker/grafana/provisioning"
    home = service["environment"]["GF_DASHBOARDS_DEFAULT_HOME_DASHBOARD_PATH"]
    assert home == f"{path}/overview.json"
