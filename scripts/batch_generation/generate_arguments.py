"""Command line of `generate`, and its source of prompts."""

from __future__ import annotations

import argparse
import hashlib
import json
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import settings as engine_settings
from batch_generation.batch_progress import count_lines
from batch_generation.batch_prompts import BatchPrompt, WrongLine, from_arguments, from_stream

if TYPE_CHECKING:
    from collections.abc import Iterator

    from batch_generation.answer_output import Row

MAX_TOKENS = 128


def parser() -> argparse.ArgumentParser:
    """The command line."""
    args = argparse.ArgumentParser(
        prog="generate", description="Let the model complete prompts without a server: a few, or a file of millions."
    )
    add = args.add_argument
    add("prompt", nargs="*", help="prompts; none: --input, or standard input")
    add("--input", metavar="FILE", help="a prompt a line; - is standard input")
    add(
        "--jsonl",
        action="store_true",
        help='lines are JSON, as in a file *.jsonl: {"prompt": "..."} or {"messages": [...]}, and an "id" if you like',
    )
    add("--output", type=Path, metavar="FILE", help="JSONL file to add to; a stopped run goes on where it ended")
    add("--json", action="store_true", help="print JSONL instead of text")
    add("--chat", action="store_true", help="through the model's chat template; lines with messages always are")
    add("--system", metavar="TEXT", help="system prompt; implies --chat")
    add(
        "--model",
        metavar="ID",
        help="on the models volume, a folder, or with VLLM_USE_MODELSCOPE=true at ModelScope; default: MODEL_ID",
    )
    add("--max-model-len", metavar="N", help="tokens of prompt and answer together; default: MAX_MODEL_LEN")
    add("--dtype", help="number format of the weights; default: DTYPE")
    add("--max-tokens", type=int, default=MAX_TOKENS, metavar="N", help="of one answer; default: %(default)s")
    add("--temperature", type=float, metavar="T", help="0 is greedy; default: the model's own")
    add("--top-p", type=float, metavar="P", help="default: the model's own")
    add("--seed", type=int, metavar="N", help="the same prompt then gets the same answer")
    add("--stop", action="append", metavar="TEXT", help="end an answer before this text; may be repeated")
    add("--stop-token-ids", type=int, nargs="+", metavar="ID", help="end an answer at these tokens")
    return args


def sampling(args: argparse.Namespace) -> dict[str, Any]:
    """The given sampling options, by the names of vLLM's SamplingParams."""
    names = ("max_tokens", "temperature", "top_p", "seed", "stop", "stop_token_ids")
    return {name: value for name in names if (value := getattr(args, name)) is not None}


def fingerprint(args: argparse.Namespace, settings: engine_settings.Settings) -> str:
    """Fingerprint, eight hex digits, of the settings that decide an answer: one file has one."""
    decides: list[Any] = [settings.model_id, settings.dtype, settings.max_model_len, settings.chat_template]
    decides += [args.chat, args.system, sampling(args)]
    return hashlib.sha256(json.dumps(decides, sort_keys=True).encode()).hexdigest()[:8]


def prompts(args: argparse.Namespace) -> tuple[Iterator[BatchPrompt | WrongLine], int | None]:
    """Prompts as an iterator, and the number of lines where it is known.

    Raises engine_settings.SettingError when there is no such file, or nothing to read.
    """
    if args.prompt:
        if args.input:
            raise engine_settings.SettingError("prompts are given as arguments and with --input: choose one")
        return from_arguments(args.prompt), len(args.prompt)
    if args.input in {None, "-"}:
        if args.input is None and sys.stdin.isatty():
            raise engine_settings.SettingError(
                "no prompts: give them as arguments, with --input FILE, or on standard input"
            )
        return from_stream(sys.stdin.buffer, jsonl=args.jsonl), None
    path = Path(args.input)
    try:
        return from_stream(path.open("rb"), jsonl=args.jsonl or path.suffix == ".jsonl"), count_lines(path)
    except OSError as error:
        raise engine_settings.SettingError(f"--input {path} cannot be read: {error.strerror}") from None


def after(items: Iterator[BatchPrompt | WrongLine], last: Row) -> Iterator[BatchPrompt | WrongLine]:
    """Prompts after the last row of an earlier run.

    Raises engine_settings.SettingError when that row answers another prompt.
    """
    for item in items:
        if item.line < last["line"]:
            continue
        answered = last.get("prompt", last.get("messages"))
        if item.line > last["line"] or ("error" not in last and getattr(item, "content", None) != answered):
            break
        return items
    raise engine_settings.SettingError(
        f"--output has answers up to line {last['line']}, and that line of the input is another now: "
        "choose another --output"
    )
