"""Our totals against the server's own counters."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from loadtest.client.request_record import Outcome

if TYPE_CHECKING:
    from collections.abc import Mapping

    from loadtest.results.server_counters import ServerCounters
    from loadtest.results.totals import RunTotals, Totals

TOLERANCE = 0.005
# A request that we cut off goes on until the engine notices: a few tokens are made and counted that we never see.
_UNSEEN_TOKENS = 16
# Prompts of requests that were cut off are as long as the others on average, a few of them longer.
_CUT_PROMPTS = 1.25
# Prefix-cache hits that no setting explains may be this share of the prompt tokens.
_WARM_SHARE = 0.01
# Blocks of the prefix cache are shared whole: at most one block of tokens above what prompts have in common.
_BLOCK_TOKENS = 16
# An engine that joins has asked itself for a token before, again if it was slow: so many short prompts at most.
_TRIES = 4
_TRY_PROMPT_TOKENS = 64
_CUT = (Outcome.TIMEOUT, Outcome.CANCELLED, Outcome.TRUNCATED, Outcome.ERROR)
_NEVER_ADMITTED = (Outcome.CONNECT, Outcome.REJECTED)


@dataclass(frozen=True, slots=True)
class Reconciliation:
    """What the server counted during the run beside what we did, and what does not fit."""

    server: ServerCounters
    prompt_tokens: int  # ours
    output_tokens: int  # ours
    requests: int  # ours, that the server can have admitted
    problems: tuple[str, ...]
    lost: bool = False  # a load-generating process died, and with it part of our counts

    @property
    def agrees(self) -> bool:
        """Whether everything fits."""
        return not self.problems and not self.lost

    @property
    def surplus(self) -> str:
        """What the server counted more than we, in words."""
        output = self.server.generation_tokens - self.output_tokens
        prompt = self.server.prompt_tokens - self.prompt_tokens
        return f"the server counted {output:.0f} output and {prompt:.0f} prompt tokens more than we"

    @property
    def cache_hit_ratio(self) -> float | None:
        """The share of the prompt tokens that the prefix cache had."""
        return self.server.cache_hits / self.server.cache_queries if self.server.cache_queries else None


def reconcile(
    server: ServerCounters, everything: RunTotals, common_tokens: Mapping[str, int], *, lost: bool = False
) -> Reconciliation:
    """Compare the server's counter differences with `everything` that we sent, warm-up included.

    `common_tokens` are those that all prompts of an endpoint begin with by intent. `lost`: a load-generating process
    died; the server then counted more than we know of, which is no disagreement (see `surplus`).
    """
    ours = everything.combined()
    sent = ours.outcomes.total()
    admitted = sent - sum(ours.outcomes[outcome.value] for outcome in _NEVER_ADMITTED)
    cut = sum(ours.outcomes[outcome.value] for outcome in _CUT)
    output = ours.output_tokens + ours.cut_deltas
    tries = server.joined * _TRIES
    most_output = float(output + cut * _UNSEEN_TOKENS + tries)
    most_prompt = ours.prompt_tokens + _cut_prompts(ours, cut) + tries * _TRY_PROMPT_TOKENS
    if lost:
        most_output, most_prompt = max(most_output, server.generation_tokens), max(most_prompt, server.prompt_tokens)
    if server.gone:
        # What those engines counted is lost, so no sum can agree: only that is said.
        problems = [
            f"engine {address} stopped or restarted during the run: what it counted is lost" for address in server.gone
        ]
        return Reconciliation(server, ours.prompt_tokens, output, admitted, tuple(problems), lost)
    problems = [
        *_restarted(server),
        *([] if lost else _foreign(server, admitted, tries)),
        *_tokens("output", server.generation_tokens, output, most_output),
        *_tokens("prompt", server.prompt_tokens, ours.prompt_tokens, most_prompt),
        *_warm(server, everything, common_tokens),
    ]
    return Reconciliation(server, ours.prompt_tokens, output, admitted, tuple(problems), lost)


def _cut_prompts(ours: Totals, cut: int) -> float:
    ended = ours.outcomes[Outcome.OK.value]
    return _CUT_PROMPTS * cut * ours.prompt_tokens / ended if ended else cut * float("inf") if cut else 0.0


def _restarted(server: ServerCounters) -> list[str]:
    """Counters that fell: of a server that does not say when its process started, else its engine would be `gone`."""
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


def _warm(server: ServerCounters, everything: RunTotals, common_tokens: Mapping[str, int]) -> list[str]:
    meant = sum(
        totals.outcomes.total() * (common_tokens.get(endpoint, 0) + _BLOCK_TOKENS)
        for endpoint, totals in everything.endpoints.items()
    )
    unmeant = server.cache_hits - meant
    if unmeant <= _WARM_SHARE * server.cache_queries:
        return []
    share = unmeant / server.cache_queries
    return [f"the prefix cache was warm: {share:.1%} of the prompt tokens were in it beyond what prompts share"]
