"""Checks of .env with the containers' own modules: wrong values, contradictions, secrets."""

from __future__ import annotations

import difflib
import os
import re
import ssl
import stat
import subprocess
from pathlib import Path
from typing import TYPE_CHECKING, Any

from doctor_checks import env_file
from doctor_checks.check_result import CheckResult, fail, ok, warn
from repository import ROOT, import_from

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence

# The containers' own modules, which need only the standard library.
import_from("docker/vllm", "docker/model")

import api_access  # noqa: E402  # from the folders above
import engine_environment  # noqa: E402
import settings as engine_settings  # noqa: E402
from delivery import settings as delivery_settings  # noqa: E402

# Settings of Compose itself, not in .env.example.
_COMPOSE = re.compile(r"COMPOSE_\w+|DOCKER_\w+")
_DOCKER = ROOT / "docker"
_TYPOGRAPHIC = tuple("\u201c\u201d\u201e\u2018\u2019\u00ab\u00bb")
SECRETS = ("VLLM_API_KEY", "MODEL_TOKEN", "GRAFANA_ADMIN_PASSWORD", "EDGE_PASSWORD", "ALERT_WEBHOOK_URL")


def check_values(model: Mapping[str, Any]) -> Iterator[CheckResult]:
    """Check all settings."""
    found = [
        *_containers_own(model),
        *_start_scripts(model),
        *_contradictions(model),
        *_secret_files(model),
        *_authorities(_secret_source(model, "ca_bundle")),
        *_names(model, env_file.read(ROOT)),
        *_changed_by_compose(env_file.read(ROOT)),
        *(found for file in env_file.files(ROOT) for found in _readable_secrets(file)),
    ]
    yield from found or [ok("settings", "no contradiction", "")]


def cpu_weight_bytes(model: Mapping[str, Any], on_disk: float, config: Mapping[str, Any]) -> float:
    """Bytes of the weights in a CPU engine, by the engine's own estimate."""
    return engine_settings.weight_bytes(
        on_disk, config, _environment(model, "vllm").get("DTYPE") or engine_settings.DEFAULT_DTYPE["cpu"]
    )


def _environment(model: Mapping[str, Any], service: str) -> dict[str, str]:
    values = model["services"].get(service, {}).get("environment") or {}
    return {name: str(value) for name, value in values.items() if value is not None}


def _containers_own(model: Mapping[str, Any]) -> Iterator[CheckResult]:
    """Check values that the engine or the model step would refuse."""
    env = _environment(model, "vllm")
    # The user's file: the variable has its path inside the container.
    env["VLLM_API_KEY_FILE"] = _secret_source(model, "vllm_api_key")
    model_env = {**_environment(model, "model"), "MODEL_TOKEN_FILE": "", "CA_BUNDLE_FILE": ""}
    checks: list[Callable[[], object]] = [
        lambda: engine_settings.read(env),
        lambda: engine_environment.read(env),
        lambda: api_access.adopt_key(env),
        lambda: api_access.check(env),
        lambda: delivery_settings.read(model_env),
    ]
    for check in checks:
        try:
            check()
        except (engine_settings.SettingError, delivery_settings.DeliveryError) as error:
            yield _refused(str(error))


def _start_scripts(model: Mapping[str, Any]) -> Iterator[CheckResult]:
    """Check values that a service's start script would refuse, by the script itself."""
    files = {
        f"{name.upper()}_FILE": _secret_source(model, name) for name in ("grafana_admin_password", "edge_password")
    }
    for name, service in model["services"].items():
        script = _DOCKER / name / "start.sh"
        own = service.get("entrypoint")  # of the image, where Compose names none
        if not script.is_file() or not (own is None or any("start.sh" in word for word in own)):
            continue
        environment = {"PATH": os.environ.get("PATH", ""), **_environment(model, name), **files, "CHECK_ONLY": "1"}
        arguments = service.get("command") or []
        done = subprocess.run(  # noqa: S603  # our own script
            ["sh", str(script), *arguments],  # noqa: S607  # sh is taken from PATH
            env=environment,
            capture_output=True,
            text=True,
            timeout=30,
            check=False,
        )
        if done.returncode:
            yield _refused(done.stderr.strip().rpartition("\n")[2].replace("headroom: ", "", 1))


def _refused(text: str) -> CheckResult:
    """Result from a container's message: problem up to the last colon, then the fix."""
    problem, _, fix = text.rpartition(": ")
    return fail("settings", problem or text, "", fix if problem else "correct it in .env")


def _secret_source(model: Mapping[str, Any], name: str) -> str:
    return str((model.get("secrets") or {}).get(name, {}).get("file") or "/dev/null")


def _contradictions(model: Mapping[str, Any]) -> Iterator[CheckResult]:
    """Check valid values that contradict each other."""
    engine_env, model_env = _environment(model, "vllm"), _environment(model, "model")
    mounts = model["services"]["model"].get("volumes", [])
    local = next((mount["source"] for mount in mounts if mount["target"] == "/local"), "/dev/null")
    if model_env.get("MODEL_SOURCE") == "local" and local == "/dev/null":
        yield fail("settings", "MODEL_SOURCE=local without MODEL_LOCAL_PATH", "", "name the folder or archive in .env")
    if model_env.get("MODEL_SOURCE") != "local" and local != "/dev/null":
        fix = f"MODEL_SOURCE=local, or leave MODEL_LOCAL_PATH={local} out"
        yield warn("settings", f"MODEL_LOCAL_PATH is not used by MODEL_SOURCE={model_env.get('MODEL_SOURCE')}", "", fix)
    devices = _devices(model)
    size = engine_env.get("TENSOR_PARALLEL_SIZE", "1")
    if devices is not None and devices > 0 and size.isdecimal() and int(size) > devices:
        yield fail("settings", f"TENSOR_PARALLEL_SIZE={size} and GPU_COUNT={devices}", "", "make the two agree")
    beyond = [one for one in re.findall(r"\d+", engine_env.get("GPU_IDS", "")) if 0 < (devices or 0) <= int(one)]
    if beyond and re.fullmatch(r"[\d\s,]+", engine_env["GPU_IDS"]):
        found = f"GPU_IDS={engine_env['GPU_IDS']} and GPU_COUNT={devices}, the cards 0 to {(devices or 0) - 1}"
        yield fail("settings", found, "", "leave GPU_COUNT out")
    if engine_env.get("ENGINE_DEVICE") == "cpu":
        cpu = Path("/proc/cpuinfo").read_text()
        if engine_env.get("DTYPE") == "bfloat16" and "amx_bf16" in cpu:
            yield warn("settings", "DTYPE=bfloat16 on a CPU with AMX", "float32", "wrong answers: leave DTYPE empty")


def _devices(model: Mapping[str, Any]) -> int | None:
    """Number of cards for the engine's container; -1 for all, None for none."""
    resources = (model["services"]["vllm"].get("deploy") or {}).get("resources") or {}
    devices = (resources.get("reservations") or {}).get("devices") or []
    return int(devices[0].get("count", -1)) if devices else None


def _content(file: str) -> str:
    try:
        return Path(file).read_text().strip()
    except (OSError, ValueError):
        return ""


def _secret_files(model: Mapping[str, Any]) -> Iterator[CheckResult]:
    """Check that the secret files of .env exist and that the containers' users can read them."""
    for name, secret in (model.get("secrets") or {}).items():
        path = Path(str(secret.get("file") or "/dev/null"))
        setting = f"{name.upper()}_FILE"
        if not path.exists():
            yield fail("settings", f"{setting}: {path} is not there", "", "make the file, or leave the setting out")
        elif not path.stat().st_mode & stat.S_IROTH:
            fix = f"chmod 644 {path}, in a folder that only you may enter"
            yield fail("settings", f"{setting}: containers cannot read {path}", "readable for others", fix)


def _authorities(file: str) -> Iterator[CheckResult]:
    """Check that the CA file has a certificate; whether it can be read, `_secret_files` checks."""
    if _content(file):
        try:
            ssl.create_default_context(cafile=file)
        except (OSError, ValueError):
            yield fail("settings", f"CA_BUNDLE_FILE: {file} has no certificate in PEM form", "", "name a PEM file")


def _names(model: Mapping[str, Any], entries: Sequence[env_file.Entry]) -> Iterator[CheckResult]:
    """Report names in .env that no service reads, most often misspelt."""
    known = set(re.findall(r"^#? ?([A-Z_]+)=", (ROOT / ".env.example").read_text(), re.MULTILINE))
    passed_on = {name for service in model["services"].values() for name in service.get("environment") or {}}
    for entry in entries:
        if entry.name not in known | passed_on and not _COMPOSE.fullmatch(entry.name):
            near = difflib.get_close_matches(entry.name, known, 1)
            fix = f"did you mean {near[0]}?" if near else ".env.example lists them all"
            yield warn("settings", f"{entry.name} in .env is no setting", "", fix)


def _changed_by_compose(entries: Sequence[env_file.Entry]) -> Iterator[CheckResult]:
    """Report values of .env that reach the containers other than they are written. Values stay out of the text."""
    known = {*os.environ, *(entry.name for entry in entries)}
    for entry in entries:
        secret = entry.name in SECRETS
        quoted = f"write it in single quotes: {entry.name}='...'"
        if (secret and entry.takes_dollar) or any(name not in known for name in entry.variables):
            yield warn("settings", f"{entry.name} in .env has a $, which Compose takes for a variable", "", quoted)
        if entry.left_out and (secret or entry.quote):
            after = "its closing quote" if entry.quote else "its #"
            yield warn("settings", f"{entry.name} in .env: what follows {after} is left out", "", quoted)
        if entry.text != entry.text.strip():
            yield warn(
                "settings", f"{entry.name} in .env has blanks at an end, inside its quotes", "", "leave them out"
            )
        if entry.text[:1] in _TYPOGRAPHIC or entry.text[-1:] in _TYPOGRAPHIC:
            yield warn("settings", f"{entry.name} in .env has typographic quotes, which stay in the value", "", quoted)


def _readable_secrets(file: Path) -> Iterator[CheckResult]:
    """Report a .env with a secret that every user of the box can read."""
    given = {entry.name for entry in env_file.entries(_content(str(file))) if entry.text}
    held = [name for name in SECRETS if name in given]
    if held and file.stat().st_mode & stat.S_IROTH:
        yield warn("settings", f"every user of this box can read {', '.join(held)}", "", f"chmod 600 {file.name}")
