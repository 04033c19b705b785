"""Batch of prompts: queued in the engine as it has room, answered in the order of the input.

The engine ends prompts in any order. Rows wait for earlier ones in a window of bounded size, so memory does not grow
with the file.
"""

from __future__ import annotations

from collections import OrderedDict
from typing import TYPE_CHECKING, Any, Protocol

from batch_generation.batch_prompts import BatchPrompt, WrongLine

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from batch_generation.answer_output import Row
    from vllm import LLM, SamplingParams
    from vllm.outputs import RequestOutput

# In multiples of the engine's maximum of concurrent sequences.
_QUEUED = 2  # queued in the engine, so that it never waits for a prompt
_WINDOW = 16  # not yet written, so that one long answer does not stop the others


class Sink(Protocol):
    """Output for rows, such as PrintedAnswers and AnswerFile."""

    def write(self, row: Row) -> None: ...  # see the classes

    def flush(self) -> None: ...  # as above


class PromptBatch:
    """Runs prompts through `llm`. `render` converts one to the engine's input and may raise ValueError."""

    def __init__(self, llm: LLM, params: SamplingParams, render: Callable[[BatchPrompt], Any], run: str) -> None:
        self._engine = llm.llm_engine
        self._params = params
        self._render = render
        self._run = run
        sequences = self._engine.vllm_config.scheduler_config.max_num_seqs
        self._most_queued, self._most_held = _QUEUED * sequences, _WINDOW * sequences
        self._asked: dict[str, BatchPrompt] = {}
        # Rows by line, in the order of the input; None: not answered yet.
        self._held: OrderedDict[int, Row | None] = OrderedDict()

    def run(self, prompts: Iterator[BatchPrompt | WrongLine], sink: Sink, done: Callable[[Row], None]) -> None:
        """Answer all `prompts`; call `done` with each written row. Raises the engine's errors."""
        more = True
        while more or self._asked:
            while more and len(self._asked) < self._most_queued and len(self._held) < self._most_held:
                item = next(prompts, None)
                if item is None:
                    more = False
                else:
                    self._take(item)
            if self._asked:
                for output in self._engine.step():
                    if output.finished:
                        self._answer(output)
            self._write(sink, done)

    def _take(self, item: BatchPrompt | WrongLine) -> None:
        if isinstance(item, BatchPrompt):
            try:
                inputs = self._render(item)
                self._engine.add_request(str(item.line), inputs, self._params)
            except ValueError as error:  # too long, or refused by the chat template: an error of this line alone
                item = WrongLine(item.line, " ".join(str(error).split()), item.id)
            else:
                self._asked[str(item.line)] = item
                self._held[item.line] = None
                return
        row = {"line": item.line, "id": item.id, "error": item.reason, "run": self._run}
        self._held[item.line] = _without_empty(row)

    def _answer(self, output: RequestOutput) -> None:
        prompt = self._asked.pop(output.request_id)
        [answer] = output.outputs
        self._held[prompt.line] = _without_empty(
            {
                "line": prompt.line,
                "id": prompt.id,
                "prompt" if isinstance(prompt.content, str) else "messages": prompt.content,
                "text": answer.text,
                "prompt_tokens": len(output.prompt_token_ids or ()),
                "output_tokens": len(answer.token_ids),
                "finish_reason": answer.finish_reason,
                "stop_reason": answer.stop_reason,
                **_timings(output),
                "run": self._run,
            }
        )

    def _write(self, sink: Sink, done: Callable[[Row], None]) -> None:
        while self._held:
            line, row = next(iter(self._held.items()))
            if row is None:
                break
            del self._held[line]
            sink.write(row)
            done(row)
        sink.flush()


def _timings(output: RequestOutput) -> dict[str, float]:
    """Seconds from the request's arrival, by the engine's clock."""
    times = output.metrics
    if times is None:
        return {}
    return {
        "queued_s": round(times.scheduled_ts - times.queued_ts, 6),
        "first_token_s": round(times.first_token_ts - times.queued_ts, 6),
        "total_s": round(times.last_token_ts - times.queued_ts, 6),
    }


def _without_empty(row: Row) -> Row:
    return {name: value for name, value in row.items() if value is not None}
