"""The batch with a fake engine that ends requests in random order; tests/stack has the real one."""

from __future__ import annotations

import random
from types import SimpleNamespace
from typing import Any

import pytest
from batch_generation.batch_prompts import BatchPrompt, WrongLine
from batch_generation.prompt_batch import PromptBatch

SEQUENCES = 4


class Engine:
    """The part of vLLM's LLMEngine that the batch uses; `most` is the largest number of its requests."""

    def __init__(self, never: str = "") -> None:
        self.vllm_config = SimpleNamespace(scheduler_config=SimpleNamespace(max_num_seqs=SEQUENCES))
        self.waiting: list[str] = []
        self.most = 0
        self.never = never
        self.draw = random.Random(1)  # noqa: S311  # no secret

    def add_request(self, request_id: str, inputs: str, _params: object) -> None:
        if inputs == "too long":
            raise ValueError("The decoder prompt is too long\nfor the model")
        self.waiting.append(request_id)
        self.most = max(self.most, len(self.waiting))

    def step(self) -> list[Any]:
        ready = [name for name in self.waiting if name != self.never] or self.waiting
        name = self.draw.choice(ready)
        self.waiting.remove(name)
        answer = SimpleNamespace(text=f"answer {name}", token_ids=[1, 2], finish_reason="length", stop_reason=None)
        times = SimpleNamespace(queued_ts=1.0, scheduled_ts=1.5, first_token_ts=2.0, last_token_ts=3.0)
        return [
            SimpleNamespace(request_id=name, finished=True, outputs=[answer], prompt_token_ids=[1, 2, 3], metrics=times)
        ]


class Sink:
    def __init__(self) -> None:
        self.rows: list[dict[str, Any]] = []

    def write(self, row: dict[str, Any]) -> None:
        self.rows.append(row)

    def flush(self) -> None:
        pass


def run(engine: Engine, items: list[BatchPrompt | WrongLine]) -> list[dict[str, Any]]:
    sink, taken = Sink(), 0

    def counted() -> Any:
        nonlocal taken
        for item in items:
            taken += 1
            # Prompts that were taken and not yet written are in memory.
            assert taken - len(sink.rows) <= 16 * SEQUENCES + 1
            yield item

    batch: Any = PromptBatch(SimpleNamespace(llm_engine=engine), None, lambda prompt: prompt.content, "r")  # type: ignore[arg-type]
    batch.run(counted(), sink, lambda _row: None)
    return sink.rows


def test_answers_keep_the_input_order() -> None:
    rows = run(Engine(), [BatchPrompt(line, "p") for line in range(1, 501)])
    assert [row["line"] for row in rows] == list(range(1, 501))
    assert all(row["text"] == f"answer {row['line']}" for row in rows)


def test_engine_queue_is_bounded() -> None:
    engine = Engine()
    run(engine, [BatchPrompt(line, "p") for line in range(1, 501)])
    assert SEQUENCES < engine.most <= 2 * SEQUENCES


def test_long_answer_holds_one_window() -> None:
    rows = run(Engine(never="1"), [BatchPrompt(line, "p") for line in range(1, 501)])
    assert len(rows) == 500


def test_wrong_lines_keep_their_place() -> None:
    items = [BatchPrompt(1, "p"), WrongLine(2, "is not JSON", "x"), BatchPrompt(3, "too long"), BatchPrompt(5, "p", 7)]
    first, wrong, long, last = run(Engine(), items)
    assert wrong == {"line": 2, "id": "x", "error": "is not JSON", "run": "r"}
    assert long == {"line": 3, "error": "The decoder prompt is too long for the model", "run": "r"}
    assert (first["line"], last["line"], last["id"]) == (1, 5, 7)


def test_row_has_tokens_and_timings() -> None:
    [row] = run(Engine(), [BatchPrompt(1, "p")])
    assert row == {
        "line": 1,
        "prompt": "p",
        "text": "answer 1",
        "prompt_tokens": 3,
        "output_tokens": 2,
        "finish_reason": "length",
        "queued_s": 0.5,
        "first_token_s": 1.0,
        "total_s": 2.0,
        "run": "r",
    }


def test_dead_engine_ends_the_batch() -> None:
    engine = Engine()

    def die() -> list[Any]:
        raise RuntimeError("EngineCore died")

    engine.step = die  # type: ignore[method-assign]
    with pytest.raises(RuntimeError, match="died"):
        run(engine, [BatchPrompt(1, "p")])
