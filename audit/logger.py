"""The audit logger of the specification (phase 4, 7.2): one call, one entry, in its own transaction."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from datetime import datetime

from sqlalchemy import Connection, Engine

from audit.canonical import JsonValue
from audit.draft import Personal, Sealer, draft
from audit.events import EventType
from audit.store import stage


def hold_nobody(conn: Connection, subjects: frozenset[str]) -> None:
    """Locks no subject; for logs that no erasure touches (tests, tools)."""


class AuditLogger:
    """Writes events whose effect is outside any transaction; effects in the database stage their own entry.

    `hold` locks the subjects of an entry and refuses one that is being erased (RULES 18).
    """

    def __init__(
        self,
        engine: Engine,
        sealer: Sealer,
        clock: Callable[[], datetime],
        who: Callable[[], tuple[Personal, Personal | None]],
        *,
        hold: Callable[[Connection, frozenset[str]], None] = hold_nobody,
    ) -> None:
        self._engine = engine
        self._sealer = sealer
        self._clock = clock
        self._who = who
        self._hold = hold

    def log_event(self, event_type: EventType | str, details: Mapping[str, JsonValue | Personal]) -> str:
        """Write one entry and return its id; the forwarder sends it on to the SIEM sinks."""
        actor, ip_address = self._who()
        kind = EventType(event_type)
        entry = draft(
            kind,
            sealer=self._sealer,
            now=self._clock(),
            actor=actor,
            action=kind.value.rpartition(".")[2],
            ip_address=ip_address,
            details=details,
        )
        with self._engine.begin() as conn:
            self._hold(conn, entry.subjects)
            stage(conn, entry)
        return entry.id
