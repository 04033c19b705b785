"""The engine's scheduler: continuous batching with chunked prefill, KV blocks, preemption by recomputation.

It follows vLLM's V1 scheduler: running sequences first, one token each, then prompts in order of arrival while the
step's token budget, the batch slots and the blocks last; when a running sequence finds no block, the one that was
admitted last gives up all of its blocks and starts again at the head of the queue.

A step costs the same whatever the number of sequences: those that decode are counted, not visited. What changes from
step to step is known ahead: in which step each one ends, and in which each needs its next block.
"""

from __future__ import annotations

import heapq
from collections import deque
from dataclasses import dataclass
from math import inf, isnan
from random import Random
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from loadtest.capacity.simulation.engine_spec import EngineSpec, SimulatedRequest


@dataclass(slots=True)
class StepEnd:
    """What a step brought. `delivered` is when its tokens left the API server."""

    number: int
    delivered: float
    first: list[SimulatedRequest]  # made their first token
    ended: list[SimulatedRequest]  # made their last
    prefill_tokens: int
    decode_tokens: int


class SimulatedEngine:
    """`arrive` as time goes by; `begin_step` when it is idle, `end_step` at `step_ends`. Times only rise."""

    def __init__(self, spec: EngineSpec, seed: int) -> None:
        """An empty engine at time 0."""
        self.spec = spec
        self.clock = 0.0  # when the engine is free: the end of its last step
        self.step_ends = inf  # while a step runs
        self.waiting: deque[SimulatedRequest] = deque()
        self.running: dict[SimulatedRequest, None] = {}  # in order of admission
        self.preemptions = 0
        self.rejections = 0
        self.steps = 0
        self.busy_s = 0.0
        self._random = Random(f"engine:{seed}")  # noqa: S311  # a repeatable engine is the point
        self._handing_over: deque[SimulatedRequest] = deque()  # in the API server, in order of `ready`
        self._server_free = 0.0
        self._prefilling: dict[SimulatedRequest, int] = {}  # and the tokens of each in this step
        self._decoding = 0
        self._context = 0  # tokens of all that decode
        self._needs_block = [0] * spec.block_size  # sequences that need a block in steps of this number, modulo
        self._free_blocks = spec.kv_blocks
        self._will_end: list[tuple[int, int, int, SimulatedRequest]] = []
        self._order = 0

    @property
    def used_blocks(self) -> int:
        """KV blocks in use."""
        return self.spec.kv_blocks - self._free_blocks

    @property
    def idle(self) -> bool:
        """Whether nothing is under way."""
        return not (self.running or self.waiting or self._handing_over)

    @property
    def queued(self) -> int:
        """Requests that wait for the scheduler."""
        return len(self.waiting) + len(self._handing_over)

    @property
    def next_ready(self) -> float:
        """When the API server hands over the next request; infinite if it has none."""
        return self._handing_over[0].ready if self._handing_over else inf

    def arrive(self, sequence: SimulatedRequest) -> None:
        """Take a request that arrives at `sequence.arrived`; it may end up `rejected` at once.

        Raises ValueError for one that this engine can never hold.
        """
        if self.spec.blocks(sequence.prompt_tokens + sequence.output_tokens) > self.spec.kv_blocks:
            raise ValueError(f"{sequence.prompt_tokens} + {sequence.output_tokens} tokens do not fit into the KV cache")
        limit = self.spec.max_num_queued_reqs
        self._server_free = max(self._server_free, sequence.arrived) + self.spec.request_s
        sequence.ready = self._server_free
        if limit is not None and self.queued >= limit:
            sequence.rejected = True
            sequence.last_token = sequence.ready
            self.rejections += 1
            return
        self._handing_over.append(sequence)

    def begin_step(self) -> bool:
        """Start a step at `clock`, or when the next request is ready if none is; False when nothing is under way."""
        spec, handing_over = self.spec, self._handing_over
        if handing_over and not self.running and not self.waiting:
            self.clock = max(self.clock, handing_over[0].ready)
        while handing_over and handing_over[0].ready <= self.clock:
            self.waiting.append(handing_over.popleft())
        if not self.running and not self.waiting:
            return False
        preempted = self._make_room()
        prefill = self._schedule_prompts(spec.max_num_batched_tokens - self._decoding, admit=not preempted)
        duration = self._step_s(prefill)
        self.busy_s += duration
        self.step_ends = self.clock + duration
        self.steps += 1
        return True

    def end_step(self) -> StepEnd:
        """Finish the step that runs; the clock is then at its end."""
        step = self.steps
        self.clock, self.step_ends = self.step_ends, inf
        decoded = self._decoding
        self._context += decoded
        first: list[SimulatedRequest] = []
        emitted, prefilled = decoded, 0
        if self._prefilling:
            for sequence, tokens in tuple(self._prefilling.items()):
                prefilled += tokens
                sequence.computed += tokens
                if sequence.computed == sequence.prompt_tokens + sequence.generated:
                    del self._prefilling[sequence]
                    self._start_decoding(sequence, step)
                    emitted += 1
                    if sequence.generated == 1:
                        first.append(sequence)
        self._server_free = delivered = max(self._server_free, self.clock) + self.spec.output_token_s * emitted
        for sequence in first:
            sequence.first_token = delivered
        ended = self._take_ended(step)
        for sequence in ended:
            sequence.last_token = delivered
        return StepEnd(step, delivered, first, ended, prefilled, decoded)

    def output_tokens(self, sequence: SimulatedRequest) -> int:
        """Tokens that `sequence` has made in the steps that have ended."""
        since = sequence.decoding_since
        return sequence.generated + (self._steps_ended - since if since >= 0 else 0)

    def abort(self, sequence: SimulatedRequest, at: float = inf) -> bool:
        """Drop a request whose client went away at `at`; False if it had ended before."""
        if sequence in self.running:
            self._release(sequence, allocated_step=self.steps)
        elif sequence in self.waiting:
            self.waiting.remove(sequence)
        elif sequence in self._handing_over:
            self._leave_api_server(sequence, at)
        else:
            return False
        return True

    def _leave_api_server(self, sequence: SimulatedRequest, at: float) -> None:
        """What the API server has not begun to do for it, it does for those behind."""
        behind = list(self._handing_over)[self._handing_over.index(sequence) + 1 :]
        self._handing_over.remove(sequence)
        cost = self.spec.request_s
        if sequence.ready - cost < at:
            return
        for later in behind:
            later.ready -= cost
        self._server_free -= cost

    @property
    def _steps_ended(self) -> int:
        return self.steps if self.step_ends == inf else self.steps - 1

    def _step_s(self, prefill: int) -> float:
        """How long the next step takes, in seconds, with that many prompt tokens."""
        spec = self.spec
        mean = (
            spec.step_s
            + spec.prefill_token_s * prefill
            + spec.sequence_s * len(self.running)
            + spec.context_token_s * self._context
        )
        noise = spec.noise
        return mean * self._random.lognormvariate(-noise * noise / 2, noise) if noise else mean

    def _make_room(self) -> bool:
        """Give a block to each sequence that needs one in the next step; says whether one had to be preempted."""
        slot = (self.steps + 1) % self.spec.block_size
        preempted = False
        while self._needs_block[slot] > self._free_blocks:
            preempted = True
            victim = next(reversed(self.running))
            generated = self.output_tokens(victim)
            self._release(victim, allocated_step=self.steps)
            victim.generated = generated
            victim.preemptions += 1
            self.preemptions += 1
            self.waiting.appendleft(victim)
        self._free_blocks -= self._needs_block[slot]
        return preempted

    def _schedule_prompts(self, budget: int, *, admit: bool) -> int:
        """Give the step's remaining token budget to prompts; returns what they take."""
        given = 0
        for sequence in self._prefilling:
            tokens = min(budget - given, sequence.prompt_tokens + sequence.generated - sequence.computed)
            self._prefilling[sequence] = tokens
            given += tokens
        waiting, spec = self.waiting, self.spec
        while admit and waiting and given < budget and len(self.running) < spec.max_num_seqs:
            sequence = waiting[0]
            length = sequence.prompt_tokens + sequence.generated
            blocks = spec.blocks(length)
            if blocks > self._free_blocks:
                break
            waiting.popleft()
            self._free_blocks -= blocks
            sequence.computed = min(sequence.cached_tokens, length - 1)
            if isnan(sequence.scheduled):
                sequence.scheduled = self.clock
            self.running[sequence] = None
            tokens = min(budget - given, length - sequence.computed)
            self._prefilling[sequence] = tokens
            given += tokens
        return given

    def _start_decoding(self, sequence: SimulatedRequest, step: int) -> None:
        """The prompt was finished in `step`, which made a token too."""
        context = sequence.computed
        sequence.generated += 1
        sequence.decoding_since = step
        self._decoding += 1
        self._context += context
        # Step `step + j` stores token number context + j - 1 (from 0), the first of a block if that is a multiple.
        self._needs_block[(step + 1 - context) % self.spec.block_size] += 1
        self._order += 1
        ends = step + sequence.output_tokens - sequence.generated
        heapq.heappush(self._will_end, (ends, self._order, sequence.epoch, sequence))

    def _take_ended(self, step: int) -> list[SimulatedRequest]:
        ended = []
        heap = self._will_end
        while heap and heap[0][0] <= step:
            _, _, epoch, sequence = heapq.heappop(heap)
            if sequence.epoch == epoch:  # else it was preempted or dropped meanwhile
                self._release(sequence, allocated_step=step)
                sequence.generated = sequence.output_tokens
                ended.append(sequence)
        return ended

    def _release(self, sequence: SimulatedRequest, *, allocated_step: int) -> None:
        """Take it out of the batch and free its blocks, which it has up to and with `allocated_step`."""
        del self.running[sequence]
        since = sequence.decoding_since
        if since < 0:
            self._free_blocks += self.spec.blocks(sequence.prompt_tokens + sequence.generated)
            del self._prefilling[sequence]
        else:
            context = sequence.computed
            self._free_blocks += self.spec.blocks(context + allocated_step - since)
            self._needs_block[(since + 1 - context) % self.spec.block_size] -= 1
            self._decoding -= 1
            self._context -= context + self._steps_ended - since
        sequence.epoch += 1
        sequence.decoding_since = -1
