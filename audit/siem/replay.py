"""Once more by hand: a stretch of the log, the dead letters of a sink, or an event that is in no log, to see it arrive.

None of it moves the live cursor. The events are those of the first time: the same ids, the same `prev_seq`.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime
from uuid import UUID

from sqlalchemy import Connection, Engine, func, select

from audit.canonical import JsonValue
from audit.entry import MAX_ENTRY_BYTES, Outcome, time_text
from audit.reading import reading
from audit.siem.dead_letters import add_dead_letters, drop_dead_letters, read_dead_letters
from audit.siem.event import Pseudonym, SiemEvent, render
from audit.siem.forwarder import BATCH, BATCH_BYTES, deliver, next_entries, rendered
from audit.siem.sink import Delivery
from audit.siem.sinks import NamedSink
from audit.store import entry_at
from audit.tables import audit_log

_LETTERS = BATCH_BYTES // MAX_ENTRY_BYTES
"""How many dead letters go at once: the largest entries that there can be make no larger batch than others."""

TEST_EVENT = "siem.test"
"""The event type of a test event; no entry of the log bears it."""


@dataclass(frozen=True, slots=True)
class Batch:
    """A batch that a sink got once more."""

    first: int
    last: int
    taken: int
    refused: int


def replay(
    engine: Engine, named: NamedSink, pseudonym: Pseudonym, first: int, last: int | None, now: datetime
) -> Iterator[Batch]:
    """Deliver the entries from `first` to `last` (to the end of the log if None), batch by batch.

    Raises:
        SinkDown: a batch was not taken; those before it were.
    """
    after = first - 1
    while last is None or after < last:
        limit = BATCH if last is None else min(BATCH, last - after)
        with reading(engine) as conn:
            entries = [one for one in next_entries(conn, after, limit) if last is None or one.seq <= last]
            before = _place_before(conn, entries[0].seq) if entries else -1
        if not entries:
            return
        events = rendered(entries, before, pseudonym, now)
        yield _delivered(engine, named, events, now)
        after = events[-1].seq


def retry_dead_letters(
    engine: Engine, named: NamedSink, pseudonym: Pseudonym, now: datetime
) -> Iterator[Batch]:
    """Deliver again what the sink refused; what it takes now is no dead letter any more.

    Raises:
        SinkDown: a batch was not taken; those before it were.
    """
    after = -1
    while True:
        with reading(engine) as conn:
            letters = read_dead_letters(conn, named.name, after=after, limit=_LETTERS)
            stored = [
                (one, _place_before(conn, letter.seq))
                for letter in letters
                if (one := entry_at(conn, letter.seq))
            ]
        if not letters:
            return
        after = letters[-1].seq
        if stored:
            again = [render(one, before, pseudonym, now) for one, before in stored]
            yield _delivered(engine, named, again, now)


def trial_event(entry_id: UUID, now: datetime) -> SiemEvent:
    """An event like those of the log, at the place -1: it stands before all others, and no search finds a hole."""
    entry: dict[str, JsonValue] = {
        "id": str(entry_id),
        "time": time_text(now),
        "event_type": TEST_EVENT,
        "action": "test",
        "outcome": Outcome.SUCCESS.value,
        "details": {},
    }
    return SiemEvent(-1, -1, entry)


def _delivered(engine: Engine, named: NamedSink, events: Sequence[SiemEvent], now: datetime) -> Batch:
    delivery: Delivery = deliver(named.sink, named.name, events)
    refused = {refusal.event.seq for refusal in delivery.refused}
    with engine.begin() as conn:
        drop_dead_letters(conn, named.name, {event.seq for event in events} - refused)
        add_dead_letters(conn, named.name, delivery.refused, now)
    return Batch(events[0].seq, events[-1].seq, len(events) - len(refused), len(refused))


def _place_before(conn: Connection, seq: int) -> int:
    """The place of the entry before; -1 before the first."""
    found = conn.execute(select(func.max(audit_log.c.seq)).where(audit_log.c.seq < seq)).scalar_one()
    return -1 if found is None else int(found)
