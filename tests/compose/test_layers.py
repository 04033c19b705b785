"""Changes of the layers, as Compose renders them.

The GPU layer cannot run without a card: its form is compared with what vLLM's Docker page and the NVIDIA Container
Toolkit's Compose page demand.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.rig.compose_model import LAYERS, ROOT, render

# Running streams come through these.
FRONT = {"edge", "router"}


def seconds(duration: str) -> int:
    """What Compose renders as 1m30s."""
    return sum(int(count) * {"m": 60, "s": 1}[unit] for count, unit in re.findall(r"(\d+)([ms])", duration))


def test_base_needs_no_settings_and_no_gpu() -> None:
    engine = render()["services"]["vllm"]
    assert engine["environment"]["ENGINE_DEVICE"] == "cpu"
    assert engine["environment"]["MODEL_ID"] == "Qwen/Qwen2-0.5B-Instruct"
    assert "devices" not in engine.get("deploy", {}).get("resources", {}).get("reservations", {})


def test_engine_reads_a_complete_model() -> None:
    services = render()["services"]
    assert services["vllm"]["depends_on"]["model"]["condition"] == "service_completed_successfully"
    models = next(volume for volume in services["vllm"]["volumes"] if volume["target"] == "/models")
    assert models["read_only"] is True
    assert services["vllm"]["environment"]["HF_HUB_OFFLINE"] == "1"


def test_wrong_flag_restarts_five_times() -> None:
    assert render()["services"]["vllm"]["restart"] == "on-failure:5"


def test_gpu_layer_reserves_the_cards_for_the_engine() -> None:
    engine = render("gpu")["services"]["vllm"]
    assert engine["image"] == "vllm/vllm-openai:v0.32.0"
    assert engine["environment"]["ENGINE_DEVICE"] == "gpu"
    [device] = engine["deploy"]["resources"]["reservations"]["devices"]
    assert device["driver"] == "nvidia"
    assert device["capabilities"] == ["gpu"]
    assert device["count"] == -1  # all


def test_gpu_layer_gives_shared_memory() -> None:
    engine = render("gpu")["services"]["vllm"]
    assert int(engine["shm_size"]) >= 8 * 2**30 or engine.get("ipc") == "host"


@pytest.mark.parametrize(
    ("layers", "default"),
    [
        ([], "Qwen/Qwen2-0.5B-Instruct"),
        (["gpu"], "Qwen/Qwen2-7B-Instruct"),
        (["airgap"], "HuggingFaceTB/SmolLM2-135M-Instruct"),
    ],
)
def test_every_service_means_the_same_model(layers: list[str], default: str) -> None:
    for env in ({}, {"MODEL_ID": "Qwen/Qwen2.5-3B-Instruct"}):
        services = render(*layers, **env)["services"]
        wanted = env.get("MODEL_ID", default)
        assert {services[name]["environment"]["MODEL_ID"] for name in ("model", "vllm")} == {wanted}
        tokenizers = {services[name]["environment"]["TOKENIZER"] for name in ("locust", "locust-worker")}
        assert tokenizers == {f"/models/{wanted}"}


def test_gpu_count_and_parallel_size_are_settings() -> None:
    engine = render("gpu", GPU_COUNT="2", TENSOR_PARALLEL_SIZE="2")["services"]["vllm"]
    assert engine["deploy"]["resources"]["reservations"]["devices"][0]["count"] == 2
    assert engine["environment"]["TENSOR_PARALLEL_SIZE"] == "2"


def test_engine_variables_reach_engine_and_jobs() -> None:
    services = render("gpu", GPU_IDS="1,2", ENGINE_ENV="NCCL_DEBUG=INFO", NCCL_P2P_DISABLE="1")["services"]
    for name in ("vllm", "generate", "throughput"):
        given = services[name]["environment"]
        assert (given["GPU_IDS"], given["ENGINE_ENV"], given["NCCL_P2P_DISABLE"]) == ("1,2", "NCCL_DEBUG=INFO", "1")
        # Empty, it would hide every card.
        assert given["CUDA_VISIBLE_DEVICES"] is None


@pytest.mark.parametrize("file", ["compose.yaml", "docker/swarm/stack.yaml", "docker/swarm/multinode.yaml"])
def test_compiled_kernels_are_on_the_volume(file: str) -> None:
    services = yaml.safe_load((ROOT / file).read_text())["services"]
    engines = {name: one for name, one in services.items() if "HOME" in one.get("environment", {})}
    assert engines
    for name, engine in engines.items():
        for variable in ("HOME", "TRITON_CACHE_DIR", "TMPDIR"):
            assert engine["environment"][variable].startswith("/cache/"), (name, variable)
        assert "engine-cache:/cache" in engine["volumes"], name


def test_gpu_layer_runs_as_the_images_user() -> None:
    # docs.vllm.ai, "Using Docker": the CUDA image holds a user `vllm`, UID 2000 in group 0.
    assert render("gpu")["services"]["vllm"]["user"] == "2000:0"


def test_gpu_exporter_sees_every_card() -> None:
    exporter = render("gpu")["services"]["gpu-exporter"]
    [device] = exporter["deploy"]["resources"]["reservations"]["devices"]
    assert (device["count"], device["capabilities"]) == (-1, ["gpu"])


def test_airgap_layer_downloads_from_its_own_hub_only() -> None:
    services = render("airgap")["services"]
    assert services["model"]["environment"]["MODELSCOPE_ENDPOINT"] == "http://hub:8080"
    assert "ports" not in services["hub"]


def test_airgap_layer_leaves_grafana_out() -> None:
    assert render("airgap")["services"]["grafana"]["profiles"] == ["grafana"]
    assert "profiles" not in render()["services"]["grafana"]


def test_scale_layer_has_one_address() -> None:
    services = render("gpu", "scale", ENGINES="4")["services"]
    assert services["vllm"]["deploy"]["replicas"] == 4
    assert "ports" not in services["vllm"]
    assert [port["published"] for port in services["edge"]["ports"]] == ["8000"]
    assert services["locust"]["environment"]["LOCUST_HOST"] == "http://router:8000"
    assert services["locust-worker"]["environment"]["ENGINE_URLS"] == "http://vllm:8000"


def test_scale_layer_keeps_its_ports_local() -> None:
    services = render("scale", BIND_ADDRESS="10.1.2.3", VLLM_API_KEY="k")["services"]
    [port] = services["edge"]["ports"]
    assert port["host_ip"] == "127.0.0.1"
    assert "ports" not in services["router"]


def test_edge_layer_after_scale_is_unchanged() -> None:
    assert render("scale", "edge")["services"]["edge"] == render("edge")["services"]["edge"]


def test_scale_layer_sends_no_request_twice() -> None:
    assert "--retry-max-retries=1" in render("scale")["services"]["router"]["command"]
    assert "--retry-max-retries=3" in render("scale", ROUTER_ATTEMPTS="3")["services"]["router"]["command"]


def test_selinux_lets_containers_read_the_checkout(layer: dict[str, Any]) -> None:
    for name, service in layer["services"].items():
        for mount in service.get("volumes", []):
            if mount["type"] == "bind":
                # Never a folder of the user's or the whole box: a label there is kept.
                inside = Path(mount["source"]).is_relative_to(ROOT)
                assert ("selinux" in mount.get("bind", {})) is inside, (name, mount)


def test_proxies_stop_no_sooner_than_engines() -> None:
    for layers in LAYERS.values():
        services = render(*layers)["services"]
        times = {name: seconds(services[name]["stop_grace_period"]) for name in FRONT & services.keys()}
        assert all(time >= seconds(services["vllm"]["stop_grace_period"]) for time in times.values()), (layers, times)


def test_scale_layer_numbers_its_engines() -> None:
    engine = render("gpu", "scale")["services"]["vllm"]
    assert re.fullmatch(r"[a-z0-9-]+-vllm-", engine["environment"]["ENGINE_NAMES"])


def test_dockers_disk_is_watched_once() -> None:
    command = render()["services"]["node-exporter"]["command"]
    [unseen] = [option.partition("=")[2] for option in command if "mount-points-exclude" in option]
    unseen = unseen.replace("$$", "$")
    for disk in ("/", "/var/lib/docker", "/var/lib", "/data", "/devices"):
        assert not re.match(unseen, disk), disk
    for mount in ("/var/lib/docker/overlay2/ab/merged", "/proc", "/dev/shm", "/run/docker/netns/ab"):  # noqa: S108
        assert re.match(unseen, mount), mount


def test_jobs_start_only_when_asked_for() -> None:
    services = render()["services"]
    assert {tuple(services[name]["profiles"]) for name in ("smoke", "generate", "throughput")} == {("tools",)}


def test_bind_address_and_ports_are_settings() -> None:
    env = {
        "BIND_ADDRESS": "10.1.2.3",
        "VLLM_PORT": "1",
        "GRAFANA_PORT": "2",
        "PROMETHEUS_PORT": "3",
        "LOCUST_PORT": "4",
    }
    ports = [port for service in render(**env)["services"].values() for port in service.get("ports", [])]
    # Prometheus and Locust have no password of their own.
    assert {port["published"] for port in ports if port["host_ip"] == "10.1.2.3"} == {"1", "2"}
    assert {port["published"] for port in ports if port["host_ip"] == "127.0.0.1"} == {"3", "4"}


@pytest.mark.parametrize("layers", LAYERS.values(), ids=LAYERS.keys())
def test_proxies_reach_only_the_download(layers: tuple[str, ...]) -> None:
    # What is empty here wins over Docker's client configuration.
    names = [spelt for name in ("HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY") for spelt in (name, name.lower())]
    services = render(*layers, HTTPS_PROXY="http://proxy:1", http_proxy="http://proxy:2")["services"]
    download = services.pop("model")["environment"]
    assert (download["HTTPS_PROXY"], download["HTTP_PROXY"]) == ("http://proxy:1", "http://proxy:2")
    assert "http_proxy" not in download
    for name, service in services.items():
        assert {service["environment"].get(spelt) for spelt in names} == {""}, name


def test_authority_file_reaches_download_and_load_test() -> None:
    services = render()["services"]
    holders = {name for name, one in services.items() if "ca_bundle" in str(one.get("secrets"))}
    assert holders == {"model", "locust", "locust-worker", "smoke", "capacity"}
    assert services["model"]["environment"]["CA_BUNDLE_FILE"] == "/run/secrets/ca_bundle"


def test_every_setting_is_in_env_example() -> None:
    used = set()
    for file in ROOT.glob("compose*.yaml"):
        used |= set(re.findall(r"\$\{([A-Z_]+)", file.read_text()))
    described = set(re.findall(r"^#? ?([A-Z_]+)=", Path(ROOT / ".env.example").read_text(), re.MULTILINE))
    assert used - {"COMPOSE_PROJECT_NAME"} == described - {"COMPOSE_FILE"}


def test_env_example_shows_the_defaults_of_compose() -> None:
    example = dict(re.findall(r"^# ([A-Z_]+)=(.*)$", (ROOT / ".env.example").read_text(), re.MULTILINE))
    defaults = dict(re.findall(r"\$\{([A-Z_]+):-([^}$]*)\}", (ROOT / "compose.yaml").read_text()))
    assert len(defaults) > 15
    for name, default in defaults.items():
        assert example[name] == default, name
