"""The smoke job's checks of a model that generates no text."""

from __future__ import annotations

import http.server
import json
import threading
from importlib.machinery import SourceFileLoader
from importlib.util import module_from_spec, spec_from_loader
from pathlib import Path
from typing import TYPE_CHECKING, Any

import openai
import pytest

if TYPE_CHECKING:
    from collections.abc import Iterator

PROGRAM = Path(__file__).parents[3] / "scripts" / "smoke"


class Ranker(http.server.ThreadingHTTPServer):
    """An API server as vLLM has for a reranker: /pooling alone, with scores by `score`."""

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.scores: list[Any] = [[0.25], [0.5]]
        self.any_name = False


class Handler(http.server.BaseHTTPRequestHandler):
    server: Ranker

    def do_POST(self) -> None:
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        known = body["model"] == "m" or self.server.any_name
        answer = {"data": [{"data": self.server.scores[at]} for at in range(len(body.get("input", ())))]}
        content = json.dumps(answer).encode()
        self.send_response(200 if self.path == "/pooling" and known else 404)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        self.wfile.write(content)

    def log_message(self, *_: object) -> None:
        pass


@pytest.fixture(scope="module")
def smoke() -> Any:
    loader = SourceFileLoader("smoke_program", str(PROGRAM))
    spec = spec_from_loader(loader.name, loader)
    assert spec is not None
    module = module_from_spec(spec)
    loader.exec_module(module)
    return module


@pytest.fixture
def ranker() -> Iterator[Ranker]:
    server = Ranker()
    threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True).start()
    yield server
    server.shutdown()
    server.server_close()


def checks_of(smoke: Any, ranker: Ranker) -> Any:
    url = f"http://127.0.0.1:{ranker.server_port}/v1"
    return smoke.Smoke(openai.OpenAI(base_url=url, api_key="none", max_retries=0), "m")


def test_ranker_is_asked_for_scores(smoke: Any, ranker: Ranker) -> None:
    checks = checks_of(smoke, ranker)
    assert not checks.generates()
    assert checks.vectors() == "2 texts, 1 numbers for the first"
    assert checks.wrong_model_for_vectors() == "refused with 404"


@pytest.mark.parametrize(
    ("scores", "words"),
    [([[0.5], [0.5]], "the same answer"), ([[], [0.5]], "answers to 2"), ([[float("nan")], [0.5]], "not finite")],
)
def test_wrong_scores_fail(smoke: Any, ranker: Ranker, scores: list[Any], words: str) -> None:
    ranker.scores = scores
    with pytest.raises(smoke.CheckError, match=words):
        checks_of(smoke, ranker).vectors()


def test_wrong_name_must_be_refused(smoke: Any, ranker: Ranker) -> None:
    ranker.any_name = True
    with pytest.raises(smoke.CheckError, match="not served was accepted"):
        checks_of(smoke, ranker).wrong_model_for_vectors()
