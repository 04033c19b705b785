"""The job `generate`: reads settings, loads the engine, runs the batch."""

from __future__ import annotations

import signal
import sys
import traceback
from typing import IO, TYPE_CHECKING, Any

import engine_job
import settings as engine_settings
from batch_generation.answer_output import AnswerFile, OutputError, PrintedAnswers
from batch_generation.batch_progress import BatchProgress
from batch_generation.generate_arguments import after, fingerprint, parser, prompts, sampling
from batch_generation.prompt_batch import PromptBatch
from failure_causes import explain

if TYPE_CHECKING:
    import argparse
    from collections.abc import Callable, Iterator
    from types import FrameType

    from batch_generation.batch_prompts import BatchPrompt, WrongLine
    from vllm import LLM, SamplingParams

STOPPED = 130


def main(argv: list[str] | None = None) -> int:
    """Run the job; return its exit code."""
    args = parser().parse_intermixed_args(argv)
    args.chat = args.chat or bool(args.system)
    out = engine_job.clean_stdout()
    signal.signal(signal.SIGTERM, _stop)
    try:
        return _run(args, out)
    except (engine_settings.SettingError, OutputError) as error:
        print(f"generate: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        again = ": the same command goes on from here" if args.output else ""
        print(f"generate: stopped{again}", file=sys.stderr)
        return STOPPED


def _stop(_signum: int, _frame: FrameType | None) -> None:
    raise KeyboardInterrupt


def _run(args: argparse.Namespace, out: IO[str]) -> int:
    items, total = prompts(args)
    settings = engine_job.read({"MODEL_ID": args.model, "MAX_MODEL_LEN": args.max_model_len, "DTYPE": args.dtype})
    run = fingerprint(args, settings)
    sink = AnswerFile(args.output, run) if args.output else PrintedAnswers(out, jsonl=args.json)
    before = 0
    if sink.last:
        items, before = after(items, sink.last), int(sink.last["line"])
    first = next(items, None)
    if first is None and before:
        print(f"generate: nothing to do: every prompt up to line {before} has its answer", file=sys.stderr)
        return 0
    if first is None:
        raise engine_settings.SettingError("no prompts: the input is empty")
    print(f"generate: loading {engine_job.model_name(settings)}", file=sys.stderr, flush=True)
    llm = _load(args, settings)
    batch = PromptBatch(llm, _sampling(args, llm), _renderer(args, settings, llm), run)
    progress = BatchProgress(total, before)
    try:
        batch.run(_chain(first, items), sink, progress.row)
    finally:
        progress.end()
    return 1 if progress.wrong else 0


def _chain(
    first: BatchPrompt | WrongLine, others: Iterator[BatchPrompt | WrongLine]
) -> Iterator[BatchPrompt | WrongLine]:
    yield first
    yield from others


def _load(args: argparse.Namespace, settings: engine_settings.Settings) -> LLM:
    """Load the engine. Raises SettingError with one line for every failure."""
    try:
        engine_args = engine_job.engine_args(settings)
        _check_sampling(args)
        engine_args.disable_log_stats = False  # they include each answer's timings
        return engine_job.start(engine_args)
    except engine_settings.SettingError:
        raise
    except Exception:  # noqa: BLE001  # vLLM raises any type; its traceback is printed
        traceback.print_exc()
        raise engine_settings.SettingError(explain(traceback.format_exc(), 1)) from None


def _check_sampling(args: argparse.Namespace) -> None:
    """Check the sampling options before the engine loads."""
    from vllm import SamplingParams  # noqa: PLC0415  # takes seconds: not before the input was checked

    try:
        SamplingParams(**sampling(args))
    except ValueError as error:
        raise engine_settings.SettingError(" ".join(str(error).split())) from None


def _sampling(args: argparse.Namespace, llm: LLM) -> SamplingParams:
    """The model's own sampling, like the server's, with the given options on top."""
    from vllm import SamplingParams  # noqa: PLC0415  # as above
    from vllm.sampling_params import RequestOutputKind  # noqa: PLC0415  # as above

    own = llm.llm_engine.model_config.get_diff_sampling_param()
    return SamplingParams(**{**own, **sampling(args)}, output_kind=RequestOutputKind.FINAL_ONLY)


def _renderer(args: argparse.Namespace, settings: engine_settings.Settings, llm: LLM) -> Callable[[BatchPrompt], Any]:
    """Function from a prompt to the engine's input; it raises ValueError for an invalid prompt."""
    import jinja2  # noqa: PLC0415  # vLLM's image has it; the other jobs' image need not

    tokenizer: Any = llm.get_tokenizer()
    template = engine_job.chat_template(settings) or getattr(tokenizer, "chat_template", None)
    if args.chat and not template:
        raise engine_settings.SettingError(
            f"{settings.model_id} has no chat template: leave --chat out, or name a template with CHAT_TEMPLATE"
        )

    def render(prompt: BatchPrompt) -> Any:
        content = prompt.content
        if isinstance(content, str) and not args.chat:
            inputs: dict[str, Any] = {"prompt": content}
        else:
            messages = [{"role": "user", "content": content}] if isinstance(content, str) else content
            if args.system and messages[0]["role"] != "system":
                messages = [{"role": "system", "content": args.system}, *messages]
            try:
                tokens = tokenizer.apply_chat_template(
                    messages, chat_template=template, add_generation_prompt=True, tokenize=True, return_dict=False
                )
            except jinja2.TemplateError as error:
                raise ValueError(f"is refused by the chat template: {error}") from None
            inputs = {"prompt_token_ids": tokens}
        return llm.llm_engine.renderer.render_cmpl([inputs])[0]

    return render
