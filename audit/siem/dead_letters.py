"""Dead letters: the events that a SIEM refused for good. They are kept and counted, and nothing waits for them."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from datetime import datetime

from sqlalchemy import Connection, delete, func, insert, select

from audit.siem.sink import Refusal
from audit.tables import siem_dead_letters

_LONGEST_TEXT = 255
_AT_ONCE = 500


@dataclass(frozen=True, slots=True)
class DeadLetter:
    """An entry whose event a sink refused; the entry itself is in the log."""

    seq: int
    reason: str
    created_at: datetime


def add_dead_letters(conn: Connection, sink: str, refused: Sequence[Refusal], now: datetime) -> None:
    """Keep what the sink refused; what it refused before has the newer reason."""
    drop_dead_letters(conn, sink, [refusal.event.seq for refusal in refused])
    rows = [
        {"sink": sink, "seq": refusal.event.seq, "reason": refusal.reason[:_LONGEST_TEXT], "created_at": now}
        for refusal in refused
    ]
    if rows:
        conn.execute(insert(siem_dead_letters), rows)


def drop_dead_letters(conn: Connection, sink: str, seqs: Collection[int]) -> None:
    """Forget those that the sink has taken after all."""
    ordered = sorted(seqs)
    for start in range(0, len(ordered), _AT_ONCE):
        some = ordered[start : start + _AT_ONCE]
        conn.execute(
            delete(siem_dead_letters).where(
                siem_dead_letters.c.sink == sink, siem_dead_letters.c.seq.in_(some)
            )
        )


def count_dead_letters(conn: Connection, sink: str) -> int:
    """How many there are."""
    counted = select(func.count()).select_from(siem_dead_letters).where(siem_dead_letters.c.sink == sink)
    return int(conn.execute(counted).scalar_one())


def read_dead_letters(conn: Connection, sink: str, *, after: int = -1, limit: int = 1000) -> list[DeadLetter]:
    """Up to `limit` of them behind the place `after`, in order."""
    columns = (siem_dead_letters.c.seq, siem_dead_letters.c.reason, siem_dead_letters.c.created_at)
    query = select(*columns).where(siem_dead_letters.c.sink == sink, siem_dead_letters.c.seq > after)
    rows = conn.execute(query.order_by(siem_dead_letters.c.seq).limit(limit))
    return [DeadLetter(row.seq, row.reason, row.created_at) for row in rows]
