from __future__ import annotations

import json

import pytest

from loadtest.client.request_record import Outcome
from loadtest.results.failure_texts import OTHERS, FailureTexts
from tests.rig.loadtest_objects import record, results


def counted(*texts: str) -> FailureTexts:
    found = FailureTexts()
    for text in texts:
        found.add("error", text)
    return found


@pytest.mark.parametrize(
    ("one", "another"),
    [
        ("HTTP 400: length is 8192, requested 8301 tokens", "HTTP 400: length is 8192, requested 8300 tokens"),
        ("no end within 0.5 s", "no end within 12 s"),
        ("request chatcmpl-9f8e7dA0bc12 failed", "request chatcmpl-0a1b2cXYz999 failed"),
        ("id 9f8e7d6c-1234-4cde-8abc-001122334455 is unknown", "id 01234567-89ab-4cde-8abc-ffffffffffff is unknown"),
    ],
)
def test_texts_that_differ_in_numbers_are_one(one: str, another: str) -> None:
    (kind,) = counted(one, another, another).most_frequent()
    assert (kind.text, kind.count) == (one, 3)


@pytest.mark.parametrize(
    ("one", "another"),
    [
        ("HTTP 400: bad", "HTTP 413: bad"),
        ("model llama3 is not there", "model qwen2 is not there"),
        ("closed", "reset"),
    ],
)
def test_other_causes_stay_apart(one: str, another: str) -> None:
    assert [kind.text for kind in counted(one, another, another).most_frequent()] == [another, one]


def test_thousands_of_texts_take_little_memory() -> None:
    words = [f"{first}{second}{third}" for first in "abcdefghij" for second in "klmnopqrst" for third in "uvwxyz"]
    found = counted(*[text for word in words for text in (f"cause {word}", "the same")])
    assert len(found.to_wire()) <= 101
    assert (found.most_frequent()[0].text, found.most_frequent()[0].count) == ("the same", 600)
    assert found.most_frequent(200)[-1].text == OTHERS
    assert sum(kind.count for kind in found.most_frequent(200)) == 1200


def test_failures_merge_over_the_wire() -> None:
    parts = [counted("HTTP 500: a 1", "HTTP 500: b"), counted("HTTP 500: a 2", "HTTP 500: a 3")]
    merged = FailureTexts()
    for part in parts:
        merged.merge(FailureTexts.from_wire(json.loads(json.dumps(part.to_wire()))))
    assert [(kind.text, kind.count) for kind in merged.most_frequent()] == [("HTTP 500: a 1", 3), ("HTTP 500: b", 1)]


def test_totals_keep_failures_but_no_cancelled_ones() -> None:
    run = results(
        record(),
        record(Outcome.CANCELLED, detail="the end"),
        *[record(Outcome.ERROR, detail=f"HTTP 400: {number}") for number in range(3)],
        record(Outcome.TIMEOUT, endpoint="completions", detail="no end within 5 s"),
    )
    found = run.measured.combined().failures.most_frequent()
    assert [(kind.outcome, kind.text, kind.count) for kind in found] == [
        ("error", "HTTP 400: 0", 3),
        ("timeout", "no end within 5 s", 1),
    ]
