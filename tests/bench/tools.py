"""The compared load generators: installation, command and report of each."""

from __future__ import annotations

import json
import subprocess
import sys
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

from tokenizers import Tokenizer, decoders, models, pre_tokenizers

if TYPE_CHECKING:
    from collections.abc import Iterator

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
    """A tool's report in milliseconds."""

    ttft_p50: float
    ttft_p99: float
    gap_p99: float


class Tool(Protocol):
    """A load generator. `folder` is its own: environment, tokenizer, output."""

    name: str

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
        return Reported(ttft["p50"], ttft["p99"], gap["p99"])


class Vllm:
    """vLLM's own, from the engine's image, because the package brings the whole engine.

    Runs in the image's file system, but in our control group: a container's has no real-time priority.
    """

    name = "vllm bench serve"
    image = "vllm/vllm-openai-cpu:v0.32.0-x86_64"

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
        result = json.loads((out / "result.json").read_text())
        return Reported(result["p50_ttft_ms"], result["p99_ttft_ms"], result["p99_itl_ms"])


class Guidellm:
    """guidellm; its ITL is the mean gap of a request, single gaps are not kept."""

    name = "guidellm"

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


TOOLS: dict[str, Tool] = {"headroom": Headroom(), "vllm": Vllm(), "guidellm": Guidellm(), "aiperf": Aiperf()}
