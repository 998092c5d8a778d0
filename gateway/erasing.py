"""Removes what the gateway's tables and blobs hold of a person, 500 rows a transaction, so that nobody waits long.

An update is dropped first, so that no round freezes it; then its blob goes, then its row: a crash leaves no blob
without a row that leads to it.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

from sqlalchemy import (
    ColumnElement,
    Connection,
    Engine,
    Row,
    Select,
    Table,
    delete,
    func,
    select,
    union_all,
    update,
)

from audit.reading import reading
from compliance.errors import NotNow
from compliance.places import ErasedCount
from gateway.rounds.record import OPEN_STATUSES, RoundStatus, UpdateStatus
from gateway.services import Services
from gateway.tables import client_updates, clients, invitations, outbox, rounds

BATCH = 500
_IS_FREE = rounds.c.status != RoundStatus.AGGREGATING.value


def clients_of(subject: str) -> Select[tuple[str]]:
    """The ids of a person's clients."""
    return select(clients.c.client_id).where(clients.c.subject_id == subject)


def remove_rows(
    engine: Engine, table: Table, which: ColumnElement[bool], *, hold: Select[Any] | None = None
) -> int:
    """Delete these rows of a table with a key of one column; says how many there were.

    Args:
        engine: the database.
        table: the table.
        which: its rows.
        hold: rows to be locked before, in each transaction: those that others lock first, too.
    """
    (key,) = table.primary_key.columns
    some = select(key).where(which).limit(BATCH).scalar_subquery()
    gone = 0
    while True:
        with engine.begin() as conn:
            if hold is not None:
                conn.execute(hold.with_for_update())
            removed = conn.execute(delete(table).where(key.in_(some))).rowcount
        gone += removed
        if removed < BATCH:
            return gone


def count_rows(engine: Engine, table: Table, which: ColumnElement[bool]) -> int:
    """How many of these rows there are."""
    with reading(engine) as conn:
        return counted(conn, table, which)


def counted(conn: Connection, table: Table, which: ColumnElement[bool]) -> int:
    """The same, in a transaction."""
    return int(conn.execute(select(func.count()).select_from(table).where(which)).scalar_one())


# Updates


def remove_updates(services: Services, which: ColumnElement[bool]) -> ErasedCount:
    """Remove these updates, rows and blobs, unless one is in a frozen cohort: then they wait for its end (RULES 5).

    What is not frozen yet is dropped first, so that it never will be. Until the frozen round has ended, the others
    stay, since they tell what that round's model has learned from the same person.

    Raises:
        NotNow: one of them is in a frozen cohort; none was removed.
    """
    engine = services.engine
    keep_from_rounds(engine, which)
    going = _some(engine, which, limit=None)
    blobs = services.blobs.delete_many([row.blob_id for row in going])
    rows = sum(_forget(engine, [row.update_id for row in batch]) for batch in _batches(going))
    return ErasedCount(rows, blobs)


def keep_from_rounds(engine: Engine, which: ColumnElement[bool]) -> None:
    """Drop those of these updates that are not frozen, so that they never will be; after it, no model learns from any.

    Raises:
        NotNow: one of them is in a frozen cohort.
    """
    while some := _some(engine, which, client_updates.c.status == UpdateStatus.ACCEPTED.value, _IS_FREE):
        _drop(engine, some)
    if _some(engine, which, rounds.c.status == RoundStatus.AGGREGATING.value, limit=1):
        raise NotNow


def _some(
    engine: Engine, *which: ColumnElement[bool], limit: int | None = BATCH
) -> Sequence[Row[Any, Any, Any]]:
    columns = (client_updates.c.update_id, client_updates.c.blob_id, client_updates.c.round_id)
    query = select(*columns).join(rounds, rounds.c.round_id == client_updates.c.round_id)
    with reading(engine) as conn:
        return conn.execute(query.where(*which).limit(limit)).all()


def _batches(rows: Sequence[Row[Any, Any, Any]]) -> Iterator[Sequence[Row[Any, Any, Any]]]:
    return (rows[start : start + BATCH] for start in range(0, len(rows), BATCH))


def _drop(engine: Engine, some: Sequence[Row[Any, Any, Any]]) -> None:
    """Have no round freeze these; those that one froze in this moment are left as they are."""
    with engine.begin() as conn:
        frozen = _frozen_rounds(conn, {row.round_id for row in some})
        free = [row.update_id for row in some if row.round_id not in frozen]
        chosen = update(client_updates).where(
            client_updates.c.update_id.in_(free),
            client_updates.c.status == UpdateStatus.ACCEPTED.value,  # its round may have counted it since
        )
        conn.execute(chosen.values(status=UpdateStatus.DROPPED.value))


def _frozen_rounds(conn: Connection, ids: set[int]) -> set[int]:
    """Those that are frozen; the other open ones are locked, in order, until the transaction ends."""
    query = select(rounds.c.round_id, rounds.c.status).where(
        rounds.c.round_id.in_(sorted(ids)), rounds.c.status.in_(OPEN_STATUSES)
    )
    locked = conn.execute(query.order_by(rounds.c.round_id).with_for_update())
    return {row.round_id for row in locked if row.status == RoundStatus.AGGREGATING.value}


def _forget(engine: Engine, ids: Sequence[str]) -> int:
    with engine.begin() as conn:
        return conn.execute(delete(client_updates).where(client_updates.c.update_id.in_(ids))).rowcount


# Messages


def messages_of(subject: str) -> ColumnElement[bool]:
    """Messages of the outbox, dead letters too, about updates and invitations of the person."""
    own = clients_of(subject)
    updates = select(client_updates.c.update_id).where(client_updates.c.client_id.in_(own))
    asked = select(invitations.c.invitation_id).where(invitations.c.client_id.in_(own))
    return outbox.c.about.in_(
        union_all(updates, asked)
    )  # one list: for two, PostgreSQL reads the whole outbox
