"""The HTTP server: finds the route, sends JSON or a file (whole or a range of it)."""

import json
import re
import sys
import time
from collections.abc import Iterator
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import parse_qsl, unquote, urlsplit

from . import huggingface, modelscope
from .answers import Answer, FileBody, Json, Request
from .faults import REDIRECT_PREFIX, Fault, FaultBook
from .library import Library

_ROUTES = (modelscope.answer, huggingface.answer)
_RANGE = re.compile(r"bytes=(\d+)-(\d*)")


class HubServer(ThreadingHTTPServer):
    """Serves `library`; one thread a connection, so that slow clients do not block others.

    `token`: when set, every hub route requires it as a bearer token, like a gated model.
    `faults`: when given, POST /faults sets them and GET /faults lists served requests.
    """

    daemon_threads = True
    request_queue_size = 64

    def __init__(
        self, address: tuple[str, int], library: Library, *, token: str = "", faults: FaultBook | None = None
    ) -> None:
        super().__init__(address, _Handler)
        self.library = library
        self.token = token
        self.faults = faults

    def answer(self, request: Request, authorization: str) -> Answer:
        """Return the answer to a request."""
        if request.path == "/health":
            return Json({"status": "ok", "models": self.library.model_ids()})
        if request.path == "/faults" and self.faults is not None:
            return Json(self.faults.state())
        if self.token and authorization != f"Bearer {self.token}":
            refusal = {"Code": 401, "Message": "a valid token is required"}
            return Json(refusal, HTTPStatus.UNAUTHORIZED, {"X-Error-Code": "GatedRepo"})
        for route in _ROUTES:
            if (answer := route(self.library, request)) is not None:
                return answer
        return Json({"error": f"no route {request.path}"}, HTTPStatus.NOT_FOUND)

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Print the traceback of an error of ours; a client that disconnects is none."""
        if not isinstance(sys.exc_info()[1], ConnectionError):
            super().handle_error(request, client_address)


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"  # keep-alive: the clients fetch many small files
    timeout = 300  # seconds that a silent client may hold a thread
    server: HubServer
    _status = 0
    _sent = 0

    def do_GET(self) -> None:
        self._serve()

    def do_HEAD(self) -> None:
        self._serve()

    def do_POST(self) -> None:
        """Set the faults; no other POST is accepted."""
        if self.path != "/faults" or self.server.faults is None:
            self._send_json(Json({"error": "read only"}, HTTPStatus.METHOD_NOT_ALLOWED))
            return
        body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
        try:
            self.server.faults.replace(json.loads(body))
        except (TypeError, ValueError, re.error) as error:
            self._send_json(Json({"error": str(error)}, HTTPStatus.BAD_REQUEST))
        else:
            self._send_json(Json({"status": "set"}))

    def _serve(self) -> None:
        line = f"{self.command} {self.path}"
        book = self.server.faults
        if book is None or self.path in ("/faults", "/health"):
            self._answer(None)
            return
        self._status = self._sent = 0
        try:
            self._answer(book.take(line))
        finally:
            range_header = self.headers.get("Range", "")
            book.record(line, range_header=range_header, status=self._status, sent=self._sent)

    def _answer(self, fault: Fault | None) -> None:
        if fault is not None:
            time.sleep(fault.delay_s)
            if fault.refuse:
                self.close_connection = True
                return
            if fault.redirect:
                location = {"Location": f"{REDIRECT_PREFIX}{self.path}"}
                self._send_json(Json({}, HTTPStatus.FOUND, location))
                return
            if fault.status:
                status = HTTPStatus(fault.status)
                self._send_json(Json({"Code": status, "Message": status.phrase}, status, fault.headers))
                return
        url = urlsplit(self.path.removeprefix(REDIRECT_PREFIX))
        request = Request(self.command, unquote(url.path), dict(parse_qsl(url.query)))
        answer = self.server.answer(request, self.headers.get("Authorization", ""))
        if isinstance(answer, FileBody):
            self._send_file(answer, fault)
        else:
            self._send_json(answer)

    def _send_json(self, answer: Json) -> None:
        body = json.dumps(answer.body).encode()
        headers = {"Content-Type": "application/json", "Content-Length": str(len(body))}
        self._send_head(answer.status, headers | answer.headers)
        if self.command != "HEAD":
            self.wfile.write(body)
            self._sent += len(body)

    def _send_file(self, answer: FileBody, fault: Fault | None) -> None:
        size = answer.file.size
        headers = {"Content-Type": "application/octet-stream", "Accept-Ranges": "bytes"} | answer.headers
        start, end, status = 0, size, HTTPStatus.OK
        if wanted := _RANGE.fullmatch(self.headers.get("Range", "")):
            start, end = int(wanted[1]), min(int(wanted[2] or size) + 1, size)
            if start >= end:
                headers |= {"Content-Range": f"bytes */{size}", "Content-Length": "0"}
                self._send_head(HTTPStatus.REQUESTED_RANGE_NOT_SATISFIABLE, headers)
                return
            headers["Content-Range"] = f"bytes {start}-{end - 1}/{size}"
            status = HTTPStatus.PARTIAL_CONTENT
        self._send_head(status, headers | {"Content-Length": str(end - start)})
        if self.command == "HEAD":
            return
        if fault is not None and fault.spoils_body:
            for piece in _spoilt(answer.file.location, start, end, fault):
                self.wfile.write(piece)
                self._sent += len(piece)
            self.close_connection = True
        elif start < end:
            with answer.file.location.open("rb") as file:
                try:
                    self.connection.sendfile(file, start, end - start)
                finally:
                    self._sent += file.tell() - start

    def _send_head(self, status: HTTPStatus, headers: dict[str, str]) -> None:
        self._status = status
        self.send_response(status)
        for name, value in headers.items():
            self.send_header(name, value)
        self.end_headers()
        self.wfile.flush()

    def log_message(self, format: str, *args: Any) -> None:  # noqa: A002  # the base class names it so
        """Log one line per request, but none for the health check."""
        if self.path != "/health":
            super().log_message(format, *args)


def _spoilt(location: Path, start: int, end: int, fault: Fault) -> Iterator[bytes]:
    """Yield a file's bytes `start` to `end` with the fault applied."""
    if fault.cut_after is not None:
        end = min(end, start + fault.cut_after)
    block = min(1 << 16, fault.bytes_per_s or 1 << 16)
    with location.open("rb") as file:
        file.seek(start)
        while start < end:
            piece = bytearray(file.read(min(block, end - start)))
            if fault.corrupt_at is not None and 0 <= fault.corrupt_at - start < len(piece):
                piece[fault.corrupt_at - start] ^= 0xFF
            start += len(piece)
            yield bytes(piece)
            if fault.bytes_per_s:
                time.sleep(len(piece) / fault.bytes_per_s)
