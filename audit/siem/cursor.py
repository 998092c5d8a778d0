"""How far a sink has got: the one fact about it that is kept, saved once a batch (RULES 3)."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime

from sqlalchemy import Connection, Engine, insert, select, update
from sqlalchemy.exc import IntegrityError

from audit.store import tree_size
from audit.tables import siem_cursors


@dataclass(frozen=True, slots=True)
class Cursor:
    """The last entry that a sink has passed, and the last that it was sent; -1 before the first."""

    seq: int = -1
    sent_seq: int = -1


def read_cursor(conn: Connection, sink: str) -> Cursor:
    """Where the sink stands; at the beginning if it is new."""
    columns = select(siem_cursors.c.seq, siem_cursors.c.sent_seq).where(siem_cursors.c.sink == sink)
    row = conn.execute(columns).first()
    return Cursor(row.seq, row.sent_seq) if row else Cursor()


def move_cursor(engine: Engine, sink: str, old: Cursor, new: Cursor, now: datetime) -> bool:
    """Move the cursor in a transaction of its own, unless another forwarder has moved it meanwhile."""
    values = {"seq": new.seq, "sent_seq": new.sent_seq, "updated_at": now}
    here = (siem_cursors.c.sink == sink, siem_cursors.c.seq == old.seq)
    try:
        with engine.begin() as conn:
            if conn.execute(update(siem_cursors).where(*here).values(**values)).rowcount == 1:
                return True
            if old != Cursor():
                return False
            conn.execute(insert(siem_cursors).values(sink=sink, **values))
    except IntegrityError:
        return False
    return True


def lag_entries(conn: Connection, sink: str) -> int:
    """How many sequenced entries the sink has not passed yet (the metric `fl_siem_lag_entries`)."""
    return max(0, tree_size(conn) - 1 - read_cursor(conn, sink).seq)
