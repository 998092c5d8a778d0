"""gunicorn as we run it: what it bounds of a request before we see it, and what it says in its log."""

from __future__ import annotations

import inspect
import io
import logging
import socket
import time
from collections.abc import Iterator

import httpx
import pytest
from living.home import home_in
from living.processes import Gateway, gateway_in

from gateway import web
from gateway.app import create_app
from gateway.services import Services

_SECRET = "flg_token_" + "s" * 43


@pytest.fixture(scope="module")
def gateway(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Gateway]:
    """One gateway under gunicorn; its log is the tests' own."""
    with home_in(tmp_path_factory.mktemp("web")) as home, gateway_in(home) as running:
        yield running


def status_of(gateway: Gateway, head: bytes) -> int:
    """Send a request's head as it is; the status of the answer."""
    url = httpx.URL(gateway.http.base_url)
    with socket.create_connection((url.host, url.port or 80), timeout=10) as peer:
        peer.sendall(head)
        return int(peer.recv(4096).split()[1])


@pytest.mark.parametrize(
    ("lines", "status"),
    [
        ([f"Authorization Bearer {_SECRET}"], 400),
        ([f"Authorization: Bearer {_SECRET}\r\n folded"], 400),
        ([f"{_SECRET}\x7f: 1"], 400),
        ([f"Authorization: Bearer {_SECRET}\x00"], 400),
    ],
)
def test_a_malformed_request_leaves_nothing_of_it_in_the_log(
    gateway: Gateway, lines: list[str], status: int
) -> None:
    """RULES 30, promise 8: a token in a line that is no header is a token all the same."""
    head = "\r\n".join(["GET /health HTTP/1.1", "Host: fl.example.com", *lines, "", ""])

    told = status_of(gateway, head.encode("latin-1"))

    assert told == status
    assert _SECRET not in gateway.log()
    assert gateway.http.get("/health").status_code == 200


def test_a_request_that_fails_while_it_is_answered_leaves_its_kind_and_place_in_the_log() -> None:
    """RULES 16, 30: its URL may hold a client's id or a link's secret, the error's text somebody's value."""
    told = io.StringIO()
    log = logging.Logger("gunicorn.error")
    log.addHandler(logging.StreamHandler(told))
    log.addFilter(web.repeats_nothing)

    try:
        raise ValueError(_SECRET)
    except ValueError:
        log.exception("Error handling request %s %s", "GET", f"/packages/{_SECRET}?code={_SECRET}")
        log.exception("Error handling request")

    assert _SECRET not in told.getvalue()
    assert told.getvalue().count("unforeseen ValueError at ") == 2
    assert "test_web.py" in told.getvalue()


@pytest.mark.parametrize(
    ("sizes", "status"),
    [
        ((30_000,), 200),
        ((16_384, 8_192, 4_096), 200),
        ((24_000, 24_900), 200),
        ((24_000, 25_200), 431),
        ((28_000, 28_000), 431),
        ((30_000, 30_000, 30_000), 431),
    ],
)
def test_headers_are_bounded_together(gateway: Gateway, sizes: tuple[int, ...], status: int) -> None:
    """A certificate, a JWT and cookies have room together; a hundred of them would be three megabytes."""
    lines = [f"X-Long-{number}: {'a' * size}" for number, size in enumerate(sizes)]
    head = "\r\n".join(["GET /health HTTP/1.1", "Host: fl.example.com", *lines, "", ""])

    assert status_of(gateway, head.encode()) == status


@pytest.mark.parametrize("size", [8191, 8192, 8193, 8194, 8195, 8196, 16_384, 24_577])
@pytest.mark.parametrize("cut", [None, 8190, 8192])
def test_a_long_head_ends_where_it_ends(gateway: Gateway, size: int, cut: int | None) -> None:
    """Its last four bytes may lie in two pieces of the server's reading, and another request right behind them."""
    begun = b"GET /health HTTP/1.1\r\nHost: fl.example.com\r\n"
    room = size - len(begun) - len(b"\r\n\r\n")
    names = [f"X-Long-{number}: ".encode() for number in range(4)]
    shares = [room // 4 - 2] * 3 + [room - 3 * (room // 4)]
    lines = [name.ljust(share, b"a") for name, share in zip(names, shares, strict=True)]
    head = begun + b"\r\n".join(lines) + b"\r\n\r\n"
    assert len(head) == size
    url = httpx.URL(gateway.http.base_url)
    with (
        socket.create_connection((url.host, url.port or 80), timeout=10) as peer,
        peer.makefile("rb") as answers,
    ):
        for last in (b"", b"GET /health HTTP/1.1\r\nHost: fl.example.com\r\n\r\n"):
            peer.sendall(head[:cut])
            if cut:
                time.sleep(0.05)
                peer.sendall(head[cut:])
            peer.sendall(last)  # nobody waits for it before the first answer is given
            for _ in range(2 if last else 1):
                assert answers.readline() == b"HTTP/1.1 200 OK\r\n"
                lengths = [line for line in iter(answers.readline, b"\r\n") if b"Content-Length" in line]
                assert answers.read(int(lengths[0].split(b":")[1]))


_HOST = b"GET /health HTTP/1.1\r\nHost: fl.example.com\r\n"


@pytest.mark.parametrize(
    ("begun", "status"),
    [
        (_HOST + b"X-Long: " + b"a" * 9000 + b"\r\nX-Bare: 1\n", 400),
        (_HOST + b"X-Long: " + b"a" * 9000 + b"\r\n\n", 400),
        (b"GET /" + b"a" * 9000, 414),
        (b"GET /" + b"a" * 5000 + b" HTTP/1.1\r\n" + b"X-Long: " + b"a" * 9000, 414),
        (b"GET /\r\n" + b"a" * 9000, 400),
        (b"\x16\x03\x01\r\n" + b"\0" * 9000, 400),
    ],
)
def test_what_cannot_become_a_request_is_refused_before_its_end(
    gateway: Gateway, begun: bytes, status: int
) -> None:
    """A long head is awaited only while it may become one: whoever sent this waits for its answer."""
    assert status_of(gateway, begun) == status


def test_no_view_is_a_coroutine(services: Services) -> None:
    """The application calls every function as it is: a coroutine would never run (decision 0165)."""
    app = create_app(services)

    hooks = [*app.before_request_funcs.values(), *app.after_request_funcs.values()]
    found = [*app.view_functions.values(), *(function for each in hooks for function in each)]

    assert len(found) > 100
    assert not [function for function in found if inspect.iscoroutinefunction(function)]
