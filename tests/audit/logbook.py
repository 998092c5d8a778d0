"""A log to test with: an engine with the tables and triggers, a sealer, a signer with its memory, a clock."""

from __future__ import annotations

import json
import threading
from base64 import b64decode, b64encode
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from hashlib import sha256
from pathlib import Path
from zipfile import ZIP_DEFLATED, ZipFile

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from services.clock import FixedClock
from sqlalchemy import Engine, text, update

from audit.bundle import write_bundle
from audit.canonical import JsonValue, canonical
from audit.checkpoint import LogSigner, NoteSigner, NoteVerifier, SignedTree
from audit.draft import Personal, draft
from audit.entry import FIRST_PREV, Draft, Entry, Sealed, place
from audit.errors import KeyDestroyed, StateConflict
from audit.events import EventType, Retention
from audit.merkle import CompactRange
from audit.reading import reading, snapshot
from audit.sequencer import Sequencer
from audit.store import each_entry, latest_checkpoint, stage
from audit.tables import audit_log, metadata
from audit.triggers import INSERT_ONLY, statements
from gateway.storage.database import open_engine

ORIGIN = "example.com/log"
KEY = Ed25519PrivateKey.from_private_bytes(bytes(range(32)))
SIGNER = NoteSigner(ORIGIN, KEY)
ALICE, BOB = Personal("alice-subject", "alice"), Personal("bob-subject", "bob")
UPDATE: Mapping[str, JsonValue] = {
    "round_number": 7,
    "size_bytes": 1024,
    "policy_hash": "0" * 64,
    "update_mac": "1" * 64,
    "update_id": "u-1",
    "client_id": "c-1",
}
"""Every detail that an `update.accepted` needs; the ids are sealed under its actor."""


@dataclass
class NotebookSealer:
    """Stands for the key store: a key id for each (subject, class), and texts only base64 hides."""

    destroyed: set[str] = field(default_factory=set)

    def key(self, subject: str, retention: Retention) -> str:
        return sha256(f"{subject}/{retention}".encode()).hexdigest()

    def seal(
        self, subject: str, retention: Retention, context: str, value: JsonValue, at: datetime
    ) -> Sealed:
        hidden = canonical({"context": context, "value": value})
        return Sealed(b64encode(hidden).decode(), self.key(subject, retention))

    def open(self, sealed: Sealed, context: str) -> JsonValue:
        if sealed.key in self.destroyed:
            raise KeyDestroyed("the key was destroyed")
        told = json.loads(b64decode(sealed.enc))
        assert told["context"] == context
        value: JsonValue = told["value"]
        return value


class NotebookState:
    """Stands for the state outside the database: one remembered tree, changed by compare-and-set."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self.remembered: SignedTree | None = None
        self.succeeded: SignedTree | None = None

    def last_checkpoint(self) -> SignedTree | None:
        return self.remembered

    def advance_checkpoint(self, expected: SignedTree | None, new: SignedTree) -> None:
        with self._lock:
            if self.remembered != expected:
                raise StateConflict("another signer was here")
            self.remembered = new

    def predecessor(self) -> SignedTree | None:
        return self.succeeded


class Killed(Exception):
    """Stands for SIGKILL at a crash point."""


class Logbook:
    """A log in a real database."""

    def __init__(self, url: str, clock: FixedClock) -> None:
        self.engine: Engine = open_engine(url)
        metadata.create_all(self.engine)
        with self.engine.begin() as conn:
            for statement in statements(self.engine.dialect.name):
                conn.execute(text(statement))
        self.clock = clock
        self.sealer = NotebookSealer()
        self.state = NotebookState()

    def make(self, number: int = 0, *, actor: Personal = ALICE) -> Draft:
        """An entry about round `number`, a millisecond after the one before."""
        return make_draft(self.sealer, self.clock, number, actor=actor)

    def stage(self, count: int, *, actor: Personal = ALICE) -> list[Draft]:
        drafts = [self.make(number, actor=actor) for number in range(count)]
        with self.engine.begin() as conn:
            stage(conn, *drafts)
        return drafts

    def sequencer(self, *, batch: int = 500, crash_at: str = "") -> Sequencer:
        def crash(name: str) -> None:
            if name == crash_at:
                raise Killed(name)

        return Sequencer(
            self.engine, signer=SIGNER, state=self.state, clock=self.clock, batch=batch, crash=crash
        )

    def sequence(self) -> None:
        sequencer = self.sequencer()
        while sequencer.run_once():
            pass

    def sequence_as(self, signer: LogSigner) -> None:
        """Sequence what waits, signed by other keys than the usual one."""
        sequencer = Sequencer(self.engine, signer=signer, state=self.state, clock=self.clock)
        while sequencer.run_once():
            pass

    def grow(self, count: int) -> list[Draft]:
        drafts = self.stage(count)
        self.sequence()
        return drafts

    def bundle(self, path: Path) -> Path:
        with snapshot(self.engine) as conn:
            write_bundle(conn, path, SIGNER.vkey)
        return path

    def tamper(self, *sql: str) -> None:
        """What an operator with every right can do: drop the triggers, and change what stands there."""
        postgresql = self.engine.dialect.name == "postgresql"
        with self.engine.begin() as conn:
            for table in INSERT_ONLY:
                if postgresql:
                    conn.execute(text(f"ALTER TABLE {table} DISABLE TRIGGER ALL"))
                else:
                    for kind in ("update", "delete", "replace"):
                        conn.execute(text(f"DROP TRIGGER {table}_no_{kind}"))
            for statement in sql:
                conn.execute(text(statement))

    def forge_leaf(self, seq: int) -> None:
        """Another leaf hash in a row of the log."""
        self.tamper()
        with self.engine.begin() as conn:
            conn.execute(update(audit_log).where(audit_log.c.seq == seq).values(leaf_hash=bytes(32)))


def make_draft(sealer: NotebookSealer, clock: FixedClock, number: int, *, actor: Personal = ALICE) -> Draft:
    clock.advance(timedelta(milliseconds=1))
    return draft(
        EventType.UPDATE_ACCEPTED,
        sealer=sealer,
        now=clock(),
        actor=actor,
        action="accepted",
        resource=f"rounds/{number}",
        request_id="018f0000-0000-7000-8000-000000000000",
        ip_address=Personal(actor.subject, "192.0.2.1"),
        details={**UPDATE, "round_number": number, "norm": "1.25"},
    )


def entries(count: int) -> list[Entry]:
    """A good chain, without a database."""
    clock, sealer, prev = FixedClock(), NotebookSealer(), FIRST_PREV
    chain: list[Entry] = []
    for seq in range(count):
        chain.append(place(make_draft(sealer, clock, seq).body(), seq, prev))
        prev = chain[-1].leaf().hex()
    return chain


def chained(bodies: Iterable[Entry]) -> list[Entry]:
    """The same contents chained anew from the first, as a forger without the log's key would."""
    chain: list[Entry] = []
    prev = FIRST_PREV
    for seq, entry in enumerate(bodies):
        chain.append(entry.placed(seq, prev))
        prev = chain[-1].leaf().hex()
    return chain


def checkpoint(chain: Sequence[Entry]) -> str:
    tree = CompactRange()
    for entry in chain:
        tree.append(entry.leaf())
    return SIGNER.sign(tree.size, tree.root())


def zipped(path: Path, lines: Iterable[bytes], note: str, vkey: str | None = SIGNER.vkey) -> Path:
    """A bundle with these lines (each ends with a newline)."""
    with ZipFile(path, "w", ZIP_DEFLATED) as archive:
        archive.writestr("checkpoint", note)
        archive.writestr("entries.jsonl", b"".join(lines))
        if vkey is not None:
            archive.writestr("keys/log.vkey", vkey)
    return path


def lines(chain: Iterable[Entry]) -> list[bytes]:
    return [entry.canonical + b"\n" for entry in chain]


def published(log: Logbook) -> SignedTree | None:
    """What the newest checkpoint says, its signature checked."""
    with reading(log.engine) as conn:
        note = latest_checkpoint(conn)
    return NoteVerifier.parse(SIGNER.vkey).open(note) if note else None


def tree_of(log: Logbook) -> SignedTree:
    """What the stored entries give, hashed from the first."""
    tree = CompactRange()
    prev = "0" * 64
    with reading(log.engine) as conn:
        for entry in each_entry(conn):
            told = json.loads(entry.canonical)
            assert (told["seq"], told["prev"]) == (entry.seq, prev) == (tree.size, prev)
            tree.append(entry.leaf)
            prev = entry.leaf.hex()
    return SignedTree(ORIGIN, tree.size, tree.root())
