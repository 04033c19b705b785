"""Recorded traffic from a trace file: arrival times and lengths of requests."""

from array import array
from collections.abc import Iterator, Sequence
from datetime import datetime
from itertools import chain
from pathlib import Path
from typing import Literal, Self

from loadtest.input_error import InputError
from loadtest.workload.draws import Draws
from loadtest.workload.trace_blocks import Blocks
from loadtest.workload.trace_rows import OPTION, Clock, Columns, read_rows

TraceUnit = Literal["auto", "s", "ms"]
TRACE_UNITS = ("auto", "s", "ms")

_UNITS = {"s": 1.0, "ms": 1e-3}
# Unix time tells its unit: this much since 1970, in each unit, is a time between 1973 and 5138.
_UNIX = ((1e17, 1e-9, "ns"), (1e14, 1e-6, "us"), (1e11, 1e-3, "ms"), (1e8, 1.0, "s"))
# At this distance between requests, on average over a whole trace, seconds may as well be milliseconds.
_SLOW = 10.0


class Trace:
    """The requests of a trace file, 16 bytes each, and 4 bytes for each block of a prompt.

    Formats: Azure LLM inference traces, BurstGPT, Mooncake and Qwen (`trace_rows`). `notes` are for the reader of the
    results.
    """

    def __init__(self, path: Path, times: "array[float]", prompts: "array[int]", outputs: "array[int]") -> None:
        """Use `Trace.read`."""
        self.path = path
        self.blocks: Blocks | None = None
        self.notes: tuple[str, ...] = ()
        self._times = times
        self._prompts = prompts
        self._outputs = outputs

    @classmethod
    def read(cls, path: Path, unit: TraceUnit = "auto") -> Self:
        """Read the file line by line; `unit` is that of time stamps that are numbers.

        A row of 0 prompt or output tokens is no request: it is left out, and counted. Raises InputError, which names
        the line, for a line that is no row, and for numbers that may be seconds or milliseconds.
        """
        times, prompts, outputs, blocks = array("d"), array("I"), array("I"), Blocks()
        clock = Clock()
        empty = 0
        try:
            with path.open(encoding="utf-8-sig", newline="") as file:
                columns, rows = read_rows(file, path, clock)
                for row in rows:
                    if not (row.prompt and row.output):
                        empty += 1
                        continue
                    times.append(row.time)
                    prompts.append(row.prompt)
                    outputs.append(row.output)
                    if columns.json:
                        blocks.add(row.hash_ids, row.prompt)
        except OSError as error:
            raise InputError(OPTION, f"cannot read {path}: {error.strerror}", "give a CSV or JSONL file") from None
        if not times:
            raise InputError(OPTION, f"{path} holds no requests", "give a file with at least one line of data")
        if unit == "auto" or isinstance(clock.first, datetime):
            seconds, inferred = _unit(clock, times, columns, blocks, path)
        else:
            seconds, inferred = _UNITS[unit], ""
        start = times[0]
        for place, time in enumerate(times):
            times[place] = (time - start) * seconds
        trace = cls(path, times, prompts, outputs)
        trace.blocks = blocks or None
        trace.notes = tuple(_notes(empty, inferred))
        return trace

    def __len__(self) -> int:
        """Return the number of requests."""
        return len(self._times)

    @property
    def times(self) -> Sequence[float]:
        """Arrival of each request in seconds since the first, ascending."""
        return self._times

    def shape(self, index: int, draws: Draws | None = None) -> tuple[int, int]:  # noqa: ARG002  # not random
        """Return (prompt tokens, output tokens) of request `index`; requests repeat after the last."""
        row = index % len(self._prompts)
        return self._prompts[row], self._outputs[row]

    @property
    def shared_tokens(self) -> int:
        """The most tokens a request, on average, that its blocks have in common with earlier requests."""
        return self.blocks.shared_tokens(self._prompts) if self.blocks else 0

    def count_prompts_below(self, tokens: int) -> int:
        """Return the number of prompts shorter than `tokens`."""
        return sum(1 for prompt in self._prompts if prompt < tokens)

    def check_fits(self, max_model_len: int | None) -> None:
        """Raise InputError if a prompt and its output exceed `max_model_len` tokens; None checks nothing."""
        if max_model_len is None:
            return
        too_long = longest = 0
        for prompt, output in zip(self._prompts, self._outputs, strict=True):
            too_long += prompt + output > max_model_len
            longest = max(longest, prompt + output)
        if too_long:
            raise InputError(
                OPTION,
                f"{too_long} of {len(self)} requests of {self.path} need more than the {max_model_len} tokens"
                f" that the server takes (up to {longest})",
                "raise MAX_MODEL_LEN or take those lines out",
            )


def _notes(empty: int, unit: str) -> Iterator[str]:
    if empty:
        yield f"{empty} rows of the trace have 0 tokens; left out"
    if unit not in {"", "s"}:
        yield f"the trace's time stamps were taken for {unit}"


def _unit(clock: Clock, times: Sequence[float], columns: Columns, blocks: Blocks, path: Path) -> tuple[float, str]:
    """Return the unit of time stamps in seconds, and its name. Raises InputError if it is not clear."""
    if isinstance(clock.first, datetime):
        return 1.0, "s"
    for least, seconds, name in _UNIX:
        if abs(clock.first or 0.0) >= least:
            return seconds, name
    known = columns.unit or ({512: "ms", 16: "s"}[blocks.size] if blocks else "")
    gap = times[-1] / (len(times) - 1) if len(times) > 1 else 0.0
    if not known and gap >= _SLOW:
        if not (columns.json and all(time.is_integer() for time in chain([clock.first or 0.0], times))):
            raise InputError(
                OPTION,
                f"{path}: {columns.names[0]} may be in seconds or milliseconds: one every {gap:.3g}",
                "give --trace-unit s or ms",
            )
        known = "ms"  # Mooncake's format without blocks
    return _UNITS[known or "s"], known or "s"
