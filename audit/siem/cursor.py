"""How far a sink has got and how it stands: the facts about it that are kept, saved once a batch (RULES 3).

What is told of it in the log commits with the fact: an outage, its end, and what the SIEM refused, each once.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

from sqlalchemy import Connection, Engine, Row, insert, select, update
from sqlalchemy.exc import IntegrityError

from audit.entry import Draft
from audit.siem.breaker import is_open
from audit.siem.dead_letters import add_dead_letters
from audit.siem.sink import Delivery
from audit.store import stage, tree_size
from audit.tables import siem_cursors

_LONGEST_TEXT = 255


@dataclass(frozen=True, slots=True)
class Cursor:
    """The last entry that a sink has passed, and the last that it was sent; -1 before the first."""

    seq: int = -1
    sent_seq: int = -1


@dataclass(frozen=True, slots=True)
class Standing:
    """What any process can tell about a sink.

    Args:
        down_since: since when the outage lasts that the log is told; None while there is none.
        failures: how many tries in a row have failed.
        problem: why the last one did that failed.
        answer: on what it rests that the last batch was taken.
        updated_at: None for a sink that was never heard of.
    """

    cursor: Cursor = field(default_factory=Cursor)
    down_since: datetime | None = None
    failures: int = 0
    problem: str = ""
    answer: str = ""
    updated_at: datetime | None = None

    @property
    def state(self) -> str:
        """`up`; `down` after a failure; `open` once the breaker lets single events through alone."""
        if self.down_since is None and not self.failures:
            return "up"
        return "open" if is_open(self.failures) else "down"


def read_standing(conn: Connection, sink: str) -> Standing:
    """How the sink stands; at the beginning, and up, if it is new."""
    row = conn.execute(_of(sink)).first()
    return _standing(row) if row else Standing()


def read_cursor(conn: Connection, sink: str) -> Cursor:
    """Where the sink stands; at the beginning if it is new."""
    return read_standing(conn, sink).cursor


def note_taken(
    engine: Engine,
    sink: str,
    before: Standing,
    after: Cursor,
    delivery: Delivery,
    now: datetime,
    entries: Sequence[Draft] = (),
) -> bool:
    """Move the cursor behind a batch, unless another forwarder has moved it meanwhile; then nothing is written.

    Args:
        engine: the main database.
        sink: its name.
        before: what was read before the batch was sent.
        after: behind the batch.
        delivery: what became of it; what was refused is kept as dead letters.
        now: the time.
        entries: what the log is told in the same transaction: the end of the outage, and the refusal.
    """
    values: dict[str, Any] = {"seq": after.seq, "sent_seq": after.sent_seq}
    if delivery.answer:
        values |= {"answer": delivery.answer[:_LONGEST_TEXT]}
    if before.state != "up":
        values |= {"down_since": None, "failures": None}
    try:
        with engine.begin() as conn:
            found = conn.execute(_of(sink).with_for_update()).first()
            if _standing(found).cursor != before.cursor if found else before.cursor != Cursor():
                return False
            _write(conn, sink, values, now, is_new=found is None)
            add_dead_letters(conn, sink, delivery.refused, now)
            stage(conn, *entries)
    except IntegrityError:
        return False
    return True


def note_down(
    engine: Engine, sink: str, failures: int, why: str, now: datetime, *, begins: bool, entry: Draft | None
) -> None:
    """Keep why a try failed; where an outage begins by it, the log is told.

    Args:
        engine: the main database.
        sink: its name.
        failures: how many have failed in a row, this one included.
        why: in our words.
        now: the time.
        begins: whether an outage begins, unless another forwarder has noted it meanwhile.
        entry: what the log is told then; None if nobody is told.
    """
    values: dict[str, Any] = {"failures": failures, "problem": why[:_LONGEST_TEXT]}
    try:
        with engine.begin() as conn:
            found = conn.execute(_of(sink).with_for_update()).first()
            if begins and (found is None or found.down_since is None):
                values |= {"down_since": now}
                stage(conn, *([entry] if entry else []))
            if found is None:
                values |= {"seq": Cursor().seq, "sent_seq": Cursor().sent_seq}
            _write(conn, sink, values, now, is_new=found is None)
    except IntegrityError:
        return  # another forwarder has just made the row: the next failure finds it


def lag_entries(conn: Connection, sink: str) -> int:
    """How many sequenced entries the sink has not passed yet (the metric `fl_siem_lag_entries`)."""
    return max(0, tree_size(conn) - 1 - read_cursor(conn, sink).seq)


def _of(sink: str) -> Any:
    return select(siem_cursors).where(siem_cursors.c.sink == sink)


def _write(conn: Connection, sink: str, values: Mapping[str, Any], now: datetime, *, is_new: bool) -> None:
    change = insert(siem_cursors).values(sink=sink) if is_new else _changed(sink)
    conn.execute(change.values(**values, updated_at=now))


def _changed(sink: str) -> Any:
    return update(siem_cursors).where(siem_cursors.c.sink == sink)


def _standing(row: Row[Any]) -> Standing:
    return Standing(
        Cursor(row.seq, row.sent_seq),
        row.down_since,
        row.failures or 0,
        row.problem or "",
        row.answer or "",
        row.updated_at,
    )
