"""A log in the form the sequencer leaves it, for tests of what reads it."""

from __future__ import annotations

import json
from datetime import UTC, datetime
from pathlib import Path
from typing import Any
from uuid import UUID

from sqlalchemy import Engine, insert

from audit.entry import FIRST_PREV, Draft, Sealed, place
from audit.events import EventType, Outcome
from audit.tables import audit_log, metadata
from gateway.storage.database import open_engine

ALIVE, ERASED = "a" * 64, "e" * 64
NOON = datetime(2026, 11, 24, 12, 0, tzinfo=UTC)
_OUTCOMES = (Outcome.SUCCESS, Outcome.DENIED, Outcome.FAILURE)


def pseudonym(key_id: str) -> str | None:
    """The pseudonym of the only person who is left."""
    return "p-alive" if key_id == ALIVE else None


def open_log(url: str) -> Engine:
    """A database with an empty log, without the triggers, so that a test can spoil it."""
    engine = open_engine(url)
    metadata.create_all(engine)
    return engine


def fill_log(engine: Engine, count: int, *, padding: str = "") -> list[bytes]:
    """Write entries straight into the log, chained as the sequencer does it; their canonical bytes."""
    prev, rows = FIRST_PREV, []
    for seq in range(count):
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
