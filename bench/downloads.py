"""Model downloads behind nginx beside nginx serving the same file itself, and what a cache hit and a miss cost.

TLS as `fl-gateway nginx` writes it; the client runs on the same machine and takes its share of it.
"""

from __future__ import annotations

import importlib
import os
import socket
import ssl
import statistics
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from bench.figures import Figure, cpu_seconds, options, report
from bench.serving import Body, Served, served, update_of
from gateway.caching.shared import Breaker, SharedModels
from gateway.front import Front, render
from gateway.model_cache import ModelCache

_nginx: Any = importlib.import_module("services.nginx")  # bench.serving put the tests on the path
_pebble: Any = importlib.import_module("services.pebble")
_ports: Any = importlib.import_module("services.ports")
_redis: Any = importlib.import_module("services.redis_server")

_NAME = "fl.example.com"
_MB = 1e6
_GOALS = {"accel": 0.8, "proxy": 0.4}
_PATH = "/api/v1/models/1.0.0"

# What serves the very file that the gateway's nginx serves, the same way, and asks nobody.
_PLAIN = """
server {{
    listen 127.0.0.1:{port} ssl http2;
    ssl_certificate {certificate};
    ssl_certificate_key {key};
    access_log off;
    sendfile on;
    tcp_nopush on;
    location = {path} {{
        alias {file};
    }}
}}
"""


def main() -> None:
    """Measure and print."""
    chosen = options(__doc__ or "")
    sizes, repeats = ((40,), 9) if chosen.quick else ((4, 40, 400), 9)
    figures: list[Figure] = []
    with tempfile.TemporaryDirectory(prefix="flg-bench-") as folder:
        for mebibytes in sizes:
            figures += _downloads(Path(folder) / f"front-{mebibytes}", mebibytes, repeats)
        figures += _cache(Path(folder) / "cache", 5 if chosen.quick else 15)
    report(figures, ("gunicorn", "redis", "flask"), as_json=chosen.json)


@dataclass(frozen=True, slots=True)
class Way:
    """Where a model is downloaded from, with what."""

    port: int
    token: str
    certificate: Path

    def download(self) -> int:
        """One download on a connection of its own; the body's length."""
        context = ssl.create_default_context(cafile=str(self.certificate))
        with (
            socket.create_connection(("127.0.0.1", self.port)) as plain,
            context.wrap_socket(plain, server_hostname=_NAME) as tls,
        ):
            head = f"GET {_PATH} HTTP/1.1\r\nHost: {_NAME}\r\nConnection: close\r\n"
            tls.sendall(f"{head}Authorization: Bearer {self.token}\r\n\r\n".encode())
            return _body_length(tls)


def _body_length(tls: ssl.SSLSocket) -> int:
    buffer, told = bytearray(1 << 18), b""
    while b"\r\n\r\n" not in told:
        told += tls.recv(4096)
    head, _, rest = told.partition(b"\r\n\r\n")
    assert head.split()[1] == b"200", head
    received = len(rest)
    while count := tls.recv_into(buffer):
        received += count
    return received


def _downloads(directory: Path, mebibytes: int, repeats: int) -> Iterator[Figure]:
    """MB/s by each way, all of them in turn: a slow moment hits them alike."""
    body = update_of(mebibytes)
    with ExitStack() as stack:
        running = stack.enter_context(served(directory, "gunicorn", model_download="accel"))
        running.open_round(body)
        ways = {
            name: stack.enter_context(_front(directory, running, name))
            for name in ("plain", "accel", "proxy")
        }
        rates: dict[str, list[float]] = {name: [] for name in ways}
        spent: dict[str, list[float]] = {name: [] for name in ways}
        for _ in range(repeats):
            for name, way in ways.items():
                before_s = _cpu_s(running.web_process())
                rates[name].append(_rate(body, way.download))
                spent[name].append(_cpu_s(running.web_process()) - before_s)
    for name, goal in _GOALS.items():
        what, plain = f"{mebibytes} MB, {name}", statistics.median(rates["plain"])
        yield Figure(what, statistics.median(rates[name]), "MB/s", "nginx alone", plain, goal=goal)
    costs = {name: 1000 * statistics.fmean(spent[name]) for name in _GOALS}
    what = f"{mebibytes} MB, gateway's CPU of a download, accel"
    yield Figure(what, costs["accel"], "ms", "proxy", costs["proxy"], goal=1.0, at_most=True)


@contextmanager
def _front(directory: Path, running: Served, name: str) -> Iterator[Way]:
    """An nginx as we render it, one that the gateway proxies through, or one that serves the file alone."""
    home, folder = running.gateway.home, directory / name
    folder.mkdir(parents=True)
    certificate, key = folder / "chain.pem", folder / "key.pem"
    _pebble.make_certificate(certificate, key, _NAME)
    assert not isinstance(running.address, str)
    host, port = running.address
    front = Front(
        server_names=(_NAME,),
        upstreams=(f"{host}:{port}",),
        certificate=certificate,
        certificate_key=key,
        webroot=folder,
        access_log=folder / "access.log",
        error_log=folder / "error.log",
        addresses=("127.0.0.1",),
        http_port=_ports.free_port(),
        https_port=_ports.free_port(),
    )
    if name == "plain":
        with home.stores() as services:
            file = services.blobs.local_path(services.models.get_model_metadata("1.0.0").blob_id)
        site = _PLAIN.format(
            port=front.https_port, certificate=certificate, key=key, path=_PATH, file=file.resolve()
        )
    else:
        site = render(replace(front, blobs=home.directory / "blobs") if name == "accel" else front)
    token = running.gateway.as_role("operator")["Authorization"].removeprefix("Bearer ")
    with _nginx.running_nginx(folder / "nginx", site, port=front.https_port):
        yield Way(front.https_port, token, certificate)


def _rate(body: Body, download: Callable[[], int]) -> float:
    began_s = time.perf_counter()
    assert download() == body.size_bytes
    return body.size_bytes / _MB / (time.perf_counter() - began_s)


def _cpu_s(pid: int) -> float:
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def _cache(directory: Path, repeats: int) -> Iterator[Figure]:
    """CPU of a model of 40 MiB from memory and from Redis, beside a miss: the file read and hashed."""
    body = update_of(40)
    with (
        served(directory, "gunicorn") as running,
        _redis.running() as server,
        running.gateway.home.stores() as stores,
    ):
        running.open_round(body)
        found = stores.models.get_model_metadata("1.0.0")
        shared = SharedModels(server.url, "bench", 3600, Breaker(), read_timeout_s=10, whole_timeout_s=10)
        warm = ModelCache(stores.engine, stores.blobs, largest_bytes=64 << 20)
        warm.bytes_of(found)
        shared.store("1.0.0", warm.bytes_of(found) or b"")

        def miss() -> None:
            assert ModelCache(stores.engine, stores.blobs, largest_bytes=64 << 20).bytes_of(found)

        def from_redis() -> None:
            assert shared.fetch("1.0.0", found.checksum, found.size_bytes)

        def from_memory() -> None:
            assert warm.bytes_of(found)

        def row_again() -> None:
            stores.models.forget("1.0.0")
            stores.models.get_model_metadata("1.0.0")

        works = [miss, from_redis, from_memory, row_again, lambda: stores.models.get_model_metadata("1.0.0")]
        missed, fetched, kept, read, known = (1000 * taken for taken in cpu_seconds(works, repeats))
        shared.close()
    yield Figure("model from memory", kept, "ms", "miss", missed, goal=0.01, at_most=True)
    yield Figure("model from Redis", fetched, "ms", "miss", missed, goal=3.0, at_most=True)
    yield Figure("row from memory", known, "ms", "row from SQLite", read, goal=0.2, at_most=True)


if __name__ == "__main__":
    main()
