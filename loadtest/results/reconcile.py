"""Reconciliation: the client's totals against the server's own counters."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from loadtest.client.request_record import Outcome

if TYPE_CHECKING:
    from collections.abc import Mapping

    from loadtest.results.server_counters import ServerCounters
    from loadtest.results.totals import RunTotals, Totals

TOLERANCE = 0.005
# A request that we cut off continues until the engine notices: it generates and counts some tokens that we never see.
_UNSEEN_TOKENS = 16
# Prompts of cut-off requests have the mean length of the others; a few may be longer than that.
_CUT_PROMPTS = 1.25
# Tolerated share of prompt tokens with prefix-cache hits that no setting explains.
_WARM_SHARE = 0.01
# The prefix cache shares whole blocks: up to one block of tokens more than the prompts' common start.
_BLOCK_TOKENS = 16
# An engine that joins has requested a token of itself, and again if slow: at most this many short prompts.
_TRIES = 4
_TRY_PROMPT_TOKENS = 64
_CUT = (Outcome.TIMEOUT, Outcome.CANCELLED, Outcome.TRUNCATED, Outcome.ERROR, Outcome.FILTERED)
_NEVER_ADMITTED = (Outcome.CONNECT, Outcome.REJECTED)


@dataclass(frozen=True, slots=True)
class Reconciliation:
    """The server's counters over the run, the client's totals, and where they disagree."""

    server: ServerCounters
    prompt_tokens: int  # the client's
    output_tokens: int  # the client's
    requests: int  # the client's, that the server can have admitted
    problems: tuple[str, ...]
    lost: bool = False  # a load-generating process died, and with it a part of the client's totals

    @property
    def agrees(self) -> bool:
        """True if all counts agree."""
        return not self.problems and not self.lost

    @property
    def surplus(self) -> str:
        """Text: the tokens that the server counted and the client did not."""
        output = self.server.generation_tokens - self.output_tokens
        prompt = self.server.prompt_tokens - self.prompt_tokens
        return f"the server counted {output:.0f} output and {prompt:.0f} prompt tokens more than we"

    @property
    def cache_hit_ratio(self) -> float | None:
        """Share of the prompt tokens found in the prefix cache; None if none were looked up."""
        return self.server.cache_hits / self.server.cache_queries if self.server.cache_queries else None


def reconcile(
    server: ServerCounters, sent: RunTotals, common_tokens: Mapping[str, int], *, lost: bool = False
) -> Reconciliation:
    """Compare the server's counter differences with `sent`, the totals of all requests, warm-up included.

    `common_tokens`: tokens at the start of every prompt of an endpoint, by intent. `lost`: a load-generating process
    died; the server then counts more than the client, which is no disagreement (see `surplus`).
    """
    ours = sent.combined()
    admitted = ours.outcomes.total() - sum(ours.outcomes[outcome.value] for outcome in _NEVER_ADMITTED)
    cut = sum(ours.outcomes[outcome.value] for outcome in _CUT)
    output = ours.output_tokens + ours.cut_deltas
    tries = server.joined * _TRIES
    most_output = float(output + cut * _UNSEEN_TOKENS + tries)
    most_prompt = ours.prompt_tokens + _cut_prompts(ours, cut) + tries * _TRY_PROMPT_TOKENS
    if lost:
        most_output, most_prompt = max(most_output, server.generation_tokens), max(most_prompt, server.prompt_tokens)
    if server.gone:
        # The counters of those engines are lost, so no sum can agree: report only that.
        problems = [
            f"engine {address} stopped or restarted during the run: what it counted is lost" for address in server.gone
        ]
        return Reconciliation(server, ours.prompt_tokens, output, admitted, tuple(problems), lost)
    problems = [
        *_restarted(server),
        *([] if lost else _foreign(server, admitted, tries)),
        *_tokens("output", server.generation_tokens, output, most_output),
        *_tokens("prompt", server.prompt_tokens, ours.prompt_tokens, most_prompt),
        *_warm(server, sent, common_tokens),
    ]
    return Reconciliation(server, ours.prompt_tokens, output, admitted, tuple(problems), lost)


def _cut_prompts(ours: Totals, cut: int) -> float:
    ended = ours.outcomes[Outcome.OK.value]
    return _CUT_PROMPTS * cut * ours.prompt_tokens / ended if ended else cut * float("inf") if cut else 0.0


def _restarted(server: ServerCounters) -> list[str]:
    """Report counters that fell, of a server that does not report its start time; else its engine is `gone`."""
    return ["the server was restarted during the run"] if server.generation_tokens < 0 else []


def _foreign(server: ServerCounters, admitted: int, tries: int) -> list[str]:
    problems = []
    if server.busy:
        problems.append(f"somebody else used the server: {server.busy:.0f} requests ran before the first was sent")
    ended = sum(server.ended.values())
    if ended > admitted * (1 + TOLERANCE) + tries and ended - admitted >= 1:
        problems.append(f"somebody else used the server: it ended {ended:.0f} requests, we sent it {admitted}")
    return problems


def _tokens(kind: str, server: float, least: float, most: float) -> list[str]:
    if least * (1 - TOLERANCE) <= server <= most * (1 + TOLERANCE):
        return []
    share = abs(server - (least if server < least else most)) / max(server, 1)
    return [f"{kind} tokens disagree by {share:.1%}: the server counted {server:.0f}, we {least:.0f}"]


def _warm(server: ServerCounters, sent: RunTotals, common_tokens: Mapping[str, int]) -> list[str]:
    meant = sum(
        totals.outcomes.total() * (common_tokens.get(endpoint, 0) + _BLOCK_TOKENS)
        for endpoint, totals in sent.endpoints.items()
    )
    unmeant = server.cache_hits - meant
    if unmeant <= _WARM_SHARE * server.cache_queries:
        return []
    share = unmeant / server.cache_queries
    return [f"the prefix cache was warm: {share:.1%} of the prompt tokens were in it beyond what prompts share"]
