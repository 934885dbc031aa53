"""A proxy in front of an S3 server that lets requests fail at random, the same ones each time."""

import http.client
import random
import socket
import struct
import threading
from collections import Counter
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from types import TracebackType
from typing import Self
from urllib.parse import urlsplit

#: What happens to a request: an answer of the server that it is busy, a connection that is reset
#: before or in the middle of the answer, a server that is silent for longer than it may be.
FAULTS = ("busy", "reset", "half", "silent")
_SECONDS_SILENT = 1.0


class FaultProxy:
    """Passes requests on, and fails a share of them.

    Attributes:
        url: Where it listens.
        served: Requests that were answered.
        faults: Requests that were failed, by the kind of fault.
    """

    def __init__(self, upstream: str, share: float, seed: int) -> None:
        """Listen, without serving yet.

        Args:
            upstream: Address of the server.
            share: Share of the requests that fail.
            seed: Which ones.
        """
        self.served = 0
        self.faults: Counter[str] = Counter()
        self._upstream = urlsplit(upstream).netloc
        self._share = share
        self._random = random.Random(seed)
        self._lock = threading.Lock()
        self._closing = threading.Event()
        proxy = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def log_message(self, format: str, *args: object) -> None:
                pass

            def handle_request(self) -> None:
                proxy._handle(self)

        for method in ("GET", "HEAD", "PUT", "POST", "DELETE"):
            setattr(Handler, f"do_{method}", Handler.handle_request)
        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._server.daemon_threads = True
        self.url = f"http://127.0.0.1:{self._server.server_address[1]}"

    def __enter__(self) -> Self:
        """Serve."""
        threading.Thread(target=self._server.serve_forever, daemon=True).start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        """Stop serving."""
        self._closing.set()
        self._server.shutdown()
        self._server.server_close()

    def _handle(self, request: BaseHTTPRequestHandler) -> None:
        body = _body_of(request)
        with self._lock:
            fails = self._random.random() < self._share
            fault = self._random.choice(FAULTS) if fails else ""
            self.faults.update([fault] if fault else [])
            self.served += not fault
        if fault == "busy":
            _answer(request, 503, {"Content-Length": "0"}, b"")
        elif fault == "reset":
            _reset(request)
        elif fault == "silent":
            self._closing.wait(_SECONDS_SILENT)
            _reset(request)
        else:
            status, headers, content = self._ask(request, body)
            if fault == "half":
                _answer(request, status, headers, content[: len(content) // 2])
                _reset(request)
            else:
                _answer(request, status, headers, content)

    def _ask(
        self, request: BaseHTTPRequestHandler, body: bytes
    ) -> tuple[int, dict[str, str], bytes]:
        """Ask the server itself; the host's name stays, since it is part of what is signed."""
        connection = http.client.HTTPConnection(self._upstream, timeout=60)
        connection.putrequest(
            request.command, request.path, skip_host=True, skip_accept_encoding=True
        )
        for name, value in request.headers.items():
            if name.lower() not in ("transfer-encoding", "content-length", "expect"):
                connection.putheader(name, value)
        connection.putheader("Content-Length", str(len(body)))
        connection.endheaders(body)
        answer = connection.getresponse()
        content = answer.read()
        answer_headers = {k: v for k, v in answer.getheaders() if k.lower() != "transfer-encoding"}
        if request.command != "HEAD":
            answer_headers = {
                k: v for k, v in answer_headers.items() if k.lower() != "content-length"
            }
            answer_headers["Content-Length"] = str(len(content))
        connection.close()
        return answer.status, answer_headers, content


def _body_of(request: BaseHTTPRequestHandler) -> bytes:
    if request.headers.get("Transfer-Encoding", "").lower() != "chunked":
        return request.rfile.read(int(request.headers.get("Content-Length") or 0))
    parts = []
    while size := int(request.rfile.readline().split(b";")[0], 16):
        parts.append(request.rfile.read(size))
        request.rfile.readline()
    request.rfile.readline()
    return b"".join(parts)


def _answer(
    request: BaseHTTPRequestHandler, status: int, headers: dict[str, str], content: bytes
) -> None:
    request.send_response_only(status)
    for name, value in headers.items():
        request.send_header(name, value)
    request.end_headers()
    request.wfile.write(content)


def _reset(request: BaseHTTPRequestHandler) -> None:
    """End the connection as a crashed server does."""
    request.close_connection = True
    linger = struct.pack("ii", 1, 0)
    request.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, linger)
    request.connection.close()
