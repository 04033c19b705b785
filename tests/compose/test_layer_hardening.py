from __future__ import annotations

from typing import Any

import pytest

from tests.rig.compose_model import render

# Services that may not be as closed as the rest; compose.gpu.yaml says why.
ROOT_USER = {"gpu-exporter"}
EXTRA_CAPABILITIES = {"gpu-exporter": ["SYS_ADMIN"]}
# By image; compose.rocm.yaml says why.
EXTRA_SECURITY = {"vllm/vllm-openai-rocm": ["seccomp=unconfined"]}


def each(layer: dict[str, Any]) -> list[tuple[str, dict[str, Any]]]:
    services: dict[str, dict[str, Any]] = layer["services"]
    assert len(services) >= 6
    return list(services.items())


def test_no_container_is_root(layer: dict[str, Any]) -> None:
    for name, service in each(layer):
        uid = str(service.get("user", "")).split(":")[0]
        assert uid.isdecimal(), f"{name} does not say its user as a number"
        assert (uid != "0") != (name in ROOT_USER), name


def test_no_container_can_write_its_root(layer: dict[str, Any]) -> None:
    for name, service in each(layer):
        assert service.get("read_only") is True, name
        for mount in service.get("tmpfs", []):
            assert "size=" in mount, f"{name}: {mount} could take all memory"


def test_no_container_has_or_gains_rights(layer: dict[str, Any]) -> None:
    for name, service in each(layer):
        assert service.get("cap_drop") == ["ALL"], name
        assert service.get("cap_add", []) == EXTRA_CAPABILITIES.get(name, []), name
        extra = EXTRA_SECURITY.get(service["image"].partition(":")[0], [])
        assert service.get("security_opt") == ["no-new-privileges:true", *extra], name
        assert not service.get("privileged"), name


def test_no_container_reaches_the_docker_socket(layer: dict[str, Any]) -> None:
    for name, service in each(layer):
        for volume in service.get("volumes", []):
            assert "docker.sock" not in volume["source"], name


def test_host_files_are_mounted_read_only(layer: dict[str, Any]) -> None:
    for name, service in each(layer):
        for volume in service.get("volumes", []):
            assert volume["type"] == "volume" or volume.get("read_only"), f"{name}: {volume}"


def test_ports_are_on_loopback_only(layer: dict[str, Any]) -> None:
    # The edge layer is there for others, and then the only port at all.
    published = {name: service["ports"] for name, service in each(layer) if "ports" in service}
    ports = {name: [port["host_ip"] for port in published[name]] for name in published}
    if "edge_password" in layer["secrets"]:
        assert ports == {"edge": ["0.0.0.0"]}
    else:
        assert {address for addresses in ports.values() for address in addresses} == {"127.0.0.1"}


def test_edge_cannot_take_the_engines_cpu() -> None:
    assert float(render("edge")["services"]["edge"]["cpus"]) == 1
    assert float(render("edge", EDGE_CPUS="0.5")["services"]["edge"]["cpus"]) == 0.5


def test_open_address_needs_the_key() -> None:
    for services in (render("edge")["services"], render(BIND_ADDRESS="10.1.2.3")["services"]):
        for name in ("model", "vllm"):
            assert not services[name]["environment"]["BIND_ADDRESS"].startswith("127."), name
    # Behind the edge's password, Grafana shows itself to everybody; at an open address it asks.
    assert render("edge", BIND_ADDRESS="10.1.2.3")["services"]["grafana"]["environment"]["BIND_ADDRESS"] == "127.0.0.1"


def test_secrets_reach_only_their_containers(layer: dict[str, Any]) -> None:
    holders: dict[str, set[str]] = {}
    for name, service in each(layer):
        for secret in service.get("secrets", []):
            holders.setdefault(secret["source"], set()).add(name)
    assert holders["model_token"] == {"model"}
    assert holders["grafana_admin_password"] == {"grafana"}
    assert holders["vllm_api_key"] & {"model", "prometheus", "grafana", "node-exporter", "edge"} == set()
    assert holders.get("edge_password", {"edge"}) == {"edge"}


def test_logs_cannot_fill_the_disk(layer: dict[str, Any]) -> None:
    for name, service in each(layer):
        assert service["logging"]["options"].keys() == {"max-size", "max-file"}, name


def test_images_are_pinned(layer: dict[str, Any]) -> None:
    for name, service in each(layer):
        own = service["image"].startswith(layer["name"] + "-")
        tag = service["image"].rpartition(":")[2]
        assert own or any(digit in tag for digit in "0123456789"), f"{name}: {service['image']}"
        assert tag != "latest", name


def test_names_allow_a_second_copy(layer: dict[str, Any]) -> None:
    assert not [name for name, service in each(layer) if "container_name" in service]
    for volume in layer["volumes"].values():
        assert volume["name"].startswith(layer["name"] + "_")


@pytest.mark.parametrize("service", ["vllm", "locust", "prometheus", "hub", "grafana", "edge"])
def test_service_has_a_health_check(service: str, layer: dict[str, Any]) -> None:
    if service in layer["services"]:
        check = layer["services"][service]["healthcheck"]
        assert check["start_period"]
        assert check["start_interval"]
