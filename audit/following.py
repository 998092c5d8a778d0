"""Reading the log while it grows: nothing is told before a signed checkpoint covers it, and so can be proven."""

from __future__ import annotations

from collections.abc import Collection

from sqlalchemy import Connection, func, select

from audit.store import StoredEntry, read_entries
from audit.tables import audit_checkpoints, audit_log, audit_pending


def signed_size(conn: Connection) -> int:
    """How many entries the newest published checkpoint covers."""
    return conn.scalar(select(func.max(audit_checkpoints.c.size))) or 0


def signed_entries(conn: Connection, after: int, limit: int) -> list[StoredEntry]:
    """Up to `limit` covered entries behind the place `after`, in order; -1 is before the first."""
    room = min(limit, signed_size(conn) - 1 - after)
    return read_entries(conn, after, room) if room > 0 else []


def signed_places(conn: Connection, ids: Collection[str]) -> list[int] | None:
    """The places of these entries once a checkpoint covers them all; None while one still waits.

    An entry whose transaction was undone has no place and is not waited for.
    """
    waiting = select(func.count()).select_from(audit_pending).where(audit_pending.c.id.in_(ids))
    if conn.scalar(waiting):  # asked first: what is moved meanwhile is found in the log
        return None
    places = list(
        conn.scalars(select(audit_log.c.seq).where(audit_log.c.id.in_(ids)).order_by(audit_log.c.seq))
    )
    return places if not places or places[-1] < signed_size(conn) else None
