"""Removes what is over, in small indexed batches: none holds a lock for long, and a purge outruns every issuance.

Each batch goes on where the last one ended, so that none reads the traces of those before it; its size follows the time
that it took.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

from sqlalchemy import ColumnElement, Connection, Table, delete, literal_column, select, text
from sqlalchemy.exc import SQLAlchemyError

from gateway.services import Services
from gateway.storage.database import is_outage, kind_of
from gateway.tables import authorization_codes, revoked_tokens, sessions, tokens, used_assertions

log = logging.getLogger(__name__)
PURGE_EACH_S = 10.0
LONGEST_BATCH_S = 0.008
_LEAST, _MOST = 50, 500
_NEED_NOT_LAST = text("SET LOCAL synchronous_commit = off")  # what a crash brings back is purged again
_EVER = datetime(1970, 1, 1, tzinfo=UTC)
_EXPIRING = (tokens, revoked_tokens, used_assertions, sessions)


@dataclass(frozen=True, slots=True)
class Batch:
    """What one transaction removed, and how long its locks stood."""

    table: str
    rows: int
    took_s: float


def run_purger(services: Services, stop: threading.Event) -> None:
    """Purge again and again until told to stop; leaves as much time between two batches as one takes."""
    while not stop.wait(PURGE_EACH_S):
        try:
            for batch in purge(services):
                if stop.wait(batch.took_s):
                    return
        except SQLAlchemyError as error:
            if not is_outage(error):
                raise
            log.warning("the database is away (%s): expired tokens wait", kind_of(error))


def purge_expired(services: Services) -> int:
    """Remove everything that is over; says how many rows there were."""
    return sum(batch.rows for batch in purge(services))


def purge(services: Services) -> Iterator[Batch]:
    """Remove everything that is over, a batch each time the next value is asked for.

    A code is kept for as long as a token may live that it was exchanged for: shown again, it ends them.
    """
    now = services.clock()
    for table in _EXPIRING:
        yield from _purge_table(services, table, now)
    yield from _purge_table(
        services, authorization_codes, now - timedelta(seconds=services.config.refresh_ttl_s)
    )


def _purge_table(
    services: Services, table: Table, until: datetime, clock: Callable[[], float] = time.perf_counter
) -> Iterator[Batch]:
    since, size, was_full = _EVER, _LEAST, True
    while was_full:
        with services.engine.begin() as conn:
            began_s = clock()  # SQLite's one writer's place is ours now
            ended = _remove(conn, table, since, until, size)
        took_s, was_full = clock() - began_s, len(ended) == size
        if ended:
            yield Batch(table.name, len(ended), took_s)
            since = max(ended)
        fitting = int(size * LONGEST_BATCH_S / max(took_s, 1e-6))
        size = max(_LEAST, min(fitting, 2 * size, _MOST))


def _remove(
    conn: Connection, table: Table, since: datetime, until: datetime, most: int
) -> Sequence[datetime]:
    """Remove the oldest of what ended in this span; what somebody else is at is passed over. Says when each ended.

    Rows are named by their place, which follows time; their keys are random, and would be looked for all over the disk.
    """
    is_shared, over = conn.dialect.name == "postgresql", table.c.expires_at
    place: ColumnElement[object] = literal_column("ctid" if is_shared else "rowid")
    oldest = select(place).select_from(table).where(over >= since, over <= until).order_by(over).limit(most)
    if is_shared:
        oldest = oldest.with_for_update(skip_locked=True)
        conn.execute(_NEED_NOT_LAST)
    return conn.execute(delete(table).where(place.in_(oldest)).returning(over)).scalars().all()
