"""The gateway asks its witnesses: what is sent, what is kept, and what a witness can and cannot make it do."""

from __future__ import annotations

import gzip
import json
import logging
import socketserver
import threading
import time
from base64 import b64encode
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import replace
from datetime import timedelta
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from living.home import Home, home_in
from services.witness import running
from sqlalchemy import select, text

from audit.checkpoint import NoteSigner, NoteVerifier, parse_note
from audit.cosignature import CosignatureSigner
from audit.events import EventType
from audit.reading import reading
from audit.store import each_entry, newest_checkpoint, tree_size, witnessed_checkpoint
from audit.tables import audit_cosignatures
from audit.witness import Memory, Witness, WitnessServer, parse_submission
from audit.witness.submission import Submission
from gateway.api.audit import log_vkey
from gateway.config import Config
from gateway.doctor.errors import Ailing
from gateway.doctor.witnesses import witnesses as examined
from gateway.errors import ConfigError
from gateway.parts.sequencing import sequencer_of
from gateway.parts.starting import recover
from gateway.services import Services, utc_now
from gateway.witnessing import Asker, Standing, WitnessAddress, run_witnesses, witnesses_of
from gateway.witnessing.part import Companion

SIGNER = CosignatureSigner("witness.example/w1", Ed25519PrivateKey.from_private_bytes(bytes(range(1, 33))))
OTHER = CosignatureSigner("witness.example/w2", Ed25519PrivateKey.generate())


@pytest.fixture
def home(tmp_path: Path) -> Iterator[Home]:
    with home_in(tmp_path / "home") as home:
        yield home


@pytest.fixture
def services(home: Home) -> Iterator[Services]:
    """The stores of a gateway whose log has three entries."""
    with home.stores() as services:
        recover(services)
        grow(services, 3)
        yield services


@pytest.fixture(scope="module")
def still(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Services]:
    """The same for tests that add nothing to it."""
    with home_in(tmp_path_factory.mktemp("still") / "home") as home, home.stores() as services:
        recover(services)
        grow(services, 3)
        yield services


def grow(services: Services, count: int) -> int:
    """Add entries, each with a checkpoint of its own; how many there are then."""
    for _ in range(count):
        services.trail.note(EventType.CONFIG_CHANGED, settings=["x"])
        sequencer_of(services).run_once()
    with reading(services.engine) as conn:
        return tree_size(conn)


def key_of(services: Services) -> NoteVerifier:
    return NoteVerifier.parse(log_vkey(services))


@contextmanager
def witness_of(
    folder: Path, *keys: NoteVerifier, signer: CosignatureSigner = SIGNER
) -> Iterator[WitnessAddress]:
    """A real witness in a thread, and where it is."""
    folder.mkdir()
    witness = Witness(signer, keys, Memory.create(folder / "witness.db", signer.name), utc_now)
    server = WitnessServer("127.0.0.1", 0, witness)
    thread = threading.Thread(target=server.serve_forever, args=(0.01,))
    thread.start()
    try:
        yield address(server.url, signer)
    finally:
        server.finish(5)
        thread.join()


def address(url: str, signer: CosignatureSigner = SIGNER) -> WitnessAddress:
    (found,) = witnesses_of(Config(witnesses=f"{url} {signer.vkey}"))
    return found


@contextmanager
def asker_of(services: Services, witness: WitnessAddress) -> Iterator[Asker]:
    asker = Asker(services.engine, services.engine, witness, services.clock)
    try:
        yield asker
    finally:
        asker.close()


def kept(services: Services) -> list[tuple[int, str]]:
    query = select(audit_cosignatures.c.size, audit_cosignatures.c.witness)
    with reading(services.engine) as conn:
        return [(row.size, row.witness) for row in conn.execute(query.order_by(audit_cosignatures.c.size))]


def test_the_newest_checkpoint_is_cosigned_and_kept(services: Services, tmp_path: Path) -> None:
    """From nothing, then from the tree that was cosigned last; what readers get bears both signatures."""
    with (
        witness_of(tmp_path / "w", key_of(services)) as witness,
        asker_of(services, witness) as asker,
    ):
        found = [asker.ask(), asker.ask()]
        size = grow(services, 5)
        found += [asker.ask(), asker.ask()]

    assert {one.standing for one in found} == {Standing.COSIGNED}
    assert kept(services) == [(3, witness.name), (size, witness.name)]
    with reading(services.engine) as conn:
        newest, witnessed = newest_checkpoint(conn), witnessed_checkpoint(conn, 1)
    assert newest is not None
    assert newest == witnessed
    assert witness.verifier.find(newest.note) is not None
    assert key_of(services).open(newest.note).size == size


def test_who_lost_count_begins_where_the_witness_says(services: Services, tmp_path: Path) -> None:
    """A gateway that is new, or whose answer was lost: 409 tells the size, and the next try succeeds."""
    with witness_of(tmp_path / "w", key_of(services)) as witness:
        with asker_of(services, witness) as asker:
            asker.ask()
        grow(services, 2)
        with services.engine.begin() as conn:
            conn.exec_driver_sql("DROP TRIGGER audit_cosignatures_no_delete")
            conn.execute(audit_cosignatures.delete())  # as if it had never come
        with asker_of(services, witness) as asker:
            found = asker.ask()

    assert (found.standing, found.size) == (Standing.COSIGNED, 5)
    assert kept(services) == [(5, witness.name)]


def test_the_same_cosignature_twice_is_no_error(services: Services, tmp_path: Path) -> None:
    """Two gateways ask for the same checkpoint: the first line stays."""
    with (
        witness_of(tmp_path / "w", key_of(services)) as witness,
        asker_of(services, witness) as one,
        asker_of(services, witness) as two,
    ):
        assert [one.ask().standing, two.ask().standing] == [Standing.COSIGNED] * 2

    assert kept(services) == [(3, witness.name)]


def test_a_log_that_was_restored_from_an_old_copy_is_refused(
    services: Services, home: Home, tmp_path: Path
) -> None:
    """The witness remembers more than the log has: told at once, and again when the log has grown anew."""
    older = home.copy(tmp_path / "older")
    with witness_of(tmp_path / "w", key_of(services)) as witness:
        grow(services, 3)
        with asker_of(services, witness) as asker:
            asker.ask()

        with older.stores() as restored, asker_of(restored, witness) as asker:
            short = asker.ask()
            grow(restored, 5)
            regrown = asker.ask()

    assert (short.standing, short.size, short.known_size) == (Standing.REFUSED, 3, 6)
    assert (regrown.standing, regrown.size, regrown.known_size) == (Standing.REFUSED, 8, 6)
    assert kept(services) == [(6, witness.name)]


def test_a_copy_that_bears_a_cosignature_is_asked_about_before_it_grows(
    services: Services, home: Home, tmp_path: Path
) -> None:
    """Its newest checkpoint was cosigned once, and is long not the last: the first question after a start tells."""
    with witness_of(tmp_path / "w", key_of(services)) as witness:
        with asker_of(services, witness) as asker:
            asker.ask()
            older = home.copy(tmp_path / "older")
            grow(services, 2)
            asker.ask()

        with older.stores() as restored, asker_of(restored, witness) as asker:
            found = asker.ask()

    assert (found.standing, found.size, found.known_size) == (Standing.REFUSED, 3, 5)


def test_a_log_that_forked_is_refused_at_the_same_size_too(
    services: Services, home: Home, tmp_path: Path
) -> None:
    """Two histories of one size, both signed with the log's own key: the witness saw the other one."""
    fork = home.copy(tmp_path / "fork")
    with witness_of(tmp_path / "w", key_of(services)) as witness:
        grow(services, 2)
        with asker_of(services, witness) as asker:
            asker.ask()

        with fork.stores() as forked, asker_of(forked, witness) as asker:
            grow(forked, 2)
            found = asker.ask()

    assert (found.standing, found.size, found.known_size) == (Standing.REFUSED, 5, 5)
    assert "another tree of this size" in found.reason


def test_a_witness_that_does_not_follow_the_log_is_unwilling(still: Services, tmp_path: Path) -> None:
    """404 and 403: its operator has to be told our key; that is no alarm."""
    origin = key_of(still).name
    stranger = NoteVerifier.parse(NoteSigner("example.com/other", Ed25519PrivateKey.generate()).vkey)
    impostor = NoteVerifier.parse(NoteSigner(origin, Ed25519PrivateKey.generate()).vkey)

    for number, key in enumerate((stranger, impostor)):
        with witness_of(tmp_path / str(number), key) as witness, asker_of(still, witness) as asker:
            assert asker.ask().standing is Standing.UNWILLING

    assert kept(still) == []


Lie = Callable[[bytes], tuple[int, bytes]]


class _Lying(BaseHTTPRequestHandler):
    """Answers what the server says."""

    protocol_version = "HTTP/1.1"

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers["Content-Length"]))
        status, answer = self.server.lie(body)  # type: ignore[attr-defined]
        self.send_response(status)
        for name, value in self.server.headers.items():  # type: ignore[attr-defined]
            self.send_header(name, value)
        self.send_header("Content-Length", str(len(answer)))
        self.end_headers()
        self.wfile.write(answer)

    def log_message(self, *arguments: object) -> None:
        """Silent."""


@contextmanager
def liar(
    lie: Lie, *, location: str = "http://127.0.0.1:1/", encoding: str = "identity"
) -> Iterator[WitnessAddress]:
    server = ThreadingHTTPServer(("127.0.0.1", 0), _Lying)
    server.lie = lie  # type: ignore[attr-defined]
    server.headers = {"Location": location, "Content-Encoding": encoding}  # type: ignore[attr-defined]
    server.handle_error = lambda *_: None  # type: ignore[method-assign]
    thread = threading.Thread(target=server.serve_forever, args=(0.01,))
    thread.start()
    try:
        yield address(f"http://127.0.0.1:{server.server_address[1]}")
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


def _cosigned(body: bytes, signer: CosignatureSigner = SIGNER, changed: str = "") -> bytes:
    text = parse_note(parse_submission(body).note).text
    return signer.cosign(changed or text, utc_now()).encode()


LIES: dict[str, Lie] = {
    "nothing": lambda _: (200, b""),
    "no line": lambda _: (200, b"OK\n"),
    "another key's": lambda body: (200, _cosigned(body, OTHER)),
    "of another text": lambda body: (200, _cosigned(body, changed="example.com/log\n9\nAAAA\n")),
    "garbled": lambda body: (200, _cosigned(body)[:-9] + b"AAAAAAA=\n"),
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
        return 200, gzip.compress(_cosigned(body))

    with (
        liar(lambda body: (200, _cosigned(body) + b"x" * 300_000)) as witness,
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


def test_other_lines_in_an_answer_are_dropped(services: Services) -> None:
    """C2SP: cosignatures of unknown keys are ignored; what is kept is the one line, as we write it."""

    def both(body: bytes) -> tuple[int, bytes]:
        return 200, _cosigned(body, OTHER) + _cosigned(body)

    with liar(both) as witness, asker_of(services, witness) as asker:
        assert asker.ask().standing is Standing.COSIGNED

    with reading(services.engine) as conn:
        newest = newest_checkpoint(conn)
    assert newest is not None
    assert OTHER.name not in newest.note


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


def test_two_witnesses_are_asked_beside_each_other_and_one_that_hangs_holds_up_neither(
    home: Home, services: Services, tmp_path: Path
) -> None:
    """A quorum of two of three: the third takes connections and says nothing."""
    with (
        witness_of(tmp_path / "w1", key_of(services)) as one,
        witness_of(tmp_path / "w2", key_of(services), signer=OTHER) as two,
        socketserver.TCPServer(("127.0.0.1", 0), socketserver.BaseRequestHandler) as hanging,
    ):
        third = CosignatureSigner("witness.example/w3", Ed25519PrivateKey.generate())
        three = address(f"http://127.0.0.1:{hanging.server_address[1]}", third)
        config = replace(
            services.config,
            witnesses=", ".join(f"{at.url} {at.verifier.vkey}" for at in (one, two, three)),
            witness_quorum=2,
            witness_interval_s=0.05,
        )
        asking = replace(services, config=config)
        stop = threading.Event()
        thread = threading.Thread(target=run_witnesses, args=(asking, asking.engine, stop))
        thread.start()
        try:
            first = _await_witnessed(services, 3)
            grow(services, 2)
            second = _await_witnessed(services, 5)
        finally:
            stop.set()
            began = time.monotonic()
            thread.join()

    assert time.monotonic() - began < 10
    for note in (first, second):
        assert one.verifier.find(note) is not None
        assert two.verifier.find(note) is not None
        assert three.verifier.find(note) is None


def _await_witnessed(services: Services, size: int) -> str:
    deadline = time.monotonic() + 30
    while time.monotonic() < deadline:
        with reading(services.engine) as conn:
            found = witnessed_checkpoint(conn, 2)
        if found is not None and found.size == size:
            return found.note
        time.sleep(0.02)
    raise AssertionError("it was not witnessed in time")


def test_a_refusal_is_an_entry_once_and_a_critical_line_each_time(
    services: Services, home: Home, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """`witness.refused` says who, why, and both sizes; asking goes on, more and more rarely."""
    older = home.copy(tmp_path / "older")
    with witness_of(tmp_path / "w", key_of(services)) as witness:
        grow(services, 3)
        with asker_of(services, witness) as asker:
            asker.ask()

        with older.stores() as restored, caplog.at_level(logging.WARNING):
            companion = Companion(restored, restored.engine, witness)
            pauses = []
            for _ in range(3):
                companion.look()
                pauses.append(companion.pause_s)
            companion.close()
            sequencer_of(restored).run_once()
            told = _entries(restored, "witness.refused")

    assert len([line for line in caplog.messages if "REFUSES" in line]) == 3
    assert [(one["outcome"], one["details"]) for one in told] == [
        (
            "failure",
            {
                "witness": witness.name,
                "reason": "it cosigned a larger tree than this log has",
                "size": 3,
                "known_size": 6,
            },
        )
    ]
    assert pauses[0] >= 1.0
    assert pauses[2] > pauses[0] * 0.9


def test_a_refusal_is_an_entry_although_the_first_try_to_write_it_failed(
    services: Services, home: Home, tmp_path: Path
) -> None:
    """The alarm is not lost with a database that is away at the wrong moment."""
    older = home.copy(tmp_path / "older")
    with witness_of(tmp_path / "w", key_of(services)) as witness:
        grow(services, 3)
        with asker_of(services, witness) as asker:
            asker.ask()

        with older.stores() as restored:
            refuse_writes = text(
                "CREATE TRIGGER away BEFORE INSERT ON audit_pending BEGIN SELECT RAISE(FAIL, 'away'); END"
            )
            with restored.engine.begin() as conn:
                conn.execute(refuse_writes)
            companion = Companion(restored, restored.engine, witness)
            companion.look()
            with restored.engine.begin() as conn:
                conn.execute(text("DROP TRIGGER away"))
            for _ in range(2):
                companion.look()
            companion.close()
            sequencer_of(restored).run_once()
            told = _entries(restored, "witness.refused")

    assert len(told) == 1


def _entries(services: Services, event_type: str) -> list[dict[str, object]]:
    with reading(services.engine) as conn:
        found = [json.loads(entry.canonical) for entry in each_entry(conn)]
    return [entry for entry in found if entry["event_type"] == event_type]


def test_a_witness_s_outage_is_told_once_and_its_return_too(
    services: Services, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """It is no entry: who is away refuses nothing."""
    with running(tmp_path / "w", "witness.example/w1", log_vkey(services)) as process:
        (witness,) = witnesses_of(Config(witnesses=process.setting))
        companion = Companion(services, services.engine, witness)
        process.kill()
        with caplog.at_level(logging.WARNING):
            companion.look()
            companion.look()
            process.start()
            companion.look()
            companion.look()
        companion.close()

    assert [line.partition(":")[0] for line in caplog.messages if "the witness" in line] == [
        f"the witness {witness.name} does not cosign",
        f"the witness {witness.name} cosigns again",
    ]
    assert kept(services) == [(3, witness.name)]


def test_the_pause_has_a_longest_and_comes_back(services: Services, tmp_path: Path) -> None:
    """At most a minute; as short as the setting again after a cosignature."""
    with witness_of(tmp_path / "w", key_of(services)) as witness:
        companion = Companion(services, services.engine, address("http://127.0.0.1:1"))
        for _ in range(12):
            companion.look()
        longest = companion.pause_s
        companion.close()
        well = Companion(services, services.engine, witness)
        well.pause_s = 40.0
        well.look()
        well.close()

    assert 30 <= longest <= 60
    assert well.pause_s == services.config.witness_interval_s


GOOD = f"https://w.example {SIGNER.vkey}"


@pytest.mark.parametrize(
    ("witnesses", "quorum", "said"),
    [
        ("https://w.example", 1, "a URL, a blank"),
        (f"https://w.example {SIGNER.vkey} more", 1, "a URL, a blank"),
        (f"w.example {SIGNER.vkey}", 1, "has a host"),
        (f"ftp://w.example {SIGNER.vkey}", 1, "has a host"),
        (f"https://user:secret@w.example {SIGNER.vkey}", 1, "neither user"),
        (f"https://w.example?token=secret {SIGNER.vkey}", 1, "nor query"),
        (f"http://w.example {SIGNER.vkey}", 1, "must be https"),
        (f"https://[w.example {SIGNER.vkey}", 1, "a URL, a blank"),
        ("https://w.example x+00000000+AAAA", 1, "cannot be used"),
        (f"{GOOD}, https://other.example {SIGNER.vkey}", 1, "one key twice"),
        (GOOD, 0, "from 1 to that"),
        (GOOD, 2, "there are 1 witnesses"),
    ],
)
def test_settings_that_cannot_be_meant_are_refused(witnesses: str, quorum: int, said: str) -> None:
    """At the start, with a sentence; a secret in a URL is not repeated."""
    with pytest.raises(ConfigError, match=said) as refused:
        witnesses_of(Config(witnesses=witnesses, witness_quorum=quorum))

    assert "secret" not in str(refused.value)


def test_no_witnesses_are_none() -> None:
    """The default, with whatever quorum."""
    assert witnesses_of(Config(witnesses=" , ", witness_quorum=7)) == ()


def test_what_is_sent_is_what_the_protocol_says(services: Services) -> None:
    """C2SP tlog-witness: the old size, the proof in base64, an empty line, the checkpoint."""
    bodies: list[bytes] = []

    def listen(body: bytes) -> tuple[int, bytes]:
        bodies.append(body)
        return 200, _cosigned(body)

    with liar(listen) as witness, asker_of(services, witness) as asker:
        asker.ask()
        grow(services, 2)
        asker.ask()

    with reading(services.engine) as conn:
        newest = newest_checkpoint(conn, cosigned=False)
    assert newest is not None
    first, second = (body.decode() for body in bodies)
    proof = parse_submission(bodies[1]).proof
    assert first.startswith("old 0\n\n")
    assert (
        second == "old 3\n" + "".join(f"{b64encode(step).decode()}\n" for step in proof) + f"\n{newest.note}"
    )
    assert Submission(3, proof, newest.note).body() == bodies[1]


def _diagnosis(services: Services, *witnesses: WitnessAddress, quorum: int = 1) -> str:
    named = ", ".join(f"{witness.url} {witness.verifier.vkey}" for witness in witnesses)
    return examined(replace(services.config, witnesses=named, witness_quorum=quorum))


def test_the_doctor_asks_each_witness_and_has_nothing_cosigned(services: Services, tmp_path: Path) -> None:
    """It says how much each has cosigned; what it sends must be refused by whoever follows the log."""
    with witness_of(tmp_path / "w", key_of(services)) as witness:
        before = _diagnosis(services, witness)
        with asker_of(services, witness) as asker:
            asker.ask()
        after = _diagnosis(services, witness)

    assert before == "witness.example/w1 has cosigned 0 of 3 entries; 1 of 1 are needed"
    assert after == "witness.example/w1 has cosigned 3 of 3 entries; 1 of 1 are needed"
    assert Memory(tmp_path / "w" / "witness.db").last(key_of(services).name).size == 3


def test_the_doctor_tells_what_is_wrong_with_a_witness(
    services: Services, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Not there; not told our key; not cosigning for minutes; settings that cannot be meant."""
    stranger = NoteVerifier.parse(NoteSigner("example.com/other", Ed25519PrivateKey.generate()).vkey)

    with pytest.raises(Ailing, match="cannot be asked: it does not answer"):
        _diagnosis(services, address("http://127.0.0.1:1"))
    with (
        witness_of(tmp_path / "w1", stranger) as witness,
        pytest.raises(Ailing, match="must give it the key"),
    ):
        _diagnosis(services, witness)
    with witness_of(tmp_path / "w2", key_of(services)) as witness:
        monkeypatch.setattr("gateway.doctor.witnesses._PATIENCE", timedelta(0))
        with pytest.raises(Ailing, match="0 of 3 entries, and nothing for minutes"):
            _diagnosis(services, witness)
    with pytest.raises(ConfigError, match="FLG_WITNESS_QUORUM"):
        _diagnosis(services, witness, quorum=2)
    with pytest.raises(Ailing, match="FLG_WITNESS_INTERVAL_S"):
        examined(replace(services.config, witness_interval_s=0.0))


def test_the_doctor_makes_no_database(tmp_path: Path) -> None:
    """Before the first start there is nothing to compare."""
    config = Config(database_url=f"sqlite:///{tmp_path}/none.db", witnesses=GOOD)

    assert examined(config) == "1 of them; the log is made at the first start"
    assert examined(Config()).startswith("none")
    assert list(tmp_path.iterdir()) == []
