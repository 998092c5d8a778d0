"""The HTTP side of the Splunk and Elastic sinks: deadlines, limits on an answer, and the wish to be left alone."""

from __future__ import annotations

import socket
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime

import pytest
from services.siem_http import Answered, Asked, listening

from audit.siem import SinkDown
from audit.siem.http import Answer, Endpoint

_HEAD = b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nTransfer-Encoding: chunked\r\n\r\n"


class Says:
    """A server with one answer."""

    def __init__(self, answered: Answered) -> None:
        self._answered = answered

    def answer(self, _asked: Asked) -> Answered:
        """The answer to each request."""
        return self._answered


@contextmanager
def raw_server(behave: Callable[[socket.socket], None], timeout_s: float = 20) -> Iterator[Endpoint]:
    """A server that does with its one connection as the test says, and an endpoint to it."""

    def serve() -> None:
        connection, _ = server.accept()
        with connection, suppress(OSError):
            asked = b""
            while not asked.endswith(b"\r\n\r\n{}"):  # to close on what is not read yet resets the connection
                asked += connection.recv(65_536) or pytest.fail("the endpoint left before it had asked")
            behave(connection)

    with socket.create_server(("127.0.0.1", 0)) as server:
        thread = threading.Thread(target=serve)
        thread.start()
        endpoint = Endpoint("s", f"http://127.0.0.1:{server.getsockname()[1]}", "None", timeout_s=timeout_s)
        yield endpoint
        endpoint.close()
        thread.join(10)


def trickle(connection: socket.socket) -> None:
    """A byte now and then, for ever: no silence is long enough to be one."""
    connection.sendall(_HEAD)
    while True:
        connection.sendall(b"1\r\n \r\n")
        time.sleep(0.05)


def creep(connection: socket.socket) -> None:
    """A head without end, of which something comes now and then."""
    connection.sendall(b"HTTP/1.1 200 OK\r\n")
    while True:
        connection.sendall(b"X-More: yes\r\n")
        time.sleep(0.05)


def promise(connection: socket.socket) -> None:
    """Only ever that an answer is on its way."""
    while True:
        connection.sendall(b"HTTP/1.1 102 Processing\r\n\r\n")
        time.sleep(0.05)


def flood(connection: socket.socket) -> None:
    """An answer without end."""
    connection.sendall(_HEAD)
    block = b"100000\r\n" + b" " * 0x100000 + b"\r\n"
    while True:
        connection.sendall(block)


def babble(connection: socket.socket) -> None:
    """Something that is no HTTP."""
    connection.sendall(b"220 mail.example ESMTP canary\r\n")


@pytest.mark.parametrize(
    ("behave", "why"),
    [
        (trickle, "it did not answer in time"),
        (creep, "it did not answer in time"),
        (promise, "it did not answer in time"),
        (flood, "its answer is endless"),
        (babble, "it ended the connection without a whole answer"),
        (lambda _connection: None, "it ended the connection without a whole answer"),
    ],
)
def test_an_answer_has_an_end(behave: Callable[[socket.socket], None], why: str) -> None:
    """A server cannot keep the forwarder for longer than the time-out, nor fill its memory; its words are not ours."""
    with (
        raw_server(behave, 0.5 if why.endswith("in time") else 20) as endpoint,
        pytest.raises(SinkDown) as down,
    ):
        endpoint.post("/", b"{}", "application/json")

    assert down.value.why == why


@pytest.mark.parametrize("content", [b"no JSON", b"[1]", b"[" * 100_000, b"\xff"])
def test_an_answer_that_is_no_object_has_no_members(content: bytes) -> None:
    """Whatever it is, it is no verdict."""

    def behave(connection: socket.socket) -> None:
        connection.sendall(_HEAD + f"{len(content):x}\r\n".encode() + content + b"\r\n0\r\n\r\n")

    with raw_server(behave) as endpoint:
        answer = endpoint.post("/", b"{}", "application/json")

    assert answer == Answer(200, {}, None)


def test_nobody_there_is_said_plainly() -> None:
    """A port on which nobody listens."""
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        endpoint = Endpoint("s", f"http://127.0.0.1:{taken.getsockname()[1]}", "None")
        with pytest.raises(SinkDown) as down:
            endpoint.reach("/")
        endpoint.close()

    assert down.value.why == "Connection refused"


def test_a_server_says_how_long_it_wants_to_be_left_alone() -> None:
    """RFC 9110, 10.2.3: seconds, or a time, which is read beside the answer's own Date."""
    to_come = format_datetime(datetime.now(UTC) + timedelta(seconds=300), usegmt=True)
    gone_by = format_datetime(datetime(2020, 1, 1, tzinfo=UTC), usegmt=True)

    assert _wish("120") == 120
    assert 200 <= _wish(to_come) <= 300
    assert _wish(gone_by) == 0


def _wish(said: str) -> float:
    """What is made of a server's `Retry-After`."""
    with listening(Says(Answered(503, {}, {"Retry-After": said}))) as address:
        endpoint = Endpoint("s", f"http://{address}", "None")
        answer = endpoint.post("/", b"{}", "application/json")
        endpoint.close()
    assert answer.retry_after_s is not None
    return answer.retry_after_s


@pytest.mark.parametrize("said", ["", "soon", "-3", "1.5", "9" * 30, f"Fri, 31 Dec {'9' * 30} 23:59:59 GMT"])
def test_a_wish_that_cannot_be_read_is_none(said: str) -> None:
    """The forwarder's own pause is kept then."""
    with listening(Says(Answered(429, {}, {"Retry-After": said}))) as address:
        endpoint = Endpoint("s", f"http://{address}", "None")
        answer = endpoint.post("/", b"{}", "application/json")
        endpoint.close()

    assert answer.retry_after_s is None


def test_a_redirect_is_not_followed() -> None:
    """The token goes to the server that is set, and to no other."""
    with listening(Says(Answered(307, {}, {"Location": "http://127.0.0.1:1/"}))) as address:
        endpoint = Endpoint("s", f"http://{address}", "None")
        answer = endpoint.post("/", b"{}", "application/json")
        endpoint.close()

    assert answer.status == 307
