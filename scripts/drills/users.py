"""Users of the API during a drill: repeated short questions, and long streams."""

from __future__ import annotations

import json
import threading
import time
from collections import Counter
from dataclasses import dataclass
from typing import TYPE_CHECKING

import requests
from drills import direct_http

if TYPE_CHECKING:
    from drills.stack import RunningStack

PAUSE_S = 1.0
PATIENCE_S = 60.0


@dataclass(frozen=True)
class UserAnswer:
    """Outcome of one question; times are monotonic seconds."""

    asked_at: float
    ended_at: float
    outcome: str

    @property
    def ok(self) -> bool:
        """Return whether it was answered."""
        return self.outcome == "ok"


class Asker:
    """A user who repeatedly asks for four tokens, with a timeout of a minute."""

    def __init__(self, stack: RunningStack) -> None:
        """Start asking."""
        self._url = f"{stack.url('vllm', 8000)}/v1/completions"
        self._headers = stack.headers()
        self._model = stack.model()
        self._stop = threading.Event()
        self.answers: list[UserAnswer] = []
        self._thread = threading.Thread(target=self._ask, daemon=True)
        self._thread.start()

    def _ask(self) -> None:
        number = 0
        while not self._stop.is_set():
            asked_at = time.monotonic()
            # A new question each time, because of the prefix cache.
            number += 1
            body = {"model": self._model, "prompt": f"{number} {asked_at}: tell me", "max_tokens": 4}
            outcome = ask(self._url, body, self._headers, PATIENCE_S)
            self.answers.append(UserAnswer(asked_at, time.monotonic(), outcome))
            self._stop.wait(PAUSE_S)

    def stop(self) -> None:
        """Stop asking."""
        self._stop.set()

    def answered_since(self, begun: float, count: int = 1) -> float | None:
        """Time of the first of `count` answers in a row, all asked after `begun`; None for no such row."""
        row: list[UserAnswer] = []
        for answer in list(self.answers):
            if answer.asked_at < begun:
                continue
            row = [*row, answer] if answer.ok else []
            if len(row) == count:
                return row[0].ended_at
        return None

    def seen_since(self, begun: float) -> Counter[str]:
        """Outcomes of the questions that ended after `begun`."""
        return Counter(answer.outcome for answer in list(self.answers) if answer.ended_at >= begun)


def ask(url: str, body: dict[str, object], headers: dict[str, str], patience_s: float) -> str:
    """Ask one question; return "ok", or a short description of the failure."""
    try:
        answer = direct_http.post(url, json=body, headers=headers, timeout=patience_s)
    except requests.Timeout:
        return f"no answer in {patience_s:.0f} s"
    except requests.ConnectionError as error:
        return "connection refused" if "refused" in str(error) else "connection broken"
    if answer.status_code == 503 and answer.headers.get("Retry-After"):
        return "503 with Retry-After"
    return "ok" if answer.ok else f"HTTP {answer.status_code}"


class Streams:
    """Long streams, each read in a thread."""

    def __init__(self, stack: RunningStack, count: int, tokens: int) -> None:
        """Ask for `count` streams of `tokens` tokens."""
        self._url = f"{stack.url('vllm', 8000)}/v1/completions"
        self._headers = stack.headers()
        self._model = stack.model()
        self._tokens = tokens
        self.begun: set[int] = set()  # streams that have received a token
        self.ends: list[str] = []
        self._threads = [threading.Thread(target=self._read, args=(number,), daemon=True) for number in range(count)]
        for thread in self._threads:
            thread.start()

    def _read(self, number: int) -> None:
        body = {
            "model": self._model,
            "prompt": f"Story {number} of {time.monotonic()}:",
            "max_tokens": self._tokens,
            "ignore_eos": True,
            "stream": True,
        }
        end = "truncated"
        try:
            with direct_http.post(self._url, json=body, headers=self._headers, stream=True, timeout=300) as answer:
                if not answer.ok:
                    end = f"HTTP {answer.status_code}"
                    return
                finished = False
                for line in answer.iter_lines():
                    self.begun.add(number)
                    data = line.removeprefix(b"data: ")
                    if data == b"[DONE]":
                        end = "whole" if finished else "ended with no finish_reason"
                    elif data.startswith(b"{"):
                        finished |= json.loads(data)["choices"][0]["finish_reason"] == "length"
        except requests.RequestException:
            end = "truncated"
        finally:
            self.ends.append(end)

    def ended(self, within_s: float) -> Counter[str]:
        """Outcomes of the streams; "open" for those that last longer than `within_s`."""
        deadline = time.monotonic() + within_s
        for thread in self._threads:
            thread.join(max(0.0, deadline - time.monotonic()))
        ends = Counter(self.ends)
        if left := len(self._threads) - len(self.ends):
            ends["open"] = left
        return ends
