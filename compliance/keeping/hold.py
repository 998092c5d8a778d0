"""One legal hold as a row: what it covers, how it is read, and its compare-and-set on `version`."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from sqlalchemy import Connection, Row, Select, select, update

from compliance.errors import UnknownHold
from compliance.requests.reasons import Exemption
from compliance.tables import privacy_holds

EVERYWHERE = "*"


@dataclass(frozen=True, slots=True)
class Hold:
    """One legal hold as it stands; its matter stays sealed."""

    id: str
    subject_id: str
    version: int
    scope: tuple[str, ...]
    basis: Exemption
    review_at: datetime
    placed_at: datetime
    release_asked_at: datetime | None
    lifted_at: datetime | None

    @property
    def is_active(self) -> bool:
        """Whether it still covers anything."""
        return self.lifted_at is None

    def covers(self, place: str) -> bool:
        """Whether what lies in that place must stay."""
        return self.is_active and (EVERYWHERE in self.scope or place in self.scope)

    def public(self) -> dict[str, Any]:
        """What the API shows of it."""
        return {
            "id": self.id,
            "subject": {"subject_id": self.subject_id},
            "version": self.version,
            "scope": list(self.scope),
            "basis": self.basis.value,
            "review_at": instant(self.review_at),
            "placed_at": instant(self.placed_at),
            "release_asked_at": instant(self.release_asked_at),
            "lifted_at": instant(self.lifted_at),
            "is_active": self.is_active,
        }


COLUMNS = tuple(
    privacy_holds.c[name]
    for name in (
        "id",
        "subject_id",
        "version",
        "scope",
        "basis",
        "review_at",
        "placed_at",
        "release_asked_at",
        "lifted_at",
    )
)


def change_hold(conn: Connection, found: Hold, **changes: Any) -> bool:
    """Change a hold that nobody has changed since it was read; whether it was."""
    statement = update(privacy_holds).where(
        privacy_holds.c.id == found.id, privacy_holds.c.version == found.version
    )
    return conn.execute(statement.values(version=found.version + 1, **changes)).rowcount == 1


def chosen_holds(
    query: Select[Any], subject_id: str | None, is_active: bool | None, review_before: datetime | None
) -> Select[Any]:
    """The query, for the holds that are asked for."""
    if subject_id is not None:
        query = query.where(privacy_holds.c.subject_id == subject_id)
    if is_active is not None:
        ended = privacy_holds.c.lifted_at
        query = query.where(ended.is_(None) if is_active else ended.is_not(None))
    if review_before is not None:
        query = query.where(privacy_holds.c.review_at < review_before)
    return query


def hold_row(conn: Connection, hold_id: str, *columns: Any) -> Row[Any]:
    """These columns of a hold. Raises UnknownHold."""
    row = conn.execute(select(*columns).where(privacy_holds.c.id == hold_id)).one_or_none()
    if row is None:
        raise UnknownHold(hold_id)
    return row


def hold_of(row: Row[Any]) -> Hold:
    """The hold that a row with `COLUMNS` tells of."""
    return Hold(
        id=row.id,
        subject_id=row.subject_id,
        version=row.version,
        scope=tuple(row.scope),
        basis=Exemption(row.basis),
        review_at=row.review_at,
        placed_at=row.placed_at,
        release_asked_at=row.release_asked_at,
        lifted_at=row.lifted_at,
    )


def instant(at: datetime | None) -> str | None:
    """The time as the API and the log write it."""
    return None if at is None else at.astimezone(UTC).isoformat().replace("+00:00", "Z")
