"""The witness on the wire and as a process: statuses of C2SP tlog-witness, limits against strangers, SIGKILL."""

from __future__ import annotations

import http.client
import json
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from logbook import SIGNER
from services.checkout import ROOT
from services.clock import FixedClock
from services.witness import WitnessProcess, running
from test_witness_judging import COSIGNER, GOOD, VERIFIER, Tree

from audit.checkpoint import NoteSigner, NoteVerifier
from audit.cosignature import CosignatureVerifier
from audit.witness import Memory, Submission, Witness, WitnessServer
from audit.witness.serving import MAX_BODY_BYTES, MAX_CONNECTIONS

TREE = Tree(30)
NAME = "witness.example/w1"


@dataclass(frozen=True, slots=True)
class Answer:
    """What came back."""

    status: int
    kind: str
    body: str


@contextmanager
def served(folder: Path, *, request_s: float = 5.0, idle_s: float = 5.0) -> Iterator[WitnessServer]:
    """A server in a thread."""
    memory = Memory.create(folder / "witness.db", COSIGNER.name)
    witness = Witness(COSIGNER, [NoteVerifier.parse(SIGNER.vkey)], memory, FixedClock())
    server = WitnessServer("127.0.0.1", 0, witness, request_s=request_s, idle_s=idle_s)
    thread = threading.Thread(target=server.serve_forever, args=(0.01,))
    thread.start()
    try:
        yield server
    finally:
        server.finish(5)
        thread.join()


@pytest.fixture
def server(tmp_path: Path) -> Iterator[WitnessServer]:
    with served(tmp_path) as server:
        yield server


def connected(url: str) -> http.client.HTTPConnection:
    return http.client.HTTPConnection(url.removeprefix("http://"), timeout=20)


def sent(connection: http.client.HTTPConnection, body: bytes, path: str = "/add-checkpoint") -> Answer:
    connection.request("POST", path, body)
    answer = connection.getresponse()
    return Answer(answer.status, answer.getheader("Content-Type", ""), answer.read().decode())


def asked(url: str, body: bytes) -> Answer:
    connection = connected(url)
    try:
        return sent(connection, body)
    finally:
        connection.close()


def raw(server: WitnessServer, data: bytes, *, closes: bool = True) -> bytes:
    """Everything that comes back to these bytes."""
    host, port = server.server_address[:2]
    with socket.create_connection((str(host), port), timeout=20) as stranger:
        stranger.sendall(data)
        if closes:
            stranger.shutdown(socket.SHUT_WR)
        parts = []
        while part := stranger.recv(65536):
            parts.append(part)
    return b"".join(parts)


def test_each_status_of_the_specification_comes_over_one_connection(server: WitnessServer) -> None:
    """C2SP tlog-witness: 200, 409 with the size, 422, 403, 404, 400; keep-alive is supported."""
    connection = connected(server.url)
    forged = NoteSigner(SIGNER.origin, Ed25519PrivateKey.generate())
    stranger = NoteSigner("example.com/other", Ed25519PrivateKey.generate())
    step = TREE.step(0, 20)

    good = sent(connection, step.body())
    socket_used = connection.sock
    behind = sent(connection, TREE.step(10, 20).body())
    unproven = sent(connection, Submission(20, (), TREE.note(25)).body())
    forked = sent(connection, Submission(20, (), Tree(20, fork_at=1).note(20)).body())
    wrong = [
        sent(connection, Submission(0, (), forged.sign(1, bytes(32))).body()).status,
        sent(connection, Submission(0, (), stranger.sign(1, bytes(32))).body()).status,
        sent(connection, b"hello").status,
        sent(connection, b"").status,
        sent(connection, Submission(30, (), TREE.note(20)).body()).status,
    ]
    again = sent(connection, Submission(20, (), TREE.note(20)).body())

    assert (good.status, good.kind) == (200, "text/plain; charset=utf-8")
    assert VERIFIER.find(step.note + good.body) is not None
    assert behind == Answer(409, "text/x.tlog.size", "20\n")
    assert forked == Answer(409, "text/x.tlog.size", "20\n")
    assert unproven.status == 422
    assert wrong == [403, 404, 400, 400, 400]
    assert (again.status, connection.sock) == (200, socket_used)
    connection.close()


@pytest.mark.parametrize(
    ("request_line", "headers", "status"),
    [
        ("GET / HTTP/1.1", "", 404),
        ("GET /add-checkpoint HTTP/1.1", "", 405),
        ("HEAD /add-checkpoint HTTP/1.1", "", 501),
        ("PUT /add-checkpoint HTTP/1.1", "", 501),
        ("POST /other HTTP/1.1", "Content-Length: 3\r\n", 404),
        ("POST /add-checkpoint HTTP/1.1", "", 411),
        ("POST /add-checkpoint HTTP/1.1", "Transfer-Encoding: chunked\r\n", 411),
        ("POST /add-checkpoint HTTP/1.1", "Transfer-Encoding: chunked\r\nContent-Length: 3\r\n", 411),
        ("POST /add-checkpoint HTTP/1.1", "Content-Length: 3\r\nContent-Length: 4\r\n", 400),
        ("POST /add-checkpoint HTTP/1.1", "Content-Length: -1\r\n", 400),
        ("POST /add-checkpoint HTTP/1.1", "Content-Length: +3\r\n", 400),
        ("POST /add-checkpoint HTTP/1.1", "Content-Length: 1_0\r\n", 400),
        ("POST /add-checkpoint HTTP/1.1", f"Content-Length: {MAX_BODY_BYTES + 1}\r\n", 413),
        ("POST /add-checkpoint HTTP/1.1", "Content-Length: 99999999999999\r\n", 400),
        ("POST /add-checkpoint HTTP/9.9", "", 505),
        ("nonsense", "", 400),
        ("POST /" + "a" * 70_000 + " HTTP/1.1", "", 414),
        ("POST /add-checkpoint HTTP/1.1", "".join(f"X-{n}: 1\r\n" for n in range(200)), 431),
        ("POST /add-checkpoint HTTP/1.1", "Content-Length: 50\r\n", 400),
    ],
)
def test_a_stranger_s_request_is_answered_and_never_repeated(
    server: WitnessServer, request_line: str, headers: str, status: int
) -> None:
    """Plain text with the status; nothing of what was sent comes back."""
    answer = raw(server, f"{request_line}\r\nX-Marker: canary-7\r\n{headers}\r\nabc".encode())

    first, _, rest = answer.partition(b"\r\n")
    assert first.startswith(f"HTTP/1.1 {status} ".encode()), answer[:200]
    assert b"canary-7" not in rest
    assert b"<" not in rest
    assert asked(server.url, GOOD).status == 200


def test_endless_headers_end_the_connection(server: WitnessServer) -> None:
    """The bytes of one request are bounded, whatever they are."""
    line = b"X-Long: " + b"a" * 60_000 + b"\r\n"

    try:
        answer = raw(server, b"POST /add-checkpoint HTTP/1.1\r\n" + line * 50, closes=False)
    except ConnectionError:
        answer = b""  # it was cut while we were sending

    assert b"200" not in answer
    assert asked(server.url, GOOD).status == 200


def test_who_sends_a_byte_now_and_then_is_cut_off_in_time(tmp_path: Path) -> None:
    """A request has a deadline as a whole: a time-out between two bytes would never come."""
    with served(tmp_path, request_s=0.5, idle_s=60) as server:
        host, port = server.server_address[:2]
        began = time.monotonic()
        with socket.create_connection((str(host), port), timeout=20) as slow:
            ended = threading.Event()

            def drip() -> None:
                for letter in b"POST /add-checkpoint HTTP/1.1\r\n" + b"X: " + b"a" * 500:
                    try:
                        slow.send(bytes([letter]))
                    except OSError:
                        break
                    if ended.wait(0.05):
                        break

            dripping = threading.Thread(target=drip)
            dripping.start()
            try:
                left = slow.recv(100)
            except ConnectionResetError:
                left = b""
            ended.set()
            dripping.join()

        assert left == b""
        assert time.monotonic() - began < 10
        assert asked(server.url, GOOD).status == 200


def test_idle_connections_are_given_up(tmp_path: Path) -> None:
    """One that never asks, and one that asked once."""
    with served(tmp_path, request_s=0.3, idle_s=0.3) as server:
        assert raw(server, b"", closes=False) == b""
        length = f"POST /add-checkpoint HTTP/1.1\r\nContent-Length: {len(GOOD)}\r\n\r\n".encode()
        assert raw(server, length + GOOD, closes=False).startswith(b"HTTP/1.1 200 ")


def test_more_connections_than_threads_are_told_to_come_again(tmp_path: Path) -> None:
    """Threads are bounded; once the others are gone there is room again."""
    with served(tmp_path, request_s=20) as server:
        host, port = server.server_address[:2]
        holding = [socket.create_connection((str(host), port)) for _ in range(MAX_CONNECTIONS)]
        for held in holding:
            held.send(b"P")

        full = raw(server, b"", closes=False)

        for held in holding:
            held.close()
        deadline = time.monotonic() + 10
        while (answer := asked(server.url, GOOD)).status == 503 and time.monotonic() < deadline:
            time.sleep(0.02)
    assert full.startswith(b"HTTP/1.1 503 ")
    assert answer.status == 200


def test_when_there_are_many_connections_none_is_kept_open(tmp_path: Path) -> None:
    """So that whoever only keeps connections keeps nobody else out."""
    with served(tmp_path, request_s=20) as server:
        host, port = server.server_address[:2]
        holding = [socket.create_connection((str(host), port)) for _ in range(MAX_CONNECTIONS // 2 + 1)]
        deadline = time.monotonic() + 10
        while not server.is_busy and time.monotonic() < deadline:
            time.sleep(0.01)
        connection = connected(server.url)

        sent(connection, GOOD)

        assert connection.sock is None  # the library saw `Connection: close`
        for held in holding:
            held.close()


def test_a_memory_that_cannot_be_written_gives_no_cosignature(tmp_path: Path) -> None:
    """The step is on the disk before the signature leaves; if it cannot be, the answer is 503."""
    with served(tmp_path) as server:
        (tmp_path / "witness.db").rename(tmp_path / "away")

        away = asked(server.url, GOOD)

        (tmp_path / "away").rename(tmp_path / "witness.db")
        assert away.status == 503
        assert "—" not in away.body
        assert asked(server.url, GOOD).status == 200


def test_a_killed_witness_remembers_what_it_cosigned(tmp_path: Path) -> None:
    """SIGKILL and a new start: the same key, the last tree, and no fork."""
    with running(tmp_path / "w", NAME, SIGNER.vkey) as witness:
        first = asked(witness.url, TREE.step(0, 20).body())
        vkey = witness.vkey
        witness.kill()

        witness.start()

        assert first.status == 200
        assert witness.vkey == vkey
        assert asked(witness.url, TREE.step(0, 25).body()) == Answer(409, "text/x.tlog.size", "20\n")
        assert asked(witness.url, Tree(25, fork_at=3).step(20, 25).body()).status == 422
        grown = TREE.step(20, 25)
        cosigned = asked(witness.url, grown.body())
        assert CosignatureVerifier.parse(vkey).find(grown.note + cosigned.body) is not None
        kept = [json.loads(line) for line in witness.command("--refused").splitlines()]
        assert [(one["why"], one["cosigned"]) for one in kept] == [("NOT_CONTINUED", TREE.note(20))]
        assert "NOT_CONTINUED" in witness.told


def test_a_witness_killed_at_any_moment_never_takes_a_cosignature_back(tmp_path: Path) -> None:
    """Whatever it answered before SIGKILL, it knows after: six times under load."""
    with running(tmp_path / "w", NAME, SIGNER.vkey) as witness:
        known = 0
        for turn in range(1, 7):
            timer = threading.Timer(0.01 * turn, witness.kill)
            timer.start()
            known = _climb(witness.url, known)
            timer.join()
            witness.start()

            told = asked(witness.url, _TOO_FAR.body())

            assert told.status == 409
            assert int(told.body) in (known, known + 1)
            known = int(told.body)


_HIGH = Tree(500)
_TOO_FAR = Submission(500, (), _HIGH.note(500))  # nobody gets there, so that the answer tells how far it is


def _climb(url: str, size: int) -> int:
    """Cosign tree after tree until the witness is gone; the last size that it answered."""
    connection = connected(url)
    try:
        while size < 499:
            if sent(connection, _HIGH.step(size, size + 1).body()).status == 200:
                size += 1
    except (OSError, http.client.HTTPException):
        pass
    finally:
        connection.close()
    return size


def test_two_processes_on_one_state_do_not_cosign_two_histories(tmp_path: Path) -> None:
    """Two servers, sixteen forks of one size at the same time: all cosignatures are of one tree."""
    with (
        running(tmp_path / "w", NAME, SIGNER.vkey) as one,
        _second(one) as two,
        ThreadPoolExecutor(16) as pool,
    ):
        forks = [Tree(16, fork_at=place) for place in range(16)]
        answers = list(
            pool.map(
                lambda n: asked((one, two)[n % 2].url, forks[n].step(0, 16).body()),
                range(16),
            )
        )

    assert one.vkey == two.vkey
    assert sorted(answer.status for answer in answers) == [200] + [409] * 15


@contextmanager
def _second(first: WitnessProcess) -> Iterator[WitnessProcess]:
    """Another process on the same folder; its output goes elsewhere."""
    second = _Beside(first.folder, first.name, *first.logs)
    try:
        yield second.start()
    finally:
        second.kill()


class _Beside(WitnessProcess):
    def _file(self, kind: str) -> Path:
        return self.folder.with_name(f"{self.folder.name}.second.{kind}")


def test_it_ends_in_order(tmp_path: Path) -> None:
    """SIGTERM: exit status 0."""
    with running(tmp_path / "w", NAME, SIGNER.vkey) as witness:
        assert witness.stop() == 0


@pytest.mark.parametrize(
    ("words", "said"),
    [
        ([], "needs a name"),
        (["--name", "a b"], "neither spaces"),
        (["--name", NAME], "--log VKEY"),
        (["--name", NAME, "--log", "no+key"], "name+hash+base64"),
        (["--name", NAME, "--log", COSIGNER.vkey], "algorithm 1"),
        (["--name", NAME, "--log", "/nowhere"], "/nowhere: No such file"),
        (["--name", NAME, "--log", SIGNER.vkey, "--host", "192.0.2.1"], "192.0.2.1"),
        (["--name", NAME, "--port", "70000"], "a port is a number"),
    ],
)
def test_wrong_usage_is_one_sentence_and_exit_2(tmp_path: Path, words: list[str], said: str) -> None:
    """As every command of the gateway."""
    done = subprocess.run(
        [sys.executable, "-m", "audit.witness", "--state", str(tmp_path / "s"), *words],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=30,
        check=False,
    )

    assert (done.returncode, done.stdout) == (2, "")
    assert said in done.stderr
    assert "Traceback" not in done.stderr


def test_a_log_s_key_may_come_from_a_file(tmp_path: Path) -> None:
    """`--log FILE`, as the gateway's page shows it; and `--vkey` prints the key without starting."""
    (tmp_path / "log.vkey").write_text(SIGNER.vkey + "\n")

    with running(tmp_path / "w", NAME, str(tmp_path / "log.vkey")) as witness:
        assert asked(witness.url, GOOD).status == 200
        assert witness.command("--vkey") == witness.vkey + "\n"


_ALONE = """
import importlib.abc, sys

class OnlyTheStandardLibrary(importlib.abc.MetaPathFinder):
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] not in (*sys.stdlib_module_names, "audit", "cryptography", "_cffi_backend", "cffi"):
            raise ModuleNotFoundError(name)
        return None

sys.meta_path.insert(0, OnlyTheStandardLibrary())
import audit.witness.command, audit.witness.serving, audit.cosignature
print("alone")
"""


def test_it_needs_the_standard_library_and_cryptography_alone() -> None:
    """A witness runs on a machine that has no gateway."""
    done = subprocess.run(
        [sys.executable, "-c", _ALONE], cwd=ROOT, capture_output=True, text=True, timeout=30, check=False
    )

    assert done.stdout == "alone\n", done.stderr
