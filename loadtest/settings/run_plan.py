"""Plan of a run: model, seed and shards. Made once by the master, sent to every worker."""

from __future__ import annotations

import dataclasses
import json
import time
import uuid
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Self

import gevent

from loadtest.client.access import PageError, read_page
from loadtest.input_error import InputError
from loadtest.settings.run_options import RunOptions, new_seed
from loadtest.workload import Workload

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from loadtest.client.access import Page
    from loadtest.client.target import Target

_ASK_TIMEOUT_S = 10


@dataclass(frozen=True, slots=True)
class RunPlan:
    """Decisions of the master for all processes.

    `shards` is the number of each worker, by Locust's client id; a process without a master is number 0 of 1.
    `max_model_len` is in tokens, None if unknown; `started` is Unix time.
    """

    run_id: str
    seed: int
    model: str
    max_model_len: int | None
    started: float
    shards: dict[str, int] = field(default_factory=dict)
    users: int = 0

    @classmethod
    def make(cls, options: RunOptions, *, seed_given: bool) -> Self:
        """Request the server's models and decide what the options leave open: model, seed, run id.

        Raises InputError if the server does not answer or does not serve the model.
        """
        model, max_model_len = find_model(options.target, options.wanted_model)
        return cls(
            run_id=uuid.uuid4().hex[:12],
            seed=options.workload.seed if seed_given else new_seed(),
            model=model,
            max_model_len=max_model_len,
            started=time.time(),
        )

    def deal(self, workers: Sequence[str], users: int) -> Self:
        """Return this plan with a shard for each of `workers`, which have `users` together."""
        return dataclasses.replace(self, shards={worker: number for number, worker in enumerate(workers)}, users=users)

    @property
    def users_a_worker(self) -> int:
        """The most users that Locust gives to one worker."""
        return -(-self.users // max(1, len(self.shards)))

    def load_workload(self, options: RunOptions) -> Workload:
        """Prepare the requests of this run. Raises InputError.

        Reading a tokenizer and a dataset is slow, so it runs in a thread: heartbeats to Locust's master continue.
        """
        workload_options = dataclasses.replace(
            options.workload, seed=self.seed, model=self.model, max_model_len=self.max_model_len
        )

        def load() -> Workload | InputError:
            try:
                return Workload.load(workload_options)
            except InputError as error:
                return error  # raised, gevent's pool would print it as a crash

        loaded: Workload | InputError = gevent.get_hub().threadpool.apply(load)
        if isinstance(loaded, InputError):
            raise loaded
        return loaded

    def to_wire(self) -> dict[str, Any]:
        """Return a form that msgpack can carry; `from_wire` reads it."""
        return dataclasses.asdict(self)

    @classmethod
    def from_wire(cls, wire: Mapping[str, Any]) -> Self:
        """Read the form of `to_wire`."""
        return cls(**wire)


def find_model(target: Target, wanted: str) -> tuple[str, int | None]:
    """Return the model's name and its longest sequence in tokens, None if the server does not report it.

    If `wanted` is empty, the model is the first that the server lists. Raises InputError.
    """
    path = f"{target.base}/models"
    url = target.url(path)
    try:
        page = read_page(target, path, _ASK_TIMEOUT_S)
    except PageError as error:
        if wanted and not error.unreachable:
            return wanted, None
        private = "CERTIFICATE_VERIFY_FAILED" in str(error)
        fix = "give --ca-file with its authority" if private else "start the server or correct it"
        raise InputError("--host", f"{url} does not answer: {error}", fix) from None
    # A key may well be for the model and not for the list: without one, the name is all that is missing.
    if page.status == 401 or (page.status == 403 and not wanted):
        raise InputError("--api-key", f"{url} refuses it (HTTP {page.status})", "set VLLM_API_KEY")
    models = _listed_models(page)
    if wanted and not models:
        return wanted, None  # not every OpenAI-compatible server lists its models
    if models is None:
        text = " ".join(page.text.split())[:80]
        raise InputError(
            "--host",
            f"{url} does not list models (HTTP {page.status}: {text})",
            "give --model, or correct it",
        )
    if not models:
        raise InputError("--host", f"{url} lists no model", "wait until the server has loaded one")
    model = wanted or next(iter(models))
    if model not in models:
        raise InputError("--model", f"{model!r} is not served", f"give one of: {', '.join(models)}")
    length = models[model]
    return model, length if isinstance(length, int) else None


def _listed_models(page: Page) -> dict[str, Any] | None:
    """Return the listed names and their longest sequence; None if the page is no list of models."""
    if not page.ok:
        return None
    try:
        answer = json.loads(page.body)
        listed = answer if isinstance(answer, list) else answer["data"]
        return {str(model["id"]): model.get("max_model_len") for model in listed}
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError):
        return None
