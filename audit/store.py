"""The log in the database: staging entries, and reading what was sequenced.

Staging happens in the transaction of the effect, so that neither commits without the other (promise 1).
Only the sequencer writes `audit_log`.
"""

from __future__ import annotations

import json
from collections.abc import Collection, Iterable, Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass, field
from datetime import datetime
from functools import lru_cache
from typing import Any

from sqlalchemy import Connection, Row, Table, func, insert, select
from sqlalchemy.exc import DBAPIError

from audit.datamap import UtcDateTime
from audit.entry import Draft, Entry, time_text
from audit.staged import Placed
from audit.tables import (
    LEAF_HASH,
    audit_checkpoints,
    audit_cosignatures,
    audit_log,
    audit_pending,
    audit_subjects,
)

_KEYS_AT_ONCE = 500
_SQLITE_TIME = "replace(rtrim(?, 'Z'), 'T', ' ')"  # as SQLAlchemy spells a time there, and compares it


@dataclass(frozen=True, slots=True)
class StoredEntry:
    """A row of `audit_log`, as it stands: nothing is parsed, nothing is mended."""

    seq: int
    canonical: bytes
    leaf: bytes


# Without their peaks, which a proof can do without: nothing that stands there stops who signs.
CHECKPOINTS = select(audit_checkpoints.c.size, audit_checkpoints.c.root, audit_checkpoints.c.note)


@dataclass(frozen=True, slots=True)
class StoredCheckpoint:
    """A row of `audit_checkpoints`."""

    size: int
    root: bytes
    note: str


def stage(conn: Connection, *drafts: Draft) -> None:
    """Stage entries in the caller's transaction; the sequencer gives them their places.

    Nobody reads them before the commit: where they can, they travel with it (decision 0168).
    """
    if not drafts:
        return
    rows = [(one.id, one.body().decode(), time_text(one.time)) for one in drafts]
    if not _goes_with_commit(conn, _insertion(audit_pending, conn.dialect.name), rows):
        _insert(conn, audit_pending, rows)


def _goes_with_commit(conn: Connection, statement: str, rows: Sequence[tuple[str, ...]]) -> bool:
    """Give rows to a connection that can `carry` them, but not into a savepoint, whose end it would not see."""
    carry = getattr(conn.connection.driver_connection, "carry", None)
    if carry is None or conn.in_nested_transaction():
        return False
    if not conn.in_transaction():
        conn.begin()  # as a statement would have begun it
    return bool(carry(statement, rows))


@dataclass(frozen=True, slots=True)
class LogRows:
    """Entries as rows of the log, and of the index that finds them by key (RULES 26)."""

    entries: list[tuple[object, ...]] = field(default_factory=list)
    subjects: list[tuple[object, ...]] = field(default_factory=list)

    @classmethod
    def of(cls, *entries: Entry) -> LogRows:
        """The rows of these entries."""
        rows = cls()
        for entry in entries:
            rows.add(Placed.of(entry), entry.leaf())
        return rows

    def add(self, entry: Placed, leaf: bytes) -> None:
        """Add an entry."""
        text = entry.canonical.decode()
        self.entries.append((entry.seq, entry.id, text, leaf, entry.event_type, entry.time))
        self.subjects.extend([(key, entry.seq) for key in entry.key_ids])


def insert_rows(conn: Connection, rows: LogRows) -> None:
    """Write entries in their places; the caller has the lead."""
    for table, its_rows in ((audit_log, rows.entries), (audit_subjects, rows.subjects)):
        if its_rows and conn.dialect.name == "postgresql":
            _copy(conn, table, its_rows)
        elif its_rows:
            _insert(conn, table, its_rows)


def delete_pending(conn: Connection, entry_ids: Sequence[str]) -> None:
    """Take entries out of those that wait: they have their places now. The ids are one value, however many they are."""
    if conn.dialect.name == "postgresql":
        conn.exec_driver_sql("DELETE FROM audit_pending WHERE id = ANY(%s)", ([*entry_ids],))
    else:
        sql = "DELETE FROM audit_pending WHERE id IN (SELECT value FROM json_each(?))"
        conn.exec_driver_sql(sql, (json.dumps(entry_ids),))


def _insert(conn: Connection, table: Table, rows: Sequence[tuple[object, ...]]) -> None:
    """Rows by the order of the columns, a time as entries spell it, given to the driver as they are.

    SQLAlchemy would take twice as long over each as the database does. Its events and its errors stay.
    """
    conn.exec_driver_sql(_insertion(table, conn.dialect.name), rows if len(rows) > 1 else rows[0])


@lru_cache
def _insertion(table: Table, database: str) -> str:
    is_sqlite = database == "sqlite"
    time_mark, mark = (_SQLITE_TIME, "?") if is_sqlite else ("%s", "%s")
    marks = [time_mark if isinstance(column.type, UtcDateTime) else mark for column in table.columns]
    return f"INSERT INTO {table.name} ({_names(table)}) VALUES ({', '.join(marks)})"  # noqa: S608 - our tables' names


def _names(table: Table) -> str:
    return ", ".join(column.name for column in table.columns)


def _copy(conn: Connection, table: Table, rows: Iterable[tuple[object, ...]]) -> None:
    """PostgreSQL's COPY: rows in one stream, which takes half the time of inserting them one by one.

    It goes past SQLAlchemy, whose errors its callers know.
    """
    statement = f"COPY {table.name} ({_names(table)}) FROM STDIN"
    error_of_driver = conn.dialect.loaded_dbapi.Error
    try:
        with closing(conn.connection.cursor()) as cursor, cursor.copy(statement) as copy:
            for row in rows:
                copy.write_row(row)
    except error_of_driver as error:
        raise DBAPIError.instance(
            statement, None, error, error_of_driver, hide_parameters=True, dialect=conn.dialect
        ) from None


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


def seqs_of_key(conn: Connection, key_id: str, *, after: int, limit: int) -> list[int]:
    """Up to `limit` places behind `after` of entries that are sealed under a key, in order."""
    query = select(audit_subjects.c.seq).where(
        audit_subjects.c.key_id == key_id, audit_subjects.c.seq > after
    )
    return list(conn.scalars(query.order_by(audit_subjects.c.seq).limit(limit)))


def entries_at(conn: Connection, seqs: Collection[int]) -> list[StoredEntry]:
    """The entries at these places, in order."""
    some = _ENTRIES.where(audit_log.c.seq.in_(sorted(seqs))).order_by(audit_log.c.seq)
    return [_stored(row) for row in conn.execute(some)]


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


def newest_checkpoint(conn: Connection, *, cosigned: bool = True) -> StoredCheckpoint | None:
    """The last published checkpoint with the tree it covers.

    Args:
        conn: reads.
        cosigned: append the cosignatures of witnesses to the note; the signer needs none and saves a query.
    """
    row = conn.execute(CHECKPOINTS.order_by(audit_checkpoints.c.size.desc()).limit(1)).first()
    if row is None:
        return None
    lines = cosignature_lines(conn, row.size) if cosigned else []
    return StoredCheckpoint(row.size, bytes(row.root), "".join([row.note, *lines]))


def witnessed_checkpoint(conn: Connection, quorum: int) -> StoredCheckpoint | None:
    """The newest checkpoint that at least `quorum` witnesses cosigned, with their cosignatures."""
    query = select(audit_cosignatures.c.size).group_by(audit_cosignatures.c.size)
    enough = query.having(func.count() >= quorum).order_by(audit_cosignatures.c.size.desc()).limit(1)
    row = conn.execute(CHECKPOINTS.where(audit_checkpoints.c.size.in_(enough))).first()
    if row is None:
        return None
    return StoredCheckpoint(
        row.size, bytes(row.root), "".join([row.note, *cosignature_lines(conn, row.size)])
    )


def cosignature_lines(conn: Connection, size: int) -> list[str]:
    """The signature lines that witnesses gave to the checkpoint of this size."""
    of_size = select(audit_cosignatures.c.line).where(audit_cosignatures.c.size == size)
    return list(conn.scalars(of_size.order_by(audit_cosignatures.c.witness)))


def last_cosigned(conn: Connection, witness: str) -> int | None:
    """The size of the newest checkpoint that this witness (name and key id) cosigned."""
    query = select(audit_cosignatures.c.size).where(audit_cosignatures.c.witness == witness)
    return conn.scalar(query.order_by(audit_cosignatures.c.size.desc()).limit(1))


def add_cosignature(conn: Connection, size: int, witness: str, line: str, at: datetime) -> bool:
    """Keep a witness's line; False if it has one of this size already, which stays."""
    taken = select(audit_cosignatures.c.size).where(
        audit_cosignatures.c.size == size, audit_cosignatures.c.witness == witness
    )
    if conn.scalar(taken) is not None:
        return False
    conn.execute(insert(audit_cosignatures).values(size=size, witness=witness, line=line, created_at=at))
    return True


_ENTRIES = select(audit_log.c.seq, audit_log.c.canonical, LEAF_HASH)


def _stored(row: Row[Any, Any, Any]) -> StoredEntry:
    canonical = row.canonical  # bytes where somebody wrote some into a text column of SQLite
    data = canonical if isinstance(canonical, bytes) else canonical.encode()
    return StoredEntry(row.seq, data, bytes(row.leaf_hash))
