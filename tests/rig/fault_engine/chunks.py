"""Bytes of vLLM's responses, as chunks of a chunked HTTP body."""

import json

HEAD_STREAM = (
    b"HTTP/1.1 200 OK\r\nserver: fault-engine\r\ncontent-type: text/event-stream; charset=utf-8\r\n"
    b"transfer-encoding: chunked\r\n\r\n"
)
LAST_CHUNK = b"0\r\n\r\n"
_FIELDS = {"id": "cmpl-0123456789abcdef0123456789abcdef", "created": 1763890000, "model": "engine"}


def framed(data: bytes) -> bytes:
    """Return one chunk of a chunked body."""
    return b"%x\r\n%b\r\n" % (len(data), data)


def event(data: object) -> bytes:
    """Return one server-sent event."""
    text = data if isinstance(data, str) else json.dumps(data, separators=(",", ":"))
    return f"data: {text}\n\n".encode()


DONE = event("[DONE]")


def token(endpoint: str, finish: str | None = None, **delta: object) -> bytes:
    """Return an event with one token; `delta` replaces the fields of the chat delta."""
    choice: dict[str, object] = {"index": 0, "logprobs": None, "finish_reason": finish, "stop_reason": None}
    if endpoint == "chat":
        choice["delta"] = delta or {"content": " token"}
        return event({**_FIELDS, "object": "chat.completion.chunk", "choices": [choice]})
    choice["text"] = " token"
    return event({**_FIELDS, "object": "text_completion", "choices": [choice]})


def role() -> bytes:
    """Return the first event of a chat, which holds no token."""
    return token("chat", role="assistant", content="")


def usage(prompt_tokens: int, output_tokens: int, cached_tokens: int = 0) -> dict[str, object]:
    """Return the server's token counts."""
    return {
        "prompt_tokens": prompt_tokens,
        "total_tokens": prompt_tokens + output_tokens,
        "completion_tokens": output_tokens,
        "prompt_tokens_details": {"cached_tokens": cached_tokens},
    }


def usage_event(prompt_tokens: int, output_tokens: int, cached_tokens: int = 0) -> bytes:
    """Return the last event of a stream with include_usage."""
    counts = usage(prompt_tokens, output_tokens, cached_tokens)
    return event({**_FIELDS, "object": "chunk", "choices": [], "usage": counts})


def whole(endpoint: str, prompt_tokens: int, output_tokens: int, cached_tokens: int = 0) -> dict[str, object]:
    """Return the response without streaming."""
    text = " token" * output_tokens
    choice: dict[str, object] = {"index": 0, "finish_reason": "length"}
    if endpoint == "chat":
        choice["message"] = {"role": "assistant", "content": text}
    else:
        choice["text"] = text
    counts = usage(prompt_tokens, output_tokens, cached_tokens)
    return {**_FIELDS, "object": "answer", "choices": [choice], "usage": counts}


def json_response(status: int, body: object, *, content_type: str = "application/json", length: int = 0) -> bytes:
    """Return a response with Content-Length; `length` is added to it, to announce more bytes than are sent."""
    data = body if isinstance(body, bytes) else json.dumps(body).encode()
    head = f"HTTP/1.1 {status} X\r\ncontent-type: {content_type}\r\ncontent-length: {len(data) + length}\r\n\r\n"
    return head.encode() + data
