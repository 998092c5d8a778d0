"""The log in the database: staging entries, and reading what was sequenced.

Staging happens in the transaction of the effect, so that neither commits without the other (promise 1).
Only the sequencer writes `audit_log`.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from sqlalchemy import Connection, Row, func, insert, select

from audit.entry import Draft, Entry
from audit.tables import audit_checkpoints, audit_log, audit_pending, audit_subjects

_KEYS_AT_ONCE = 500


@dataclass(frozen=True, slots=True)
class StoredEntry:
    """A row of `audit_log`, as it stands: nothing is parsed, nothing is mended."""

    seq: int
    canonical: bytes
    leaf: bytes


@dataclass(frozen=True, slots=True)
class StoredCheckpoint:
    """A row of `audit_checkpoints`."""

    size: int
    root: bytes
    note: str


def stage(conn: Connection, *drafts: Draft) -> None:
    """Stage entries in the caller's transaction; the sequencer gives them their places."""
    rows = [{"id": draft.id, "body": draft.body().decode(), "created_at": draft.time} for draft in drafts]
    if rows:
        conn.execute(insert(audit_pending), rows)


def insert_entries(conn: Connection, entries: Sequence[Entry]) -> None:
    """Write entries in their places, with the index that finds them by key (RULES 26); the caller has the lead."""
    if not entries:
        return
    conn.execute(insert(audit_log), [_log_row(entry) for entry in entries])
    subjects = [
        {"key_id": key, "seq": entry.seq}
        for entry in entries
        for key in sorted({sealed.key for sealed in entry.sealed()})
    ]
    conn.execute(insert(audit_subjects), subjects)


def read_entries(conn: Connection, after: int | None, limit: int) -> list[StoredEntry]:
    """Up to `limit` entries behind the place `after`, in order; None is from the beginning."""
    query = _ENTRIES.order_by(audit_log.c.seq).limit(limit)
    if after is not None:
        query = query.where(audit_log.c.seq > after)
    return [_stored(row) for row in conn.execute(query)]


def each_entry(conn: Connection, *, page: int = 1000) -> Iterator[StoredEntry]:
    """Every entry in order, read page by page."""
    after: int | None = None
    while entries := read_entries(conn, after, page):
        yield from entries
        after = entries[-1].seq


def entry_at(conn: Connection, seq: int) -> StoredEntry | None:
    """The entry at a place."""
    row = conn.execute(_ENTRIES.where(audit_log.c.seq == seq)).first()
    return _stored(row) if row else None


def entry_by_id(conn: Connection, entry_id: str) -> StoredEntry | None:
    """The entry of an id, once it was sequenced."""
    row = conn.execute(_ENTRIES.where(audit_log.c.id == entry_id)).first()
    return _stored(row) if row else None


def is_pending(conn: Connection, entry_id: str) -> bool:
    """Whether an entry waits for its place."""
    return conn.scalar(select(audit_pending.c.id).where(audit_pending.c.id == entry_id)) is not None


def seqs_of_keys(conn: Connection, key_ids: Collection[str]) -> list[int]:
    """The places of every entry that is sealed under one of these keys, in order."""
    ids, seqs = sorted(key_ids), set[int]()
    for start in range(0, len(ids), _KEYS_AT_ONCE):
        some = ids[start : start + _KEYS_AT_ONCE]
        seqs.update(conn.scalars(select(audit_subjects.c.seq).where(audit_subjects.c.key_id.in_(some))))
    return sorted(seqs)


def tree_size(conn: Connection) -> int:
    """How many entries the log has: one more than its last place."""
    last = conn.scalar(select(func.max(audit_log.c.seq)))
    return 0 if last is None else int(last) + 1


def oldest_pending(conn: Connection) -> datetime | None:
    """When the entry happened that waits longest; `/ready` and LOG_BEHIND look at it (RULES 21)."""
    query = (
        select(audit_pending.c.created_at).order_by(audit_pending.c.created_at, audit_pending.c.id).limit(1)
    )
    return conn.scalar(query)


def pending_count(conn: Connection) -> int:
    """How many entries wait for their place."""
    return conn.scalar(select(func.count()).select_from(audit_pending)) or 0


def latest_checkpoint(conn: Connection) -> str | None:
    """The last published checkpoint, a C2SP signed note."""
    stored = newest_checkpoint(conn)
    return stored.note if stored else None


def newest_checkpoint(conn: Connection) -> StoredCheckpoint | None:
    """The last published checkpoint with the tree it covers."""
    query = select(audit_checkpoints).order_by(audit_checkpoints.c.size.desc()).limit(1)
    row = conn.execute(query).first()
    return StoredCheckpoint(row.size, bytes(row.root), row.note) if row else None


def _log_row(entry: Entry) -> dict[str, object]:
    return {
        "seq": entry.seq,
        "id": entry.id,
        "canonical": entry.canonical.decode(),
        "leaf_hash": entry.leaf(),
        "event_type": entry.event_type,
        "time": entry.time,
    }


_ENTRIES = select(audit_log.c.seq, audit_log.c.canonical, audit_log.c.leaf_hash)


def _stored(row: Row[Any, Any, Any]) -> StoredEntry:
    return StoredEntry(row.seq, row.canonical.encode(), bytes(row.leaf_hash))
