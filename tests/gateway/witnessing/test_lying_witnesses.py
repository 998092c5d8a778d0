"""What a witness that lies, is slow or is away cannot make the gateway do, keep or follow."""

from __future__ import annotations

import gzip
import socketserver
import threading
import time
from contextlib import suppress
from pathlib import Path

import pytest
from witnesses import OTHER, Lie, address, asker_of, cosigned, kept, key_of, liar, witness_of

from audit.witness import parse_submission
from gateway.services import Services
from gateway.witnessing import Standing

LIES: dict[str, Lie] = {
    "nothing": lambda _: (200, b""),
    "no line": lambda _: (200, b"OK\n"),
    "another key's": lambda body: (200, cosigned(body, OTHER)),
    "of another text": lambda body: (200, cosigned(body, changed="example.com/log\n9\nAAAA\n")),
    "garbled": lambda body: (200, cosigned(body)[:-9] + b"AAAAAAA=\n"),
    "no text": lambda _: (200, b"\xff\xfe\x00"),
    "endless": lambda _: (200, b"x" * 300_000),
    "redirect": lambda _: (307, b""),
    "broken": lambda _: (500, b"Traceback"),
    "busy": lambda _: (503, b""),
    "malformed to it": lambda _: (400, b""),
    "no size": lambda _: (409, b"many\n"),
    "negative": lambda _: (409, b"-1\n"),
    "huge": lambda _: (409, b"9" * 400 + b"\n"),
    "more than a log can have": lambda _: (409, f"{2**53}\n".encode()),
    "smaller each time": lambda body: (409, f"{max(parse_submission(body).old - 1, 1)}\n".encode()),
    "the same, although we can grow": lambda _: (409, b"0\n"),
}


@pytest.mark.parametrize("lie", LIES.values(), ids=LIES.keys())
def test_nothing_that_a_witness_says_counts_but_its_cosignature(still: Services, lie: Lie) -> None:
    """It is away, whatever it answers; nothing is kept, nothing is followed, and asking comes to an end."""
    with liar(lie) as witness, asker_of(still, witness) as asker:
        found = asker.ask()

    assert found.standing is Standing.AWAY
    assert kept(still) == []


def test_a_conflict_at_the_same_size_is_a_refusal_with_or_without_a_size(still: Services) -> None:
    """C2SP asks for the size in a 409 to a wrong old size; other witnesses answer another root with words alone."""

    def conflict(body: bytes) -> tuple[int, bytes]:
        return 409, b"3\n" if parse_submission(body).old != 3 else b"another root of this size\n"

    with liar(conflict) as witness, asker_of(still, witness) as asker:
        found = asker.ask()

    assert (found.standing, found.size, found.known_size) == (Standing.REFUSED, 3, 3)


def test_a_witness_may_look_at_the_old_size_first_when_it_is_knocked_at(still: Services) -> None:
    """C2SP does not say which of 400 and 409 comes first; with either it has found our signature good."""
    for answer in ((400, b""), (409, b"0\n")):
        with liar(lambda _, answer=answer: answer) as witness, asker_of(still, witness) as asker:  # type: ignore[misc]
            assert asker.knock() is None


BEGINNINGS = {
    "http header": ("http", b"HTTP/1.1 200 OK\r\nX-Slow: "),
    "http body": ("http", b"HTTP/1.1 200 OK\r\nContent-Length: 60000\r\n\r\n"),
    "https handshake": ("https", b"\x16\x03\x03\x40\x00\x02\x00\x3f\xfc"),
}


@pytest.mark.parametrize(("scheme", "beginning"), BEGINNINGS.values(), ids=BEGINNINGS.keys())
def test_a_byte_now_and_then_holds_nobody(
    still: Services, monkeypatch: pytest.MonkeyPatch, scheme: str, beginning: bytes
) -> None:
    """The answer as a whole has its time, headers and handshake too; and the doctor does not hang either."""
    monkeypatch.setattr("gateway.witnessing.asking._ANSWER_S", 0.4)

    class Slow(socketserver.BaseRequestHandler):
        def handle(self) -> None:
            with suppress(OSError):
                self.request.recv(1000)
                self.request.sendall(beginning)
                for _ in range(100):
                    self.request.sendall(b"x")
                    time.sleep(0.05)

    with socketserver.ThreadingTCPServer(("127.0.0.1", 0), Slow) as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.01,))
        thread.start()
        with asker_of(still, address(f"{scheme}://127.0.0.1:{server.server_address[1]}")) as asker:
            began_s = time.monotonic()
            found = asker.ask()
            took_s = time.monotonic() - began_s
        server.shutdown()
        thread.join()

    assert (found.standing, found.reason) == (Standing.AWAY, "it does not answer in time")
    assert took_s < 4


def test_an_answer_without_end_is_cut(still: Services) -> None:
    """Although its beginning is a good cosignature; and what is packed is not unpacked."""

    def pack(body: bytes) -> tuple[int, bytes]:
        return 200, gzip.compress(cosigned(body))

    with (
        liar(lambda body: (200, cosigned(body) + b"x" * 300_000)) as witness,
        asker_of(still, witness) as asker,
    ):
        endless = asker.ask()
    with liar(pack, encoding="gzip") as witness, asker_of(still, witness) as asker:
        packed = asker.ask()

    assert (endless.standing, endless.reason) == (Standing.AWAY, "its answer has no end")
    assert packed.standing is Standing.AWAY


def test_a_redirect_is_not_followed(still: Services, tmp_path: Path) -> None:
    """Not even to where the right witness is: a request goes where the operator said, and nowhere else."""
    with (
        witness_of(tmp_path / "w", key_of(still)) as right,
        liar(lambda _: (307, b""), location=f"{right.url}/add-checkpoint") as witness,
        asker_of(still, witness) as asker,
    ):
        found = asker.ask()

    assert (found.standing, found.reason) == (Standing.AWAY, "it answers 307")


def test_who_is_not_there_is_away(still: Services) -> None:
    """A closed port, and one that takes the connection and hangs up."""

    class HangUp(socketserver.BaseRequestHandler):
        def handle(self) -> None:
            self.request.recv(10)

    with socketserver.TCPServer(("127.0.0.1", 0), HangUp) as server:
        port = server.server_address[1]
        thread = threading.Thread(target=server.handle_request)
        thread.start()
        with asker_of(still, address(f"http://127.0.0.1:{port}")) as asker:
            cut = asker.ask()
        thread.join()
    with asker_of(still, address(f"http://127.0.0.1:{port}")) as asker:
        closed = asker.ask()

    assert (cut.standing, closed.standing) == (Standing.AWAY, Standing.AWAY)
