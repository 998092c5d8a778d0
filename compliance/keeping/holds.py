"""Legal holds: while one is active, nothing of the person is erased (Art. 17(3))."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any
from uuid import uuid4

from sqlalchemy import Connection, insert, select, update

from audit.canonical import JsonValue
from audit.draft import Personal
from audit.events import EventType, Retention
from audit.reading import reading
from compliance.errors import UnknownHold
from compliance.parts import DeskParts
from compliance.tables import privacy_holds


@dataclass(frozen=True, slots=True)
class Hold:
    """One legal hold."""

    id: str
    subject_id: str
    placed_at: datetime
    lifted_at: datetime | None

    def public(self) -> dict[str, Any]:
        """What the API shows of it; the reason stays sealed."""
        return {
            "id": self.id,
            "subject": {"subject_id": self.subject_id},
            "placed_at": self.placed_at.astimezone(UTC).isoformat().replace("+00:00", "Z"),
            "is_active": self.lifted_at is None,
        }


_COLUMNS = (
    privacy_holds.c.id,
    privacy_holds.c.subject_id,
    privacy_holds.c.placed_at,
    privacy_holds.c.lifted_at,
)


def active_holds(conn: Connection, subject_id: str) -> list[Hold]:
    """The holds that forbid erasing the subject now."""
    query = select(*_COLUMNS).where(privacy_holds.c.subject_id == subject_id)
    return [Hold(*row) for row in conn.execute(query.where(privacy_holds.c.lifted_at.is_(None)))]


class Holds:
    """Places and lifts holds, each with its audit entry."""

    def __init__(self, parts: DeskParts) -> None:
        self._parts = parts

    def place(self, subject_id: str, reason: str, *, by: Personal) -> Hold:
        """Forbid erasing the subject.

        Raises:
            SubjectErasing: too late, its erasure has begun.
            UnknownSubject: there is no such subject.
        """
        now = self._parts.now()
        hold = Hold(str(uuid4()), subject_id, now, None)
        row = {
            "id": hold.id,
            "subject_id": subject_id,
            "matter": self._sealed(subject_id, "reason", hold.id, reason, now),
            "scope": ["*"],
            "basis": "e",
            "review_at": now,
            "placed_by": self._sealed(by.subject, "placed_by", hold.id, by.value, now),
            "placed_at": now,
        }
        details: dict[str, JsonValue | Personal] = {
            "hold_id": hold.id,
            "subject": Personal(subject_id, subject_id),
        }
        entry = self._parts.journal.draft(EventType.HOLD_PLACED, details=details, actor=by)
        with self._parts.engine.begin() as conn:
            self._parts.journal.write(conn, entry)  # first: it locks the subject, as an erasure does
            conn.execute(insert(privacy_holds).values(row))
        return hold

    def lift(self, hold_id: str, *, by: Personal) -> Hold:
        """End a hold; one that has ended already stays as it is."""
        now = self._parts.now()
        hold = self._read(hold_id)
        if hold.lifted_at is not None:
            return hold
        details: dict[str, JsonValue | Personal] = {
            "hold_id": hold.id,
            "subject": Personal(hold.subject_id, hold.subject_id),
        }
        entry = self._parts.journal.draft(EventType.HOLD_LIFTED, details=details, actor=by)
        lifted = update(privacy_holds).where(
            privacy_holds.c.id == hold_id, privacy_holds.c.lifted_at.is_(None)
        )
        with self._parts.engine.begin() as conn:
            if conn.execute(lifted.values(lifted_at=now)).rowcount:
                self._parts.journal.write(conn, entry)
        return self._read(hold_id)

    def active(self, subject_id: str) -> list[Hold]:
        """The holds that forbid erasing the subject now."""
        with reading(self._parts.engine) as conn:
            return active_holds(conn, subject_id)

    def _read(self, hold_id: str) -> Hold:
        with reading(self._parts.engine) as conn:
            row = conn.execute(select(*_COLUMNS).where(privacy_holds.c.id == hold_id)).one_or_none()
        if row is None:
            raise UnknownHold(hold_id)
        return Hold(*row)

    def _sealed(
        self, subject: str, column: str, row_id: str, value: JsonValue, now: datetime
    ) -> dict[str, str]:
        seal = self._parts.sealer.seal_column
        return seal(subject, Retention.ACCOUNTABILITY, "privacy_holds", column, row_id, value, now)
