"""What a Splunk HTTP Event Collector and an Elasticsearch have in common here: a real HTTP(S) server with moods."""

from __future__ import annotations

import json
import ssl
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, Protocol

from services.authority import Pair

Json = dict[str, Any]


@dataclass(frozen=True, slots=True)
class Asked:
    """A request."""

    method: str
    path: str
    headers: Mapping[str, str]
    body: bytes


@dataclass(frozen=True, slots=True)
class Answered:
    """An answer; without a status the connection ends without one, and with `hangs` not even that."""

    status: int = 0
    content: Json = field(default_factory=dict)
    headers: Mapping[str, str] = field(default_factory=dict)
    hangs: bool = False
    cut: bool = False
    """Ends in the middle of the body."""


class Server(Protocol):
    """Answers requests."""

    def answer(self, asked: Asked) -> Answered:
        """The answer to one request; called by one thread at a time."""


@contextmanager
def listening(server: Server, pair: Pair | None = None) -> Iterator[str]:
    """Serve on a free port until the block ends; its address `127.0.0.1:PORT`."""
    over, turn = threading.Event(), threading.Lock()

    class _Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
            with turn:
                answered = server.answer(Asked(self.command, self.path, dict(self.headers), body))
            if answered.hangs:
                over.wait(20)
            if not answered.status:
                self.close_connection = True
                return
            self._send(answered)

        def _send(self, answered: Answered) -> None:
            content = json.dumps(answered.content).encode()
            self.send_response(answered.status)
            for name, value in answered.headers.items():
                self.send_header(name, value)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(content)))
            self.end_headers()
            self.wfile.write(content[: len(content) // 2] if answered.cut else content)
            self.close_connection = self.close_connection or answered.cut

        do_GET = do_POST  # noqa: N815 - the name that http.server calls

        def log_message(self, *_args: object) -> None:
            pass

    http = _Quiet(("127.0.0.1", 0), _Handler)
    if pair:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(pair.certificate, pair.key)
        http.socket = context.wrap_socket(http.socket, server_side=True, do_handshake_on_connect=False)
    thread = threading.Thread(target=http.serve_forever, args=(0.05,))
    thread.start()
    try:
        yield f"127.0.0.1:{http.server_address[1]}"
    finally:
        over.set()
        http.shutdown()
        thread.join()
        http.server_close()


class _Quiet(ThreadingHTTPServer):
    daemon_threads = True
    block_on_close = False

    def handle_error(self, *_args: object) -> None:
        """A client that goes away, or one that does not trust us, is no fault of the server's."""
