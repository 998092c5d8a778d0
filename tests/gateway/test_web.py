"""gunicorn as we run it: what it bounds of a request before we see it, and what it says in its log."""

from __future__ import annotations

import inspect
import io
import logging
import socket
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
    ("sizes", "status"), [((30_000,), 200), ((16_384, 8_192, 4_096), 200), ((30_000, 30_000, 30_000), 431)]
)
def test_headers_are_bounded_together(gateway: Gateway, sizes: tuple[int, ...], status: int) -> None:
    """A certificate, a JWT and cookies have room together; a hundred of them would be three megabytes."""
    lines = [f"X-Long-{number}: {'a' * size}" for number, size in enumerate(sizes)]
    head = "\r\n".join(["GET /health HTTP/1.1", "Host: fl.example.com", *lines, "", ""])

    assert status_of(gateway, head.encode()) == status


def test_no_view_is_a_coroutine(services: Services) -> None:
    """The application calls every function as it is: a coroutine would never run (decision 0165)."""
    app = create_app(services)

    hooks = [*app.before_request_funcs.values(), *app.after_request_funcs.values()]
    found = [*app.view_functions.values(), *(function for each in hooks for function in each)]

    assert len(found) > 100
    assert not [function for function in found if inspect.iscoroutinefunction(function)]
