"""One request to the fault engine through the load test's client."""

from __future__ import annotations

import itertools
import json
from typing import TYPE_CHECKING

from loadtest.client.connection import Capture, Connection
from loadtest.client.outcome import judge
from loadtest.client.target import Target, build_request
from loadtest.workload import RequestSpec

if TYPE_CHECKING:
    from loadtest.client.request_record import RequestRecord
    from loadtest.workload.endpoints import Endpoint

_numbers = itertools.count()


def make_spec(endpoint: Endpoint = "chat", *, tokens: int = 6, stream: bool = True) -> RequestSpec:
    prompt = f"question number {next(_numbers)}"
    fields: dict[str, object] = {"model": "engine", "max_tokens": tokens, "stream": stream}
    if stream:
        fields["stream_options"] = {"include_usage": True}
    if endpoint == "chat":
        fields["messages"] = [{"role": "user", "content": prompt}]
    else:
        fields["prompt"] = prompt
    return RequestSpec(0, endpoint, json.dumps(fields).encode(), None, tokens)


def target(url: str, fault: str = "") -> Target:
    return Target.parse(f"{url}/faults/{fault}/v1" if fault else url)


def ask(
    connection: Connection,
    where: Target,
    *,
    endpoint: Endpoint = "chat",
    tokens: int = 6,
    stream: bool = True,
    timeout_s: float = 5.0,
) -> RequestRecord:
    spec = make_spec(endpoint, tokens=tokens, stream=stream)
    capture = Capture()
    connection.exchange(build_request(where.head(endpoint), spec.body), timeout_s, capture)
    return judge(spec, capture, stream=stream)


def ask_once(url: str, fault: str = "", **options: object) -> RequestRecord:
    where = target(url, fault)
    connection = Connection(where)
    try:
        return ask(connection, where, **options)  # type: ignore[arg-type]  # passed through
    finally:
        connection.close()
