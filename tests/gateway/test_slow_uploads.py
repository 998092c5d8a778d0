"""Slow uploads end: a client that trickles does not keep its place, and a steady one is left in peace (RULES 29)."""

from __future__ import annotations

import socket
import time
from collections.abc import Iterator
from hashlib import sha256
from pathlib import Path

import pytest
from living.driver import tensors
from living.home import home_in
from living.processes import Gateway, gateway_in
from services.slow_peer import trickle


@pytest.fixture
def gateway(tmp_path: Path) -> Iterator[Gateway]:
    """A gateway that expects a quick pace, with one place for uploads."""
    pace = {"upload_grace_s": "0.5", "upload_least_bytes_per_s": "100000", "upload_threads": "1"}
    with home_in(tmp_path / "home") as home, gateway_in(home, **pace) as running:
        yield running


def test_a_trickling_upload_is_ended_and_its_place_is_free_again(gateway: Gateway) -> None:
    """Meanwhile small requests are answered, another upload is told to come again, and later one is taken."""
    gateway.add_model()
    number = gateway.open_round({"mechanism": "none"})
    slow, quick = gateway.register(), gateway.register()
    body = tensors(1)

    with socket.create_connection((gateway.http.base_url.host, gateway.http.base_url.port or 80)) as peer:
        peer.sendall(_head(number, slow.headers["Authorization"], body))
        peer.sendall(body[:10])
        time.sleep(0.2)
        other = gateway.send(quick, number, body)
        small = gateway.http.get(f"/api/v1/rounds/{number}", headers=quick.headers)
        answer = trickle(peer, body[10:])

    assert (other.status_code, other.json()["code"]) == (503, "INSUFFICIENT_RESOURCES")
    assert other.headers["Retry-After"]
    assert small.status_code == 200
    assert answer.startswith(b"HTTP/1.1 408 ")
    assert b"UPLOAD_TOO_SLOW" in answer
    assert gateway.send(quick, number, body).status_code == 202


def _head(number: int, authorization: str, body: bytes) -> bytes:
    lines = (
        f"POST /api/v1/rounds/{number}/updates HTTP/1.1",
        "Host: localhost",
        f"Authorization: {authorization}",
        f"X-Update-Checksum: {sha256(body).hexdigest()}",
        f"Content-Length: {len(body)}",
        "",
        "",
    )
    return "\r\n".join(lines).encode()
