"""The simulated engine on the fault engine's event loop: its tokens are sent when their step ends."""

from __future__ import annotations

import json
import math
import time
from collections import deque
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from loadtest.capacity.simulation.engine_spec import SimulatedRequest
from loadtest.capacity.simulation.simulated_engine import SimulatedEngine
from tests.rig.fault_engine import chunks, server
from tests.rig.simulated_engine.metrics import EngineMetrics

if TYPE_CHECKING:
    from collections.abc import Callable

    from loadtest.capacity.simulation.engine_spec import EngineSpec
    from loadtest.capacity.simulation.simulated_engine import StepEnd
    from tests.rig.fault_engine.server import Connection, Settings

_REJECTED = {
    "error": {
        "message": "The server is overloaded: too many queued requests",
        "type": "ServiceUnavailable",
        "code": 503,
    }
}


def count_words(prompt: Any) -> int:
    """Return the words in the JSON of a prompt, a text or the messages of a chat."""
    return len(json.dumps(prompt).split())


def count_bytes(prompt: Any) -> int:
    """Return the bytes of a prompt's text, as of a tokenizer whose tokens are bytes."""
    if isinstance(prompt, str):
        return len(prompt.encode())
    if isinstance(prompt, dict):
        return count_bytes(prompt.get("content") or prompt.get("text") or "")
    return sum(map(count_bytes, prompt))


COUNT_TOKENS = {"words": count_words, "bytes": count_bytes}


@dataclass(slots=True, eq=False)
class _Answer:
    """A response in progress: the client's options, and the number of tokens sent."""

    connection: Connection
    endpoint: str
    stream: bool
    include_usage: bool
    sent: int = 0
    first_made: float = math.nan  # engine time, before the API server


class ServedEngine(server.Engine):
    """Serves until `stop` is called. Its clock runs in real time, in seconds since its creation."""

    def __init__(  # noqa: PLR0917  # the engine, and its address
        self,
        spec: EngineSpec,
        seed: int,
        settings: Settings,
        port: int = 0,
        host: str = "127.0.0.1",
        count_tokens: Callable[[Any], int] = count_words,
    ) -> None:
        super().__init__(settings, port, host)
        self._count_tokens = count_tokens
        self._origin_ns = time.time_ns()
        self._engine = SimulatedEngine(spec, seed)
        self._metrics = EngineMetrics(self._engine, settings.models[0])
        self._sequences: dict[int, SimulatedRequest] = {}  # by id(connection)
        # Tokens still in the API server, with the time at which they leave it.
        self._leaving: deque[tuple[float, list[tuple[SimulatedRequest, int]]]] = deque()
        self._last_arrival = 0.0
        self._step_began = 0.0
        self._prompts: set[int] = set()

    def _next_due_ns(self) -> float:
        due = min(self._engine.step_ends, self._leaving[0][0] if self._leaving else math.inf)
        return self._origin_ns + due * 1e9

    def _now(self) -> float:
        return (time.time_ns() - self._origin_ns) * 1e-9

    def _page(self, path: str) -> bytes:
        pages: dict[str, Callable[[], bytes]] = {"/metrics": self._metrics.page}
        if path in pages:
            answer = chunks.json_response(200, pages[path](), content_type="text/plain; version=0.0.4; charset=utf-8")
        else:
            answer = super()._page(path)
        self._metrics.answers[path, "GET", f"{answer.split()[1].decode()[0]}xx"] += 1
        return answer

    def _begin_request(self, connection: Connection, endpoint: str, body: bytes, arrived_ns: int, fault: str) -> None:  # noqa: ARG002  # no faults here
        wanted = json.loads(body)
        asked = wanted["messages"] if endpoint == "chat" else wanted["prompt"]
        prompt, tokens = json.dumps(asked), self._count_tokens(asked)
        answer = _Answer(
            connection,
            endpoint,
            stream=bool(wanted.get("stream")),
            include_usage=bool((wanted.get("stream_options") or {}).get("include_usage")),
        )
        self._last_arrival = max(self._last_arrival, (arrived_ns - self._origin_ns) * 1e-9)
        sequence = SimulatedRequest(
            self._last_arrival,
            tokens,
            int(wanted.get("max_completion_tokens") or wanted.get("max_tokens") or 16),
            cached_tokens=tokens if hash(prompt) in self._prompts else 0,
            data=answer,
        )
        path = "/v1/chat/completions" if endpoint == "chat" else "/v1/completions"
        try:
            self._engine.arrive(sequence)
        except ValueError as error:
            self._send(connection, chunks.json_response(400, {"error": {"message": str(error), "code": 400}}))
            self._metrics.answers[path, "POST", "4xx"] += 1
            return
        self._metrics.answers[path, "POST", "5xx" if sequence.rejected else "2xx"] += 1
        if sequence.rejected:
            self._send(connection, chunks.json_response(503, _REJECTED))
            return
        self._prompts.add(hash(prompt))
        counts = self._metrics.counts
        counts["prompt_tokens"] += tokens
        counts["prefix_cache_queries"] += tokens
        counts["prefix_cache_hits"] += sequence.cached_tokens
        self._sequences[id(connection)] = sequence

    def _run_due(self) -> None:
        """Run at most one step per turn, so that arrivals before the next step are read first."""
        now = self._now()
        engine = self._engine
        if engine.step_ends <= now:
            before = {sequence: engine.output_tokens(sequence) for sequence in engine.running}
            end = engine.end_step()
            tokens = self._tokens(end, before)
            self._metrics.count_step(end, engine.clock - self._step_began, len(tokens))
            self._count(end)
            self._leaving.append((end.delivered, tokens))
        while self._leaving and self._leaving[0][0] <= now:
            for sequence, made in self._leaving.popleft()[1]:
                self._deliver(sequence, made)
        if math.isinf(engine.step_ends) and engine.begin_step():
            self._step_began = engine.clock

    def _tokens(self, end: StepEnd, before: dict[SimulatedRequest, int]) -> list[tuple[SimulatedRequest, int]]:
        """Return the requests that made a token in this step, each with its tokens so far."""
        ended = set(end.ended)
        made = (
            (sequence, sequence.output_tokens if sequence in ended else self._engine.output_tokens(sequence))
            for sequence in before
        )
        return [(sequence, count) for sequence, count in made if count > before[sequence]]

    def _count(self, end: StepEnd) -> None:
        engine, metrics = self._engine, self._metrics
        for sequence in end.first:
            answer: _Answer = sequence.data
            answer.first_made = engine.clock
            metrics.histograms["time_to_first_token_seconds"].add(end.delivered - sequence.arrived)
        for sequence in end.ended:
            answer = sequence.data
            metrics.ended["length"] += 1
            for name, value in (
                ("request_queue_time_seconds", sequence.scheduled - sequence.ready),
                ("request_prefill_time_seconds", answer.first_made - sequence.scheduled),
                ("request_decode_time_seconds", engine.clock - answer.first_made),
                ("request_inference_time_seconds", engine.clock - sequence.scheduled),
                ("e2e_request_latency_seconds", end.delivered - sequence.arrived),
                ("request_prompt_tokens", sequence.prompt_tokens),
                ("request_generation_tokens", sequence.output_tokens),
            ):
                metrics.histograms[name].add(value)
            tpot = sequence.tpot
            metrics.histograms["request_time_per_output_token_seconds"].add(0.0 if tpot is None else tpot)

    def _deliver(self, sequence: SimulatedRequest, made: int) -> None:
        answer: _Answer = sequence.data
        connection = answer.connection
        if self._sequences.get(id(connection)) is not sequence:
            return  # its client has disconnected
        last = made == sequence.output_tokens
        if last:
            del self._sequences[id(connection)]
        if not answer.stream:
            if last:
                counts = sequence.prompt_tokens, sequence.output_tokens, sequence.cached_tokens
                whole = chunks.whole(answer.endpoint, *counts)
                self._send(connection, chunks.json_response(200, whole))
            return
        data = b""
        if not answer.sent:
            data = chunks.HEAD_STREAM + (chunks.framed(chunks.role()) if answer.endpoint == "chat" else b"")
        data += chunks.framed(chunks.token(answer.endpoint, finish="length" if last else None))
        if last:
            if answer.include_usage:
                data += chunks.framed(
                    chunks.usage_event(sequence.prompt_tokens, sequence.output_tokens, sequence.cached_tokens)
                )
            data += chunks.framed(chunks.DONE) + chunks.LAST_CHUNK
        answer.sent = made
        self._send(connection, data)

    def _on_disconnect(self, connection: Connection) -> None:
        sequence = self._sequences.pop(id(connection), None)
        if sequence is not None and self._engine.abort(sequence, self._now()):
            self._metrics.ended["abort"] += 1
