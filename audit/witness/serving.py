"""The witness's HTTP server: one route, and limits on everything that a stranger can make it do.

A request has a deadline as a whole, so that nobody holds a thread by sending a byte now and then; threads, bytes
and idle connections are bounded. TLS, and limits by address, are the front's.
"""

from __future__ import annotations

import io
import logging
import socket
import socketserver
import sys
import threading
import time
from contextlib import suppress
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler
from typing import Any

from audit.witness.errors import BadSubmission, NotContinued, RootConflict, SizeConflict, WitnessError
from audit.witness.judging import Witness
from audit.witness.submission import PATH, SIZE_TYPE

log = logging.getLogger(__name__)
MAX_BODY_BYTES = 64 << 10
MAX_HEAD_BYTES = 16 << 10
MAX_CONNECTIONS = 64
REQUEST_S = 10.0
IDLE_S = 30.0
_TEXT = "text/plain; charset=utf-8"
_FULL = (
    b"HTTP/1.1 503 Service Unavailable\r\nContent-Length: 0\r\nRetry-After: 1\r\nConnection: close\r\n\r\n"
)


class WitnessServer(socketserver.ThreadingMixIn, socketserver.TCPServer):
    """Listens on an address; port 0 takes a free one."""

    allow_reuse_address = True
    daemon_threads = True
    block_on_close = False
    request_queue_size = 128

    def __init__(
        self, host: str, port: int, witness: Witness, *, request_s: float = REQUEST_S, idle_s: float = IDLE_S
    ) -> None:
        self.address_family = socket.AF_INET6 if ":" in host else socket.AF_INET
        self.witness = witness
        self.request_s, self.idle_s = request_s, idle_s
        self._free = threading.BoundedSemaphore(MAX_CONNECTIONS)
        self._changing = threading.Condition()
        self._connections = 0
        self._at_work = 0
        super().__init__((host, port), _Asked)

    @property
    def url(self) -> str:
        """Where it listens."""
        host, port = str(self.server_address[0]), self.server_address[1]
        return f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"

    @property
    def is_busy(self) -> bool:
        """Whether connections are so many that none may stay open without a request."""
        return self._connections > MAX_CONNECTIONS // 2

    def process_request(self, request: Any, client_address: Any) -> None:
        """A thread for a connection, while there is one left."""
        if not self._free.acquire(blocking=False):
            with suppress(OSError):
                request.settimeout(0)
                request.send(_FULL)
            self.shutdown_request(request)
            return
        try:
            super().process_request(request, client_address)
        except RuntimeError:  # no more threads on this machine
            self._free.release()
            self.shutdown_request(request)

    def process_request_thread(self, request: Any, client_address: Any) -> None:
        """Serve a connection to its end."""
        with self._changing:
            self._connections += 1
        try:
            super().process_request_thread(request, client_address)
        finally:
            with self._changing:
                self._connections -= 1
            self._free.release()

    def begin(self) -> None:
        """A request is being judged."""
        with self._changing:
            self._at_work += 1

    def end(self) -> None:
        """Its answer has left."""
        with self._changing:
            self._at_work -= 1
            self._changing.notify_all()

    def finish(self, patience_s: float) -> None:
        """Take no more connections, and let the requests under way have their answers."""
        self.shutdown()
        self.socket.close()
        with self._changing:
            self._changing.wait_for(lambda: not self._at_work, patience_s)

    def handle_error(self, request: Any, client_address: Any) -> None:  # noqa: ARG002 - the server's own form
        """A connection that broke off is nothing to tell; a fault of ours is, without a stranger's bytes."""
        kind = sys.exc_info()[0] or Exception
        if not issubclass(kind, OSError):
            log.error("a connection failed: %s", kind.__name__)


class _Paced(io.RawIOBase):
    """What a connection sends: each request within its time and its bytes, from its first byte on."""

    def __init__(self, connection: socket.socket, request_s: float) -> None:
        self._connection = connection
        self._request_s = request_s
        self.begin(request_s)

    def begin(self, patience_s: float) -> None:
        """Wait so long for the next request."""
        self._until_s = time.monotonic() + patience_s
        self._left_bytes = MAX_HEAD_BYTES + MAX_BODY_BYTES
        self._has_begun = False

    def readable(self) -> bool:
        """It is for reading."""
        return True

    def readinto(self, buffer: Any) -> int:
        """The next bytes; raises TimeoutError when the time or the bytes of this request are used up."""
        left_s = self._until_s - time.monotonic()
        if left_s <= 0 or self._left_bytes <= 0:
            raise TimeoutError
        self._connection.settimeout(left_s)
        count = self._connection.recv_into(memoryview(buffer)[: self._left_bytes])
        self._left_bytes -= count
        if not self._has_begun:
            self._has_begun = True
            self._until_s = time.monotonic() + self._request_s
        return count


class _Asked(BaseHTTPRequestHandler):
    """One connection."""

    server: WitnessServer
    protocol_version = "HTTP/1.1"
    server_version, sys_version = "fl-gateway-witness", ""
    disable_nagle_algorithm = True

    def setup(self) -> None:
        """Read through the limits."""
        super().setup()
        self.rfile.close()
        self._paced = _Paced(self.connection, self.server.request_s)
        self.rfile = io.BufferedReader(self._paced)

    def handle_one_request(self) -> None:
        """As the library does it; each request has its own time, and the next may be waited for."""
        super().handle_one_request()
        self._paced.begin(self.server.idle_s)

    def do_POST(self) -> None:
        """`add-checkpoint`."""
        self.server.begin()
        try:
            self._answer_post()
        finally:
            self.server.end()

    def do_GET(self) -> None:
        """There is nothing to get: who follows the log asks the log."""
        self._answer(405 if self.path == PATH else 404, closes=True)

    def _answer_post(self) -> None:
        if self.path != PATH:
            self._answer(404, closes=True)
            return
        length = self._body_bytes()
        if length is None:
            return
        body = self.rfile.read(length)
        try:
            if len(body) != length:
                raise BadSubmission("the body is shorter than was said")
            line = self.server.witness.add_checkpoint(body)
        except WitnessError as refusal:
            self._refuse(refusal)
        else:
            self._answer(200, line)

    def _body_bytes(self) -> int | None:
        """How long the body is; None if that was answered already."""
        lengths = self.headers.get_all("Content-Length", [])
        if "Transfer-Encoding" in self.headers or not lengths:
            self._answer(411, closes=True)
        elif len(lengths) > 1 or not (lengths[0].isascii() and lengths[0].isdigit()) or len(lengths[0]) > 9:
            self._answer(400, closes=True)
        elif int(lengths[0]) > MAX_BODY_BYTES:
            self._answer(413, closes=True)
        else:
            return int(lengths[0])
        return None

    def _refuse(self, refusal: WitnessError) -> None:
        if isinstance(refusal, RootConflict | NotContinued):
            log.warning(
                "%s: a checkpoint that its log signed was kept as evidence (%s)", refusal.code, refusal
            )
        elif refusal.status >= 500:
            log.error("%s: %s", refusal.code, refusal)
        if isinstance(refusal, SizeConflict):
            self._answer(refusal.status, f"{refusal.size}\n", SIZE_TYPE)
        else:
            self._answer(refusal.status, f"{refusal}\n")

    def _answer(self, status: int, text: str = "", kind: str = _TEXT, *, closes: bool = False) -> None:
        body = (text or f"{HTTPStatus(status).phrase}\n").encode()
        closes = closes or self.server.is_busy
        self.request_version = self.protocol_version  # an older or unread one gets a status line, too
        self.send_response(status)
        self.send_header("Content-Type", kind)
        self.send_header("Content-Length", str(len(body)))
        self.send_header("Cache-Control", "no-store")
        if status == 405:
            self.send_header("Allow", "POST")
        if closes:
            self.send_header("Connection", "close")
            self.close_connection = True
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)

    def send_error(self, code: int, message: str | None = None, explain: str | None = None) -> None:  # noqa: ARG002
        """What the library refuses by itself: the same plain text, without repeating what was sent."""
        self._answer(code, closes=True)

    def log_message(self, format: str, *arguments: Any) -> None:  # noqa: A002 - the library's own form
        """Requests are not logged: what matters is said where it is decided."""
