"""The job `throughput`: reads settings, draws prompts, runs each side in a process of its own."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Any

import engine_job
import settings as engine_settings
from speed_test import side_result
from speed_test.result_table import figures, table
from speed_test.throughput_arguments import BACKENDS, parser
from speed_test.work import Request, Work, WorkError, dataset_requests, random_requests

if TYPE_CHECKING:
    import argparse
    from types import FrameType

INPUT_LEN, OUTPUT_LEN = 64, 128
SCRIPTS = Path(__file__).resolve().parents[1]
SIDES = {"vllm": "vllm_side", "hf": "transformers_side"}


class SideError(Exception):
    """A failed side; its output is in the log."""


def main(argv: list[str] | None = None) -> int:
    """Run the job; return its exit code."""
    args = parser().parse_args(argv)
    out = engine_job.clean_stdout()
    signal.signal(signal.SIGTERM, _stop)
    try:
        results = _measure(args)
    except (engine_settings.SettingError, WorkError) as error:
        print(f"throughput: {error}", file=sys.stderr)
        return 2
    except SideError as error:
        print(f"throughput: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("throughput: stopped", file=sys.stderr)
        return 130
    if args.json and args.json != "-":
        Path(args.json).write_text(json.dumps(results, indent=1) + "\n")
    print(json.dumps(results) if args.json == "-" else table(results), file=out)
    return 0


def _stop(_signum: int, _frame: FrameType | None) -> None:
    raise KeyboardInterrupt


def _measure(args: argparse.Namespace) -> dict[str, Any]:
    if args.quantization and args.backend != "vllm":
        raise WorkError("--quantization is vLLM's alone: use it with --backend vllm")
    if args.json and args.json != "-" and not Path(args.json).absolute().parent.is_dir():
        raise WorkError(f"--json {args.json} cannot be written: there is no such folder")
    settings = engine_job.read({"MODEL_ID": args.model, "MAX_MODEL_LEN": args.max_model_len, "DTYPE": args.dtype})
    work = _work(args, settings)
    sides = BACKENDS if args.backend == "both" else (args.backend,)
    with tempfile.TemporaryDirectory() as folder:
        order = Path(folder) / "work.json"
        work.save(order)
        limits = json.loads(_process("hardware_limits", order, settings).read_text())
        results = [side_result.load(_process(SIDES[side], order, settings)) for side in sides]
    return figures(work, results, limits)


def _work(args: argparse.Namespace, settings: engine_settings.Settings) -> Work:
    return Work(
        model=engine_job.model_name(settings),
        device=settings.device,
        dtype=settings.dtype,
        load_format=args.load_format,
        quantization=args.quantization,
        seed=args.seed,
        repeats=args.repeats,
        max_batch_size=args.hf_max_batch_size,
        engine_flags=[*engine_settings.engine_arguments(settings), *settings.extra_args],
        requests=_requests(args, settings),
    )


def _requests(args: argparse.Namespace, settings: engine_settings.Settings) -> list[Request]:
    from transformers import AutoTokenizer  # noqa: PLC0415  # takes seconds: not before the input was checked

    tokenizer = AutoTokenizer.from_pretrained(engine_job.model_name(settings))
    most = int(settings.max_model_len) if settings.max_model_len.isdecimal() else sys.maxsize
    lengths = (args.input_len, args.output_len)
    if args.dataset:
        return dataset_requests(args.dataset, args.num_prompts, lengths, tokenizer, most, args.seed)
    input_len, output_len = args.input_len or INPUT_LEN, args.output_len or OUTPUT_LEN
    if input_len + output_len > most:
        raise WorkError(
            f"--input-len {input_len} and --output-len {output_len} are more than the model's {most} tokens: "
            "shorten them, or raise --max-model-len"
        )
    special = set(tokenizer.all_special_ids)
    ordinary = [token for token in range(tokenizer.vocab_size) if token not in special]
    return random_requests(args.num_prompts, input_len, output_len, ordinary, args.seed)


def _process(module: str, order: Path, settings: engine_settings.Settings) -> Path:
    """Run one module on `order` in a process of its own, which frees its memory; return the result's file."""
    answer = order.with_name(f"{module}.json")
    print(f"throughput: {module.removesuffix('_side')} ...", file=sys.stderr, flush=True)
    env = {"VLLM_LOGGING_LEVEL": "WARNING", "HF_HUB_OFFLINE": "1", "VLLM_NO_USAGE_STATS": "1", **os.environ}
    if engine_job.from_hub(settings):
        env["HF_HUB_OFFLINE"] = "0"
    env["PYTHONPATH"] = os.pathsep.join([str(SCRIPTS), *filter(None, [env.get("PYTHONPATH")])])
    command = [sys.executable, "-m", f"speed_test.{module}", str(order), str(answer)]
    code = subprocess.run(command, env=env, check=False).returncode  # noqa: S603  # our own modules
    if code or not answer.is_file():
        raise SideError(f"{module.removesuffix('_side')} ended with exit code {code}: the lines above say why")
    return answer
