import json

import pytest

from loadtest.workload.endpoints import BodyTemplate, Endpoint


@pytest.mark.parametrize("endpoint", ["chat", "completions"])
@pytest.mark.parametrize("stream", [True, False])
@pytest.mark.parametrize("ignore_eos", [True, False])
def test_body_has_the_endpoints_fields(endpoint: Endpoint, stream: bool, ignore_eos: bool) -> None:
    template = BodyTemplate(endpoint, 'Qwen/"Qwen" é', stream=stream, ignore_eos=ignore_eos, extra={})
    expected = {"model": 'Qwen/"Qwen" é', "temperature": 0, "stream": stream, "max_tokens": 7}
    if stream:
        expected["stream_options"] = {"include_usage": True}
    if ignore_eos:
        expected["ignore_eos"] = True
    if endpoint == "chat":
        expected["messages"] = [{"role": "user", "content": 'say "hi"\n'}]
    else:
        expected["prompt"] = 'say "hi"\n'
    assert json.loads(template.body(rb"say \"hi\"\n", 7)) == expected
