"""Simulated scheduler of an engine: continuous batching with chunked prefill, KV blocks, preemption by recomputation.

It follows vLLM's V1 scheduler: running sequences first, one token each, then prompts in order of arrival while the
step's token budget, the batch slots and the blocks last; when a running sequence finds no block, the one admitted
last gives up all of its blocks and starts again at the head of the queue.

The cost of simulating a step does not grow with the number of sequences: decoding ones are counted, not visited. The
step in which each one ends, or needs its next block, is known in advance.
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
    """Outcome of a step. `delivered` is the time at which its tokens left the API server."""

    number: int
    delivered: float
    first: list[SimulatedRequest]  # produced their first token
    ended: list[SimulatedRequest]  # produced their last
    prefill_tokens: int
    decode_tokens: int


class SimulatedEngine:
    """Call `arrive` in order of time, `begin_step` when no step runs, and `end_step` at `step_ends`."""

    def __init__(self, spec: EngineSpec, seed: int) -> None:
        """Create an empty engine at time 0."""
        self.spec = spec
        self.clock = 0.0  # end of the last step
        self.step_ends = inf  # of the running step; infinite if none runs
        self.waiting: deque[SimulatedRequest] = deque()
        self.running: dict[SimulatedRequest, None] = {}  # in order of admission
        self.preemptions = 0
        self.rejections = 0
        self.steps = 0
        self.busy_s = 0.0
        self._random = Random(f"engine:{seed}")  # noqa: S311  # not for security: repeatable
        self._handing_over: deque[SimulatedRequest] = deque()  # requests in the API server, in order of `ready`
        self._server_free = 0.0
        self._prefilling: dict[SimulatedRequest, int] = {}  # tokens of each in this step
        self._decoding = 0
        self._context = 0  # tokens of all decoding sequences
        self._needs_block = [0] * spec.block_size  # sequences that need a block, by step number modulo block size
        self._free_blocks = spec.kv_blocks
        self._will_end: list[tuple[int, int, int, SimulatedRequest]] = []
        self._order = 0

    @property
    def used_blocks(self) -> int:
        """KV blocks in use."""
        return self.spec.kv_blocks - self._free_blocks

    @property
    def idle(self) -> bool:
        """True if there is no request in the engine or API server."""
        return not (self.running or self.waiting or self._handing_over)

    @property
    def queued(self) -> int:
        """Number of requests not yet scheduled."""
        return len(self.waiting) + len(self._handing_over)

    def arrive(self, sequence: SimulatedRequest) -> None:
        """Take a request that arrives at `sequence.arrived`; it may be `rejected` at once.

        Raises ValueError for a request larger than the KV cache.
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
        """Start a step at `clock`, or at the next `ready` if later; return False if there is no request at all."""
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

    def skip_quiet_steps(self, until: float) -> None:
        """End the running step and begin the next, as long as steps end before `until` and only decode.

        The same as `end_step` and `begin_step`, at a fraction of their time. Call it when a step runs.
        """
        spec, needs, free = self.spec, self._needs_block, self._free_blocks
        full = len(self.running) >= spec.max_num_seqs
        if self._prefilling or (self.waiting and not full):
            return
        first_ready = inf if full or not self._handing_over else self._handing_over[0].ready
        first_end, decoded = self._will_end[0][0], self._decoding
        delivery_s, noise = spec.output_token_s * decoded, spec.noise
        mean = spec.step_s + spec.sequence_s * len(self.running) + spec.context_token_s * self._context
        growth = spec.context_token_s * decoded
        steps, clock, ends, server_free = self.steps, self.clock, self.step_ends, self._server_free
        while steps < first_end and ends < until and ends < first_ready:
            needed = needs[(steps + 1) % spec.block_size]
            if needed > free:
                break
            free -= needed
            clock = ends
            server_free = max(server_free, clock) + delivery_s
            mean += growth
            duration = mean * self._random.lognormvariate(-noise * noise / 2, noise) if noise else mean
            self.busy_s += duration
            ends = clock + duration
            steps += 1
        self._context += decoded * (steps - self.steps)
        self.steps, self.clock, self.step_ends, self._server_free = steps, clock, ends, server_free
        self._free_blocks = free

    def end_step(self) -> StepEnd:
        """Finish the running step and move the clock to its end."""
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
        """Return the tokens that `sequence` produced in steps that have ended."""
        since = sequence.decoding_since
        return sequence.generated + (self._steps_ended - since if since >= 0 else 0)

    def abort(self, sequence: SimulatedRequest, at: float = inf) -> bool:
        """Drop a request whose client disconnected at `at`; return False if it had ended before."""
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
        """Drop a request from the API server; those behind it move up if its work had not begun."""
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
        """Return the duration of the next step in seconds, with `prefill` prompt tokens."""
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
        """Give a block to each sequence that needs one in the next step; return whether any was preempted."""
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
        """Give the step's remaining token budget to prompts; return the tokens given."""
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
        """Start decoding after `step`, which finished the prompt and produced a token."""
        context = sequence.computed
        sequence.generated += 1
        sequence.decoding_since = step
        self._decoding += 1
        self._context += context
        # Step `step + j` stores token number context + j - 1 (from 0); a multiple of the block size begins a block.
        self._needs_block[(step + 1 - context) % self.spec.block_size] += 1
        self._order += 1
        ends = step + sequence.output_tokens - sequence.generated
        heapq.heappush(self._will_end, (ends, self._order, sequence.epoch, sequence))

    def _take_ended(self, step: int) -> list[SimulatedRequest]:
        ended = []
        heap = self._will_end
        while heap and heap[0][0] <= step:
            _, _, epoch, sequence = heapq.heappop(heap)
            if sequence.epoch == epoch:  # else it was preempted or dropped in between
                self._release(sequence, allocated_step=step)
                sequence.generated = sequence.output_tokens
                ended.append(sequence)
        return ended

    def _release(self, sequence: SimulatedRequest, *, allocated_step: int) -> None:
        """Remove it from the batch and free its blocks, allocated up to and including `allocated_step`."""
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
