"""Witnesses for tests of the gateway that asks them: real ones in threads, and one that answers what it likes."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from sqlalchemy import select

from audit.checkpoint import NoteVerifier, parse_note
from audit.cosignature import CosignatureSigner
from audit.events import EventType
from audit.reading import reading
from audit.store import tree_size
from audit.tables import audit_cosignatures
from audit.witness import Memory, Witness, WitnessServer, parse_submission
from gateway.api.audit import log_vkey
from gateway.config import Config
from gateway.parts.sequencing import sequencer_of
from gateway.services import Services, utc_now
from gateway.witnessing import Asker, WitnessAddress, witnesses_of

Lie = Callable[[bytes], tuple[int, bytes]]
"""What a witness answers to a submission: a status and a body."""
SIGNER = CosignatureSigner("witness.example/w1", Ed25519PrivateKey.from_private_bytes(bytes(range(1, 33))))
OTHER = CosignatureSigner("witness.example/w2", Ed25519PrivateKey.generate())


def grow(services: Services, count: int) -> int:
    """Add entries, each with a checkpoint of its own; how many there are then."""
    for _ in range(count):
        services.trail.note(EventType.CONFIG_CHANGED, settings=["x"])
        sequencer_of(services).run_once()
    with reading(services.engine) as conn:
        return tree_size(conn)


def key_of(services: Services) -> NoteVerifier:
    """The key of a gateway's log."""
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
    """Where a witness is, as a gateway reads it from its settings."""
    (found,) = witnesses_of(Config(witnesses=f"{url} {signer.vkey}"))
    return found


@contextmanager
def asker_of(services: Services, witness: WitnessAddress) -> Iterator[Asker]:
    """The part of a gateway that asks this witness."""
    asker = Asker(services.engine, services.engine, witness, services.clock)
    try:
        yield asker
    finally:
        asker.close()


def kept(services: Services) -> list[tuple[int, str]]:
    """Which cosignatures a gateway has: of which size, by whom."""
    query = select(audit_cosignatures.c.size, audit_cosignatures.c.witness)
    with reading(services.engine) as conn:
        return [(row.size, row.witness) for row in conn.execute(query.order_by(audit_cosignatures.c.size))]


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
    """A witness that answers so, with these headers, and where it is."""
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


def cosigned(body: bytes, signer: CosignatureSigner = SIGNER, changed: str = "") -> bytes:
    """The answer of an honest witness to a submission; or another one's, or to another text."""
    text = parse_note(parse_submission(body).note).text
    return signer.cosign(changed or text, utc_now()).encode()
