from __future__ import annotations

import pytest

from loadtest.client.target import Target
from loadtest.input_error import InputError
from loadtest.settings.run_plan import find_model
from tests.rig.fixed_answers import Answer, serving

LIST = Answer(b'{"object":"list","data":[{"id":"m","max_model_len":99},{"id":"n"}]}')


@pytest.mark.parametrize(
    "answer",
    [
        Answer(status=404),
        Answer(b'{"detail":"no"}', 405),
        Answer(b'{"error":"no such route"}', 400),
        Answer(b'{"error":"scope"}', 403),
        Answer(b"<html>oops</html>", 502),
        Answer(b"<html>hi</html>"),
        Answer(b'{"data":[]}'),
        Answer(b'{"data":7}'),
        Answer(b"[" * 100_000),
        Answer(status=302, headers={"location": "https://login.test/"}),
        Answer(b"x", headers={"content-length": "9"}),
    ],
)
def test_given_model_needs_no_list(answer: Answer) -> None:
    with serving({"/v1/models": answer}) as server:
        assert find_model(Target.parse(server.url), "mine") == ("mine", None)
        with pytest.raises(InputError) as caught:
            find_model(Target.parse(server.url), "")
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("base", "path"),
    [
        ("", "/v1/models"),
        ("/api/v3", "/api/v3/models"),
        ("/v1beta/openai/", "/v1beta/openai/models"),
        ("/openai/v1?api-version=1", "/openai/v1/models?api-version=1"),
    ],
)
def test_list_is_beside_the_other_endpoints(base: str, path: str) -> None:
    with serving({path: LIST}) as server:
        assert find_model(Target.parse(server.url + base), "") == ("m", 99)
        assert find_model(Target.parse(server.url + base), "n") == ("n", None)


def test_list_may_be_without_its_object() -> None:
    with serving({"/v1/models": Answer(b'[{"id":"together"}]')}) as server:
        assert find_model(Target.parse(server.url), "") == ("together", None)


@pytest.mark.parametrize(
    ("answer", "text"),
    [
        (Answer(status=401), "--api-key: {}/v1/models refuses it"),
        (LIST, "--model: 'mine' is not served; give one of: m, n"),
        (
            Answer(status=308, headers={"location": "https://h.test/v1/models"}),
            "--host: {}/v1/models does not answer: it redirects to another server, https://h.test/v1/models",
        ),
    ],
)
def test_wrong_key_name_or_host_is_refused(answer: Answer, text: str) -> None:
    with serving({"/v1/models": answer}) as server:
        with pytest.raises(InputError) as caught:
            find_model(Target.parse(server.url), "mine")
        assert text.format(server.url) in str(caught.value)
