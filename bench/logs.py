"""Logs to measure: tables as migrations make them, entries as updates leave them, a sequencer beside the writer.

A log of a million entries is written in bulk, with the tree that the sequencer would have given it.
"""

from __future__ import annotations

import multiprocessing
import os
import time
from base64 import b64encode
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, fields
from datetime import UTC, datetime
from hashlib import sha256
from itertools import count
from pathlib import Path
from typing import Any

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from sqlalchemy import Engine, insert

from audit.canonical import JsonValue
from audit.checkpoint import NoteSigner
from audit.draft import Personal, draft
from audit.entry import FIRST_PREV, Draft, Sealed, place
from audit.events import EventType, Retention
from audit.merkle import leaf_hash
from audit.reading import reading
from audit.sequencer import Sequencer
from audit.store import newest_checkpoint, stage
from audit.tables import audit_log, audit_subjects
from audit.tree import TreeSource, grow
from audit.tree_rows import write_rows
from gateway.config import Config
from gateway.parts.sequencing import open_log
from gateway.services import BELLS
from gateway.storage.bell import Channel, open_bell
from gateway.storage.database import open_engine
from gateway.storage.migrating import upgrade
from gateway.storage.ringing import ring_after_commits
from gateway.storage.state import FileState, open_state

ORIGIN = "bench.example/log"
BATCH = 500
_SUBJECTS = 1000
_WRITTEN_AT_ONCE = 16_384  # whole tiles
_INTERVAL_S = next(float(str(one.default)) for one in fields(Config) if one.name == "sequencer_interval_s")
_LONGEST_WAIT_S = 1.0


class RandomSealer:
    """Gives what a sealed field takes, without a key store: sealing is the caller's work, and not measured here."""

    def seal(
        self,
        subject: str,
        retention: Retention,
        context: str,  # noqa: ARG002 - bound to the ciphertext by the real one
        value: JsonValue,
        at: datetime,  # noqa: ARG002 - picks the quarter's key
    ) -> Sealed:
        """Random bytes as long as nonce, ciphertext and tag."""
        hidden = os.urandom(28 + len(str(value)))
        return Sealed(b64encode(hidden).decode(), sha256(f"{subject}/{retention}".encode()).hexdigest())

    def open(self, sealed: Sealed, context: str) -> JsonValue:
        """Nothing is opened here."""
        raise NotImplementedError


def drafts(number: int) -> list[Draft]:
    """Entries of accepted updates, of a thousand clients in turn."""
    return [_draft(index) for index in range(number)]


def _draft(index: int) -> Draft:
    client = Personal(f"subject-{index % _SUBJECTS}", "018f0000-0000-7000-8000-000000000000")
    return draft(
        EventType.UPDATE_ACCEPTED,
        sealer=RandomSealer(),
        now=datetime.now(UTC),
        actor=client,
        action="accepted",
        resource="rounds/7",
        request_id="018f0000-0000-7000-8000-000000000000",
        trace_id="0" * 32,
        ip_address=Personal(client.subject, "192.0.2.1"),
        details={
            "round_number": 7,
            "size_bytes": 1024,
            "policy_hash": "0" * 64,
            "update_mac": "1" * 64,
            "update_id": client,
            "client_id": client,
            "norm": "1.25",
        },
    )


@dataclass(frozen=True, slots=True)
class Log:
    """An empty log, or a long one, in a database of its own."""

    engine: Engine
    writer: Engine
    directory: Path
    url: str

    def state(self) -> FileState:
        """The signer's memory."""
        return open_state(f"file:{self.directory}/state")

    def sequencer(self) -> Sequencer:
        """A sequencer as a gateway has it."""
        key = Ed25519PrivateKey.from_private_bytes(bytes(32))
        signer = NoteSigner(ORIGIN, key)
        return Sequencer(
            self.writer, signer=signer, state=self.state(), clock=lambda: datetime.now(UTC), batch=BATCH
        )

    def stage(self, entries: Sequence[Draft]) -> None:
        """Stage entries, a batch a transaction."""
        for start in range(0, len(entries), BATCH):
            with self.engine.begin() as conn:
                stage(conn, *entries[start : start + BATCH])

    def signed_size(self) -> int:
        """How many entries the newest checkpoint covers."""
        with reading(self.engine) as conn:
            newest = newest_checkpoint(conn)
        return newest.size if newest else 0

    def lengthen(self, size: int) -> None:
        """Write so many entries, with their tree and its checkpoint, into an empty log."""
        body = _draft(0).body()
        text = place(body, 0, FIRST_PREV).canonical.decode()
        now = datetime.now(UTC)
        for start in range(0, size, _WRITTEN_AT_ONCE):
            rows = [_row(seq, text, now) for seq in range(start, min(size, start + _WRITTEN_AT_ONCE))]
            leaves = [bytes(row["leaf_hash"]) for row in rows]
            keys = [{"key_id": _key(row["seq"]), "seq": row["seq"]} for row in rows]
            with self.engine.begin() as conn:
                conn.execute(insert(audit_log), rows)
                conn.execute(insert(audit_subjects), keys)
                write_rows(conn, grow(TreeSource(conn, start), start, leaves).tiles)
        self.sequencer().run_once()  # signs it
        os.sync()  # a log that grew in its own time has this behind it, and what follows
        if self.engine.dialect.name == "postgresql":
            with self.engine.connect().execution_options(isolation_level="AUTOCOMMIT") as conn:
                conn.exec_driver_sql("VACUUM ANALYZE")
                conn.exec_driver_sql("CHECKPOINT")


def _row(seq: int, text: str, now: datetime) -> dict[str, Any]:
    canonical = f"{text[:-40]}{seq:040d}"
    leaf = leaf_hash(canonical.encode())
    return {
        "seq": seq,
        "id": f"{seq:036d}",
        "canonical": canonical,
        "leaf_hash": leaf,
        "event_type": EventType.UPDATE_ACCEPTED.value,
        "time": now,
    }


def _key(seq: int) -> str:
    return sha256(f"subject-{seq % _SUBJECTS}/".encode()).hexdigest()


@contextmanager
def empty_log(directory: Path, server: Any = None, *, numbers: Iterator[int] = count()) -> Iterator[Log]:  # noqa: B008 - one count for all
    """A log on SQLite in that directory, or on a PostgreSQL server; its files are left to the directory's owner."""
    place = directory / f"log-{next(numbers)}"
    place.mkdir(parents=True)
    name = server.create_database() if server else None
    url = server.url(name) if server else f"sqlite:///{place}/log.db"
    engine, writer = open_engine(url, secure_delete=True), open_log(url)
    bell = open_bell(engine)
    ring_after_commits(engine, bell, BELLS)
    try:
        upgrade(engine, "main")
        yield Log(engine, writer, place, url)
    finally:
        bell.close()
        engine.dispose()
        writer.dispose()
        if server:
            server.drop_database(name)


@contextmanager
def sequencing(log: Log) -> Iterator[None]:
    """A sequencer in a process of its own, as a gateway has it, until the block ends."""
    context = multiprocessing.get_context("spawn")
    stop, ready = context.Event(), context.Event()
    process = context.Process(target=_sequence, args=(log.url, log.directory, ready, stop), daemon=True)
    process.start()
    assert ready.wait(60)
    try:
        yield
    finally:
        stop.set()
        process.join(60)
        assert process.exitcode == 0


def _sequence(url: str, directory: Path, ready: Any, stop: Any) -> None:
    engine = open_log(url)
    bell = open_bell(engine)
    sequencer = Log(engine, engine, directory, url).sequencer()
    sequencer.run_once()
    ready.set()
    while not stop.is_set():
        sequenced = sequencer.run_once()
        if not sequenced:
            bell.wait(Channel.PENDING, _LONGEST_WAIT_S)
        elif sequenced < BATCH:
            time.sleep(_INTERVAL_S)
    bell.close()
    engine.dispose()
