"""What no gateway can pass on a machine: the same servers, where they read a body as ours does and hash it alone."""

from __future__ import annotations

import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from bench.serving import ROOT, Address, Body, Wire
from gateway.api.bodies import CHUNK_BYTES
from gateway.rounds.arrival import arrive
from gateway.steady_memory import keep_memory

_THREADS = "16"
_READY_WITHIN_S = 30
_COMMANDS: dict[str, tuple[str, ...]] = {
    "gunicorn": ("gunicorn", "--worker-class", "gthread", "--threads", _THREADS, "--bind", "unix:{path}"),
    "granian": (
        *("granian", "--interface", "wsgi", "--http", "1", "--no-ws"),
        *("--blocking-threads", _THREADS, "--uds", "{path}"),
    ),
}

keep_memory()


def application(environ: dict[str, Any], start_response: Callable[..., Any]) -> list[bytes]:
    """Read, hash, answer with the digest."""
    read = environ["wsgi.input"].read
    digest, _ = arrive(iter(lambda: read(CHUNK_BYTES), b""), lambda _: None)
    text = digest.hex().encode()
    start_response("200 OK", [("Content-Length", str(len(text)))])
    return [text]


@contextmanager
def hashing_alone(directory: Path, server: str) -> Iterator[Address]:
    """That application under one of the servers."""
    path = directory / f"{server}.sock"
    directory.mkdir(parents=True, exist_ok=True)
    words = [word.format(path=path) for word in _COMMANDS[server]]
    with (directory / f"{server}.log").open("wb") as log:
        process = subprocess.Popen(
            [sys.executable, "-m", *words, "bench.ceiling:application"], cwd=ROOT, stdout=log, stderr=log
        )
    try:
        _await(path)
        yield str(path)
    finally:
        process.terminate()
        process.wait(30)


def send_to_hash(address: Address, body: Body) -> None:
    """Send a body to that application."""
    wire = Wire(address)
    assert wire.send("POST", "/", {}, body) == 200
    wire.close()


def _await(path: Path) -> None:
    for _ in range(_READY_WITHIN_S * 20):
        with suppress(OSError):
            Wire(str(path)).close()
            return
        time.sleep(0.05)
    raise TimeoutError(f"nothing listens on {path}")
