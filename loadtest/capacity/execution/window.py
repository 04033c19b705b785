"""The requests of one stage in due order, collected from the processes that send them."""

from __future__ import annotations

from itertools import repeat
from typing import TYPE_CHECKING, Any

from loadtest.capacity.stage import StageRequest
from loadtest.client.request_record import Outcome
from loadtest.results.csv_rows import COLUMNS
from loadtest.results.failure_texts import FailureTexts
from loadtest.sending.arrivals import schedule

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence

    from loadtest.results.csv_rows import RowSink
    from loadtest.sending.pacing import LoadSpec
    from loadtest.workload import Workload

_PLACE = {name: place for place, name in enumerate(COLUMNS)}


def due_times(load: LoadSpec) -> Iterator[float]:
    """Yield without end the due times of a load's requests, in seconds since its start."""
    assert load.pacing.rate is not None  # noqa: S101  # only an open loop has due times
    return schedule("poisson", rate=load.pacing.rate, seed=load.seed)


class MeasuredWindow:
    """Takes rows in any order; returns requests up to the first one that has not ended."""

    def __init__(self, load: LoadSpec, workload: Workload, rows: RowSink | None) -> None:
        """`rows` receives every row too."""
        self._load = load
        self._workload = workload
        self._sink = rows
        self._due = repeat(0.0) if load.users else due_times(load)
        self._waiting: dict[int, Sequence[Any]] = {}
        self._complete: list[StageRequest] = []
        self._cut = False
        self.delays: list[float] = []  # of the measured requests: due to sent, seconds
        self.failures = FailureTexts()  # of the measured requests
        self.last_number = load.first_request  # highest request number seen

    def add(self, process: str, rows: Iterable[Sequence[Any]]) -> None:
        """Add rows of one process."""
        rows = list(rows)
        if self._sink is not None:
            self._sink.add(process, rows)
        for row in rows:
            number = int(row[_PLACE["index"]])
            self._waiting[number] = row
            self.last_number = max(self.last_number, number)
        self._extend()

    def _extend(self) -> None:
        while not self._cut:
            number = self._load.first_request + len(self._complete)
            row = self._waiting.pop(number, None)
            if row is None:
                return
            if row[_PLACE["outcome"]] == Outcome.CANCELLED:
                self._cut = True  # the stage ended while this one was in flight
                return
            self._complete.append(self._request(number, row, next(self._due)))

    def _request(self, number: int, row: Sequence[Any], due_s: float) -> StageRequest:
        late = (row[_PLACE["schedule_delay_ms"]] or 0.0) / 1000
        ok = row[_PLACE["outcome"]] == Outcome.OK
        counted = ok and row[_PLACE["output_tokens"]] is not None
        if number >= self._load.first_measured:
            self.delays.append(late)
            if not ok:
                self.failures.add(str(row[_PLACE["outcome"]]), str(row[_PLACE["detail"]]))

        def seconds(name: str, offset: float = 0.0) -> float | None:
            value = row[_PLACE[name]]
            return None if value is None or not ok else value / 1000 + offset

        return StageRequest(
            due_s=due_s,
            good=bool(row[_PLACE["good"]]),
            ttft_s=seconds("ttft_ms", late),
            tpot_s=seconds("tpot_ms"),
            e2e_s=seconds("e2e_ms", late),
            prompt_tokens=row[_PLACE["prompt_tokens"]] or row[_PLACE["expected_prompt_tokens"]] or 0,
            output_tokens=row[_PLACE["output_tokens"]] if counted else self._workload.request(number).output_tokens,
            rejected=row[_PLACE["outcome"]] == Outcome.REJECTED,
            uncounted=ok and not counted,
            ended_s=late + (row[_PLACE["duration_ms"]] or 0.0) / 1000,
        )

    @property
    def warmup(self) -> tuple[StageRequest, ...]:
        """Requests due before the measured window."""
        return tuple(self._complete[: self._load.pacing.warmup_requests])

    @property
    def measured(self) -> tuple[StageRequest, ...]:
        """Requests of the measured window."""
        return tuple(self._complete[self._load.pacing.warmup_requests :])
