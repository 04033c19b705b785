"""Hostile input for the load test: server responses, files and options."""

from __future__ import annotations

import json
import math
import struct
from functools import cache
from typing import TYPE_CHECKING

from loadtest.client import messages
from loadtest.client.connection import Capture, End
from loadtest.client.outcome import judge
from loadtest.client.sse import read_events
from loadtest.client.target import Target
from loadtest.input_error import InputError
from loadtest.results.csv_rows import to_row
from loadtest.results.server_counters import parse_counters
from loadtest.results.totals import RunTotals
from loadtest.settings.run_options import Slo, read_options
from loadtest.workload import RequestSpec, WorkloadOptions
from loadtest.workload.body_fields import parse_body
from loadtest.workload.dataset import dataset_prompts
from loadtest.workload.draws import DrawSource
from loadtest.workload.endpoints import BodyTemplate
from loadtest.workload.lengths import Lengths
from loadtest.workload.request_bodies import read_request_bodies
from loadtest.workload.tokenizer import _read_template
from loadtest.workload.trace import Trace
from tests.rig.loadtest_objects import option_values
from tests.unit.hostile.hostile_input import Hostile, scratch_file, split

if TYPE_CHECKING:
    from collections.abc import Iterator

    from loadtest.client.http import Fragment

_START_NS = 1_700_000_000_000_000_000
_SPEC = RequestSpec(0, "chat", b"{}", None, 16)
_WHOLE_STREAM = (
    b'\xf0data: {"choices":[{"delta":{"role":"assistant","content":""}}]}\n\n'
    b'data: {"choices":[{"delta":{"content":"a"},"finish_reason":"stop"}]}\n\n'
    b'data: {"choices":[],"usage":{"prompt_tokens":3,"completion_tokens":2,'
    b'"prompt_tokens_details":{"cached_tokens":1}}}\n\ndata: [DONE]\n\n'
)
_HEAD = b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n\r\n"


def events_by_the_book(stream: bytes) -> Iterator[bytes]:
    """Yield the data of each event, by the HTML standard's section "Interpreting an event stream".

    Other than there, a last event without a blank line counts if it is `[DONE]`.
    """
    text = stream.removeprefix(b"\xef\xbb\xbf").replace(b"\r\n", b"\n").replace(b"\r", b"\n")
    *lines, rest = text.split(b"\n")
    data: list[bytes] = []
    for line in lines:
        field, colon, value = line.partition(b":")
        if not line:
            if data:
                yield b"\n".join(data)
            data = []
        elif field == b"data" and colon:
            data.append(value.removeprefix(b" "))
    if rest.startswith(b"data:"):
        data.append(rest[5:].removeprefix(b" "))
    if data and data[0].startswith(b"[DONE]"):
        yield b"\n".join(data)


def event_stream(data: bytes) -> None:
    """Events do not depend on how the network splits them, and are those of the standard."""
    stream, cuts = split(data)
    pieces: list[Fragment] = [(piece, number) for number, piece in enumerate(cuts)]
    found = [event for event, _ in read_events(iter(pieces))]
    assert found == list(events_by_the_book(stream))
    arrivals = [at for _, at in read_events(iter(pieces))]
    assert arrivals == sorted(arrivals)


def _judge(reads: list[bytes], end: End, *, stream: bool) -> None:
    capture = Capture(sent_ns=_START_NS, ended_ns=_START_NS + 1_000_000 * (len(reads) + 1), end=end)
    for number, read in enumerate(reads):
        at_ns = _START_NS + 1_000_000 * number
        capture.reads.append((read, struct.pack("@ll", *divmod(at_ns, 10**9)), at_ns + 50_000))
    record = judge(_SPEC, capture, stream=stream)
    for seconds in (record.ttft, record.tpot, record.e2e, record.duration, *record.gaps):
        assert seconds is None or (math.isfinite(seconds) and seconds >= 0), seconds
    for tokens in (record.prompt_tokens, record.output_tokens, record.cached_tokens):
        assert 0 <= tokens < 2**53, tokens
    # A record must be usable, whatever the server sent.
    totals = RunTotals(Slo(ttft=0.5, tpot=0.05))
    totals.add(record)
    json.dumps(to_row(record, measured=True, good=False)).encode()


def http_answer(data: bytes) -> None:
    """Any bytes of a server give one outcome, with finite times and counts."""
    ends = list(End)
    choice = data[0] if data else 0
    _, cuts = split(data[1:])
    _judge(cuts, ends[choice % len(ends)], stream=bool(choice & 128))


def stream_answer(data: bytes) -> None:
    """The same after a valid HTTP head, so that the bytes reach the event and JSON readers."""
    _, cuts = split(data)
    chunks = [b"%x\r\n%b\r\n" % (len(cut), cut) for cut in cuts if cut]
    _judge([_HEAD, *chunks, b"0\r\n\r\n"], End.COMPLETE, stream=True)


def json_answer(data: bytes) -> None:
    """A document is decoded, or refused with one of NOT_JSON."""
    try:
        messages.error_text(messages.decode(data))
    except messages.NOT_JSON:
        return


def server_address(data: bytes) -> None:
    """An address is refused in one line, or gives a request head without injected lines."""
    host, _, key = data.decode("utf-8", "replace").partition("\0")
    key, _, header = key.partition("\0")
    try:
        target = Target.parse(host, key, headers=[("X-One", header)] if header else [])
        head = target.head("chat")
    except InputError as error:
        assert "\n" not in str(error)
        return
    lines = 5 + any(name == "Authorization" for name, _ in target.headers) + bool(header)
    assert head.count(b"\r\n") == head.count(b"\n") == lines
    moved = target.redirect("/v1/models", key)
    assert moved is None or target.head("chat", moved).count(b"\n") == lines


def load_options(data: bytes) -> None:
    """Option values are refused with an InputError of one line, or give valid options."""
    # Without a search: Locust parses its time span, and importing Locust patches the process.
    values = {**option_values(), "find_capacity": False}
    texts = {name for name, value in values.items() if isinstance(value, str)}
    for line in data.decode("utf-8", "replace").split("\n"):
        name, _, value = line.partition("=")
        if name in texts:
            values[name] = value
    try:
        options = read_options(values, "http://localhost:8000")
    except InputError as error:
        assert "\n" not in str(error)
        return
    assert 0 <= options.workload.chat_share <= 1
    assert options.request_timeout > 0
    for length in (options.workload.prompt_tokens, options.workload.output_tokens):
        lengths(f"{length}".encode())


def lengths(data: bytes) -> None:
    """A length is refused, or every sample lies within its bounds."""
    try:
        parsed = Lengths.parse(data.decode("utf-8", "replace"), "--prompt-tokens")
        sampler = parsed.sampler()
    except InputError:
        return
    low, high = parsed.bounds
    for fraction in (1e-12, 0.25, 0.5, 0.75, 1 - 1e-12):
        assert 1 <= low <= sampler.sample(fraction) <= high


def trace_file(data: bytes) -> None:
    """A trace is refused in one line, or gives ordered requests with finite times and whole lengths."""
    try:
        trace = Trace.read(scratch_file("trace.csv", data))
    except InputError as error:
        assert "\n" not in str(error)
        return
    times = list(trace.times)
    assert len(trace) == len(times) > 0
    assert times == sorted(times)
    assert all(math.isfinite(time) for time in times)
    assert all(tokens >= 1 for tokens in trace.shape(len(times) + 1))
    if trace.blocks:
        assert 0 <= trace.shared_tokens <= max(trace.shape(row)[0] for row in range(len(times)))


@cache
def _draws() -> DrawSource:
    return DrawSource(1)


def dataset_file(data: bytes) -> None:
    """A dataset is refused in one line, or every prompt is the inside of a JSON string."""
    options = WorkloadOptions(model="m", endpoint="both", max_model_len=100_000)
    try:
        prompts = dataset_prompts(scratch_file("dataset.json", data), options, None)
    except InputError as error:
        assert "\n" not in str(error)
        return
    for index in range(prompts.distinct):
        text, _, output = prompts.prompt(index, "chat", _draws().at(index))
        assert isinstance(json.loads(b'"' + text + b'"'), str)
        assert output >= 1


def request_bodies(data: bytes) -> None:
    """A dataset of whole bodies is refused in one line, or each request is a JSON object with the run's model."""
    path = scratch_file("bodies.jsonl", data)
    try:
        bodies = read_request_bodies(path, WorkloadOptions(model="m", endpoint="both", dataset=path))
    except InputError as error:
        assert "\n" not in str(error)
        return
    for index in range(bodies.distinct):
        endpoint, body, output = bodies.request(index, _draws().at(index))
        assert json.loads(body)["model"] == "m"
        assert ("messages" if endpoint == "chat" else "prompt") in json.loads(body)
        assert output >= 1


def body_fields(data: bytes) -> None:
    """--body is refused in one line, or every body made with it is a JSON object."""
    try:
        extra = parse_body(data.decode("utf-8", "replace"))
    except InputError as error:
        assert "\n" not in str(error)
        return
    for endpoint in ("chat", "completions"):
        template = BodyTemplate(endpoint, "m", stream=True, ignore_eos=False, extra=extra)
        assert json.loads(template.body(b"text", 7))["model"] == "m"


def chat_template(data: bytes) -> None:
    """A tokenizer_config.json is refused with an InputError, or its template renders or refuses a message."""
    from jinja2 import TemplateError  # noqa: PLC0415  # only here

    file = scratch_file("tokenizer_config.json", data)
    try:
        template = _read_template(file.parent)
    except InputError:
        return
    # A template is a program: loops and products may run for long.
    if template is not None and not any(mark in data for mark in (b"range", b"*", b"for")):
        try:
            template.render("Hi")
        except TemplateError:
            return


def metrics_page(data: bytes) -> None:
    """A metrics page gives counters, None, or the ValueError that callers handle as None."""
    try:
        counters = parse_counters(data.decode("utf-8", "replace"))
    except ValueError:
        return
    assert counters is None or isinstance(counters.generation_tokens, float)


TARGETS: dict[str, Hostile] = {
    "event_stream": Hostile(
        event_stream,
        [
            b"\x03data: {}\n\ndata: a\r\ndata: b\r\n\r\n: c\rdata:d\r\r",
            b"\x01\r\n",
            b"\x02\xef\xbb\xbfdata: a\n\ndata: [DONE]",
        ],
    ),
    "http_answer": Hostile(
        http_answer,
        [
            b"\x80\xf0" + _HEAD + b'1d\r\ndata: {"choices":[{"text":"a"}]}\r\n\r\n0\r\n\r\n',
            b"\x00\x10HTTP/1.1 503 Service Unavailable\r\nRetry-After: 1\r\nContent-Length: 2\r\n\r\n{}",
            b"\x01\x05HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: 2\r\n\r\n{}",
        ],
    ),
    "stream_answer": Hostile(
        stream_answer,
        [
            _WHOLE_STREAM,
            b'\x08data: {"error":{"message":"m","code":500}}\n\n',
            b'\x00data: {"error":' + b"[" * 5000 + b"\n\n",
        ],
    ),
    "json_answer": Hostile(
        json_answer,
        [
            b'{"choices":[{"message":{"content":"x","tool_calls":[{}]},"finish_reason":"stop"}],"usage":null}',
            b'{"error":' + b"[" * 9000,
        ],
    ),
    "server_address": Hostile(
        server_address,
        [
            *(
                b"http://localhost:8000/v1\0key",
                b"https://[::1]:1/\0",
                b"http://[\0",
                b"http://\xc3\xa9/\0\xe2\x82\xac",
            ),
            *(b"http://u:p%0a@h/api/v3?key=1\0\0v", b"http://h\0//h/x?\0", b"http://[fe80::1%25eth0]/\0http://[::1"),
        ],
    ),
    "load_options": Hostile(
        load_options,
        [
            b"rate=2.5\narrival=poisson\nprompt_tokens=512:64\nmax_requests=10",
            b"slo_ttft_ms=1e3\nchat_share=50",
            b"seed=" + b"9" * 5000,
        ],
    ),
    "lengths": Hostile(lengths, [b"512", b"512:64", b"1e3:1e300", b"9" * 33]),
    "trace_file": Hostile(
        trace_file,
        [
            b"TIMESTAMP,ContextTokens,GeneratedTokens\n2023-11-16 18:17:03.9,374,44\n2023-11-16 18:17:04.0,396,109\n",
            b"TIMESTAMP,ContextTokens,GeneratedTokens\r\n0.5,1,2\r\n1e9,3,4\r\n",
            b"Timestamp,Model,Request tokens,Response tokens\n0,a,1,2\n1,b,0,4\n",
            b'{"timestamp": 0, "input_length": 655, "output_length": 52, "hash_ids": [0, "1"]}',
            b'{"timestamp": 1e3, "input_length": 1, "output_length": 1, "hash_ids": []}\n',
        ],
    ),
    "dataset_file": Hostile(
        dataset_file,
        [
            b'[{"conversations":[{"from":"human","value":"Hi \\ud800"},{"from":"gpt","value":"Hello"}]}]',
            b'{"conversations":[{"from":"user","value":"a"},{"from":"assistant","value":"b"}]}\n\n',
            b"[" * 100_000,
            b'{"a":' * 100_000,
        ],
    ),
    "request_bodies": Hostile(
        request_bodies,
        [
            b'{"custom_id":"1","url":"/v1/chat/completions","body":{"messages":[{"content":"\\ud800"}],"max_tokens":5}}\n',
            b'[{"prompt":"a","max_completion_tokens":1e3,"stream_options":5},{"prompt":[1,2]}]',
            b'{"messages":' + b"[" * 100_000,
        ],
    ),
    "body_fields": Hostile(
        body_fields,
        [b"max_completion_tokens=max_tokens\nuser=", b'{"stop":["a"],"max_tokens":null}', b"a=" + b"[" * 100_000],
    ),
    "chat_template": Hostile(
        chat_template,
        [
            b'{"chat_template":"{% for m in messages %}{{ m.content }}{% endfor %}","bos_token":{"content":"<s>"}}',
            b'{"chat_template":[{"name":"default","template":"{{ messages[0] }}"}]}',
            b'{"chat_template":"{{ +messages }}"}',
            b"[" * 100_000,
        ],
    ),
    "metrics_page": Hostile(
        metrics_page,
        [b'# TYPE vllm:generation_tokens_total counter\nvllm:generation_tokens_total{engine="0"} 5.0\n'],
    ),
}
