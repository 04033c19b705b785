from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from loadtest.sending.request_sender import RequestSender
from loadtest.workload import Workload
from tests.rig.fixed_answers import Answer, serving
from tests.rig.loadtest_objects import options

if TYPE_CHECKING:
    from collections.abc import Mapping

    from loadtest.client.request_record import RequestRecord

CHAT = "/v1/chat/completions"
GOOD = Answer(
    b'{"choices":[{"message":{"content":"a"},"finish_reason":"stop"}],"usage":{"prompt_tokens":1,"completion_tokens":1}}'
)


def send(answers: Mapping[str, Answer], times: int = 2) -> tuple[list[RequestRecord], list[str]]:
    """Send chat requests one after the other; returns their records, and the paths that the server saw."""
    records: list[RequestRecord] = []
    with serving(answers) as server:
        asked = options("--endpoint", "chat", "--no-stream", "--api-key", "key", host=server.url)
        sender = RequestSender(asked, Workload.load(asked.workload), records.append, first_measured=0, keep_rows=False)
        sender.set_numbers(iter(range(times)), "1")
        user = sender.add_user()
        while sender.send_next(user):
            pass
        assert sender.drain()
        sender.close()
        user.connection.close()
    return records, [path for path, _ in server.seen]


@pytest.mark.parametrize("status", [307, 308])
def test_moved_endpoint_is_found_once(status: int) -> None:
    moved = Answer(status=status, headers={"location": CHAT + "/"})
    records, paths = send({CHAT: moved, CHAT + "/": GOOD})
    assert [record.outcome for record in records] == ["ok", "ok"]
    assert paths == [CHAT, CHAT + "/", CHAT + "/"]


def test_chain_of_redirects_is_followed() -> None:
    moved = [Answer(status=308, headers={"location": path}) for path in ("/a", "/b")]
    records, paths = send({CHAT: moved[0], "/a": moved[1], "/b": GOOD})
    assert [record.outcome for record in records] == ["ok", "ok"]
    assert paths == [CHAT, "/a", "/b", "/b"]


@pytest.mark.parametrize(
    ("status", "location"),
    [(307, "https://other.test/v1/chat/completions"), (307, CHAT), (302, CHAT + "/")],
    ids=["another server", "a loop", "a redirect to GET"],
)
def test_other_redirects_are_failures(status: int, location: str) -> None:
    records, paths = send({CHAT: Answer(status=status, headers={"location": location}), CHAT + "/": GOOD}, 1)
    assert [(record.outcome, record.status) for record in records] == [("error", status)]
    assert set(paths) == {CHAT}
