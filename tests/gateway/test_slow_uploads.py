"""Slow uploads end: a client that trickles does not keep its place, and a steady one is left in peace (RULES 29)."""

from __future__ import annotations

import socket
from collections.abc import Iterator
from hashlib import sha256
from pathlib import Path

import httpx
import pytest
from living.driver import await_that, tensors
from living.home import home_in
from living.processes import Gateway, gateway_in
from services.slow_peer import trickle


@pytest.fixture
def gateway(tmp_path: Path) -> Iterator[Gateway]:
    """A gateway that expects a quick pace, with one place for uploads; `trickle` takes more than three seconds."""
    pace = {"upload_grace_s": "2", "upload_least_bytes_per_s": "100000", "upload_threads": "1"}
    with home_in(tmp_path / "home") as home, gateway_in(home, **pace) as running:
        yield running


def test_a_trickling_upload_is_ended_and_its_place_is_free_again(gateway: Gateway) -> None:
    """Meanwhile small requests are answered, another upload is told to come again, and later one is taken."""
    gateway.add_model()
    number = gateway.open_round({"mechanism": "none"})
    slow, quick = gateway.register(), gateway.register()
    body = tensors(1)

    def refused() -> httpx.Response | None:
        """The answer to a further upload; where the slow one has no place yet, a wrong one that is not taken."""
        answer = gateway.send(gateway.register(), number, body, X_Update_Checksum="0" * 64)
        return answer if answer.status_code == 503 else None

    with socket.create_connection((gateway.http.base_url.host, gateway.http.base_url.port or 80)) as peer:
        peer.sendall(_head(number, slow.headers["Authorization"], body))
        peer.sendall(body[:10])
        other = await_that("the slow upload has its place", refused)
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
