"""Real servers to measure: `serve` process trees on stores in a temporary folder, and an nginx before them.

They are those of the tests (`tests/living`, `tests/services`): throwaway, on this machine alone.
"""

from __future__ import annotations

import importlib
import socket
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path
from typing import Any

import numpy as np

from aggregation.wire import TensorSpec, header_bytes
from gateway.auth.clients import Device, new_registration, register_client

ROOT = Path(__file__).resolve().parents[1]
PIECE_BYTES = 1 << 20
Address = tuple[str, int] | str  # host and port, or the path of a Unix socket

sys.path.insert(0, str(ROOT / "tests"))
_home: Any = importlib.import_module("living.home")
_processes: Any = importlib.import_module("living.processes")
_nginx: Any = importlib.import_module("services.nginx")
_ports: Any = importlib.import_module("services.ports")
postgresql: Any = importlib.import_module("services.postgresql")

# What `fl-gateway nginx` writes for uploads, without TLS, which the peer goes without too.
_SITE = """
server {{
    listen 127.0.0.1:{port};
    client_max_body_size 0;
    location / {{
        proxy_pass http://{upstream};
        proxy_http_version 1.1;
        proxy_set_header Connection "";
        proxy_request_buffering off;
        client_body_buffer_size 512k;
        proxy_read_timeout 120s;
    }}
    location /dav/ {{
        root {directory};
        dav_methods PUT;
        client_body_temp_path {directory}/dav;
    }}
}}
"""


@dataclass(frozen=True, slots=True)
class Body:
    """A body of one piece, again and again: no client's memory, and no disk of its, is measured."""

    head: bytes
    piece: bytes
    count: int
    checksum: str

    @property
    def size_bytes(self) -> int:
        """The length of the whole."""
        return len(self.head) + self.count * len(self.piece)

    def pieces(self) -> Iterator[bytes]:
        """The whole, in order."""
        yield self.head
        for _ in range(self.count):
            yield self.piece


def update_of(mebibytes: int) -> Body:
    """An update of that size: one tensor of normally distributed float32."""
    elements = PIECE_BYTES // 4
    piece = np.random.default_rng(0).standard_normal(elements).astype("<f4").tobytes()
    head = header_bytes((TensorSpec("w", "F32", (mebibytes, elements)),))
    whole = sha256(head)
    for _ in range(mebibytes):
        whole.update(piece)
    return Body(head, piece, mebibytes, whole.hexdigest())


def small_update() -> Body:
    """An update of 32 numbers."""
    whole = header_bytes((TensorSpec("w", "F32", (8, 4)),)) + np.ones(32, "<f4").tobytes()
    return Body(whole, b"", 0, sha256(whole).hexdigest())


@dataclass(frozen=True, slots=True)
class Served:
    """A running gateway, and where it listens."""

    gateway: Any
    address: Address

    def participants(self, count: int) -> list[str]:
        """Registration tokens of new clients, each a subject of its own."""
        with self.gateway.home.stores() as services:
            made = [new_registration(services, Device(device_id="silo")) for _ in range(count)]
            for registration in made:
                register_client(services, registration)
        return [registration.registration_token for registration in made]

    def open_round(self, model: Body) -> int:
        """A round on a new model, which no number of updates of ours ends."""
        headers = {
            "X-Model-Checksum": model.checksum,
            "X-Model-Metadata": '{"name": "bench"}',
            "Content-Length": str(model.size_bytes),
        }
        operator = self.gateway.as_role("operator")
        answer = self.gateway.http.post(
            "/api/v1/models", content=model.pieces(), headers=operator | headers, timeout=300
        )
        assert answer.status_code == 201, answer.text
        return int(self.gateway.open_round({"mechanism": "none"}, planned_clients=100_000))

    def web_process(self) -> int:
        """The process that answers: the last of web's own tree."""
        found: int = _processes._tree(self.gateway.part_pid("web"))[-1]
        return found

    def forget_uploads(self, mebibytes: int) -> None:
        """Give the disk back what the last uploads took; their round never ends."""
        for path in Path(self.gateway.home.directory / "blobs").glob("??/*"):
            if path.stat().st_size > mebibytes * PIECE_BYTES:  # an update has tags, a model has not
                path.unlink()


@contextmanager
def served(directory: Path, server: str, database: Any = None, **settings: str) -> Iterator[Served]:
    """`serve` with one of its servers: granian on a Unix socket, gunicorn on a port of 127.0.0.1."""
    path = directory / "web.sock"
    options = ("--server", server, "--socket", str(path)) if server == "granian" else ("--port", "0")
    with (
        _home.home_in(directory / "home", database, upload_threads="16", **settings) as home,
        _processes.gateway_in(home, *options) as gateway,
    ):
        url = gateway.http.base_url
        yield Served(gateway, str(path) if server == "granian" else (url.host, url.port))


@contextmanager
def behind_nginx(directory: Path, upstream: Address) -> Iterator[Address]:
    """An nginx that passes bodies on as they come, and takes PUT below /dav/ itself."""
    port: int = _ports.free_port()
    (directory / "dav").mkdir(parents=True)
    where = f"unix:{upstream}" if isinstance(upstream, str) else "{}:{}".format(*upstream)
    site = _SITE.format(port=port, upstream=where, directory=directory)
    with _nginx.running_nginx(directory / "nginx", site, port=port):
        yield ("127.0.0.1", port)


class Wire:
    """A kept-alive HTTP/1.1 connection that costs its machine as little as it can."""

    def __init__(self, address: Address) -> None:
        family = socket.AF_UNIX if isinstance(address, str) else socket.AF_INET
        self._socket = socket.socket(family, socket.SOCK_STREAM)
        self._socket.connect(address)
        self._is_closing = False

    def send(self, method: str, path: str, headers: dict[str, str], body: Body) -> int:
        """Send a request and read its answer; the status."""
        lines = [f"{method} {path} HTTP/1.1", "Host: localhost", f"Content-Length: {body.size_bytes}"]
        lines += [f"{name}: {value}" for name, value in headers.items()]
        self._socket.sendall(("\r\n".join(lines) + "\r\n\r\n").encode() + body.head)
        for _ in range(body.count):
            self._socket.sendall(body.piece)
        return self._answer()

    def ask(self, request: bytes) -> tuple[int, bool]:
        """Send a whole request; the status, and whether the connection goes on."""
        self._socket.sendall(request)
        status = self._answer()
        return status, not self._is_closing

    def close(self) -> None:
        """End the connection."""
        self._socket.close()

    def _answer(self) -> int:
        told = b""
        while b"\r\n\r\n" not in told:
            told += self._more()
        head, _, rest = told.partition(b"\r\n\r\n")
        self._is_closing = b"\r\nconnection: close" in head.lower()
        lengths = [line for line in head.lower().split(b"\r\n") if line.startswith(b"content-length:")]
        missing = (int(lengths[0].split(b":")[1]) if lengths else 0) - len(rest)
        while missing > 0:
            missing -= len(self._more())
        return int(head.split()[1])

    def _more(self) -> bytes:
        data = self._socket.recv(65_536)
        if not data:
            raise ConnectionError("the server closed the connection before its answer was whole")
        return data


def send_update(wire: Wire, number: int, token: str, body: Body) -> None:
    """Send an update that must be accepted."""
    headers = {"Authorization": f"Bearer {token}", "X-Update-Checksum": body.checksum}
    status = wire.send("POST", f"/api/v1/rounds/{number}/updates", headers, body)
    assert status == 202, status
