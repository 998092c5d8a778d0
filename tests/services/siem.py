"""A log in the form the sequencer leaves it, for tests of what reads it."""

from __future__ import annotations

import json
from collections.abc import Mapping
from datetime import UTC, datetime
from itertools import count
from pathlib import Path
from typing import Any
from uuid import UUID

from sqlalchemy import Engine, insert, select

from audit.canonical import JsonValue
from audit.entry import FIRST_PREV, Draft, Sealed, place
from audit.events import EventType, Outcome
from audit.siem import Forwarder, NamedSink, SinkDown, lag_entries
from audit.tables import audit_log, audit_pending, metadata
from gateway.storage.database import open_engine

ALIVE, ERASED = "a" * 64, "e" * 64
NOON = datetime(2026, 11, 24, 12, 0, tzinfo=UTC)
_NUMBERS = count()
_OUTCOMES = (Outcome.SUCCESS, Outcome.DENIED, Outcome.FAILURE)


def pseudonym(key_id: str) -> str | None:
    """The pseudonym of the only person who is left."""
    return "p-alive" if key_id == ALIVE else None


def open_log(url: str) -> Engine:
    """A database with an empty log, without the triggers, so that a test can spoil it."""
    engine = open_engine(url)
    metadata.create_all(engine)
    return engine


def fill_log(engine: Engine, count: int, *, first: int = 0, padding: str = "") -> list[bytes]:
    """Write entries straight into the log, chained as the sequencer does it; their canonical bytes."""
    prev, rows = FIRST_PREV, []
    for seq in range(first, first + count):
        entry = place(_draft(seq, padding).body(), seq, prev)
        prev = entry.leaf().hex()
        rows.append(
            {
                "seq": seq,
                "id": entry.id,
                "canonical": entry.canonical.decode(),
                "leaf_hash": entry.leaf(),
                "event_type": entry.event_type,
                "time": entry.time,
            }
        )
    with engine.begin() as conn:
        conn.execute(insert(audit_log), rows)
    return [row["canonical"].encode() for row in rows]


def draft_of(event: EventType, facts: Mapping[str, JsonValue]) -> Draft:
    """An entry about a sink, as the gateway's trail makes it."""
    return Draft(
        id=str(UUID(int=next(_NUMBERS))),
        time=NOON,
        event_type=event,
        actor=Sealed("c2VhbGVk", ALIVE),
        action="tell",
        resource="",
        outcome=Outcome.FAILURE,
        request_id="",
        trace_id="",
        ip_address=None,
        details=facts,
        subjects=frozenset(),
    )


def told(engine: Engine) -> list[tuple[str, dict[str, Any]]]:
    """What the log was told and has not sequenced: event types with their details, in the order of writing."""
    with engine.connect() as conn:
        bodies = conn.execute(select(audit_pending.c.body).order_by(audit_pending.c.id)).scalars().all()
    entries = [json.loads(body) for body in bodies]
    return [(entry["event_type"], entry["details"]) for entry in entries]


def events_in(path: Path) -> list[dict[str, Any]]:
    """The events of a file sink, each line read as JSON."""
    return [json.loads(line) for line in path.read_text().splitlines()]


def _draft(seq: int, padding: str) -> Draft:
    return Draft(
        id=str(UUID(int=(0x7 << 76) | (0x2 << 62) | seq)),
        time=NOON,
        event_type=EventType.ACCESS_REFUSED,
        actor=Sealed("c2VhbGVk", ALIVE),
        action="refuse",
        resource="",
        outcome=_OUTCOMES[seq % 3],
        request_id="",
        trace_id="",
        ip_address=Sealed("c2VhbGVk", ERASED),
        details={"reason": str(seq), "device": Sealed("c2VhbGVk", ALIVE), "name": "Grüße" + padding},
        subjects=frozenset(),
    )


def deliver_all(engine: Engine, named: NamedSink, *, batch: int = 10, tries: int = 50) -> int:
    """Forward until the sink has all of the log, without waiting; how often it was down meanwhile."""
    forwarder = Forwarder(
        engine, named.sink, named.name, pseudonym, lambda: NOON, batch=batch, draft=draft_of
    )
    failures = 0
    for _ in range(tries):
        try:
            if not forwarder.run_once():
                break
        except SinkDown:
            failures += 1
    named.sink.close()
    with engine.connect() as conn:
        assert lag_entries(conn, named.name) == 0
    return failures
