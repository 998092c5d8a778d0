"""The way of the log to one sink: read behind the durable cursor, deliver, then save the cursor.

The log is the only buffer. A crash between delivery and cursor repeats a batch and never skips one.
"""

from __future__ import annotations

import logging
import random
import threading
import time
import traceback
from collections.abc import Callable, Mapping, Sequence
from datetime import datetime
from pathlib import Path

from sqlalchemy import Connection, Engine
from sqlalchemy.exc import OperationalError
from sqlalchemy.exc import TimeoutError as PoolExhausted

from audit.canonical import JsonValue
from audit.crash import CrashPoint, no_crash
from audit.entry import Draft
from audit.reading import reading
from audit.siem.breaker import Breaker
from audit.siem.cursor import Cursor, Standing, note_down, note_taken, read_standing
from audit.siem.errors import SinkDown
from audit.siem.event import Pseudonym, SiemEvent, render
from audit.siem.sink import Delivery, Sink
from audit.store import StoredEntry, read_entries, tree_size
from audit.vocabulary import EventType

log = logging.getLogger(__name__)
BATCH = 500
BATCH_BYTES = 512 << 10
_TELLINGS = (EventType.SIEM_DOWN, EventType.SIEM_UP, EventType.SIEM_REFUSED)

Drafting = Callable[[EventType, Mapping[str, JsonValue]], Draft]
"""Seals an entry about a sink, with these details; it is called outside of any transaction."""


class Forwarder:
    """Delivers the log to one sink: every entry at least once, in order.

    Args:
        engine: the main database.
        sink: where to.
        sink_name: the name of its cursor.
        pseudonym: called with a subject-key id, outside of any transaction.
        clock: the time.
        batch: the most entries that are sent at once.
        wait: returns when the sink may lack something, soon at the latest.
        draft: makes the entries `siem.down`, `siem.up` and `siem.refused`; by default none is written.
        jitter: from 0 to 1, at random.
        crash: a test kills the process at `forwarder.batch`, delivered but not yet noted.
    """

    def __init__(
        self,
        engine: Engine,
        sink: Sink,
        sink_name: str,
        pseudonym: Pseudonym,
        clock: Callable[[], datetime],
        *,
        batch: int = BATCH,
        wait: Callable[[], object] = lambda: time.sleep(0.05),
        draft: Drafting | None = None,
        jitter: Callable[[], float] = random.random,
        crash: CrashPoint = no_crash,
    ) -> None:
        self._engine, self._sink, self._name = engine, sink, sink_name
        self._pseudonym, self._clock = pseudonym, clock
        self._wait, self._draft, self._crash = wait, draft, crash
        self._breaker = Breaker(batch, jitter)
        self._pause_s = 0.0

    def run_once(self) -> int:
        """Deliver one batch; how many entries the sink has got. Raises SinkDown, with the cursor unmoved."""
        with reading(self._engine) as conn:
            standing = read_standing(conn, self._name)
            entries = next_entries(conn, standing.cursor.seq, self._breaker.size)
            if not entries:
                return 0
            lag = tree_size(conn) - 1 - standing.cursor.seq
        events = rendered(entries, standing.cursor.sent_seq, self._pseudonym, self._clock())
        try:
            delivery = deliver(self._sink, self._name, events)
        except SinkDown as down:
            self._note_down(standing, events, down, lag)
            raise
        self._crash("forwarder.batch")
        self._note_taken(standing, events, delivery, lag)
        return len(events)

    def run(self, stop: threading.Event) -> None:
        """Deliver until stopped; while the sink or the database is away, try again ever more rarely."""
        try:
            while not stop.is_set():
                try:
                    delivered = self.run_once()
                except SinkDown:
                    stop.wait(self._pause_s)
                except (OperationalError, PoolExhausted):
                    stop.wait(self._breaker.failed())
                except Exception as error:  # noqa: BLE001 - a thread that ends is a SIEM that hears nothing
                    log.error(
                        "the forwarder to %s tries again after a fault of ours: %s", self._name, _where(error)
                    )
                    stop.wait(self._breaker.failed())
                else:
                    if not delivered:
                        self._wait()
        finally:
            self._sink.close()

    def _note_down(self, standing: Standing, events: Sequence[SiemEvent], down: SinkDown, lag: int) -> None:
        """Where nothing but tellings waits, no outage begins: one that fails now and then would feed itself."""
        self._pause_s = self._breaker.failed(down.retry_after_s)
        begins = standing.down_since is None and not all(map(_is_telling, events))
        entry = None
        if self._draft and begins:
            about = self._about(standing, lag)
            entry = self._draft(EventType.SIEM_DOWN, {**about, "reason": down.why})
        failures, now = self._breaker.failures, self._clock()
        note_down(self._engine, self._name, failures, down.why, now, begins=begins, entry=entry)

    def _note_taken(self, standing: Standing, events: list[SiemEvent], delivery: Delivery, lag: int) -> None:
        entries = []
        if self._draft and standing.down_since is not None:
            entries.append(self._draft(EventType.SIEM_UP, self._about(standing, lag)))
        if self._draft and (refused := self._refused(delivery)):
            entries.append(self._draft(EventType.SIEM_REFUSED, refused))
        last = Cursor(events[-1].seq, events[-1].seq)
        note_taken(self._engine, self._name, standing, last, delivery, self._clock(), entries)
        self._breaker.succeeded()

    def _about(self, standing: Standing, lag: int) -> dict[str, JsonValue]:
        return {"sink": self._name, "seq": standing.cursor.seq, "lag_entries": lag}

    def _refused(self, delivery: Delivery) -> dict[str, JsonValue]:
        """What the log is told of the refused; nothing of refused tellings, or a sink could keep the log busy."""
        told = [one for one in delivery.refused if one.event.text("event_type") != EventType.SIEM_REFUSED]
        if not told:
            return {}
        seqs = [refusal.event.seq for refusal in told]
        about: dict[str, JsonValue] = {"sink": self._name, "count": len(told), "reason": told[0].reason}
        return {**about, "seq": min(seqs), "last_seq": max(seqs)}


def _is_telling(event: SiemEvent) -> bool:
    return event.text("event_type") in _TELLINGS


def next_entries(conn: Connection, after: int, limit: int) -> list[StoredEntry]:
    """The entries behind a place that make one batch, by their number and their bytes; at least one if there is any."""
    entries = read_entries(conn, after if after >= 0 else None, limit)
    size = 0
    for position, entry in enumerate(entries):
        size += len(entry.canonical)
        if size > BATCH_BYTES and position:
            return entries[:position]
    return entries


def rendered(
    entries: Sequence[StoredEntry], prev_seq: int, pseudonym: Pseudonym, now: datetime
) -> list[SiemEvent]:
    """The events of entries that follow each other; `prev_seq` is the place before the first."""
    events: list[SiemEvent] = []
    for stored in entries:
        events.append(render(stored, events[-1].seq if events else prev_seq, pseudonym, now))
    return events


def deliver(sink: Sink, name: str, events: Sequence[SiemEvent]) -> Delivery:
    """Hand a batch over; a fault of ours is an outage too, so that it is told and tried again.

    Raises:
        SinkDown: any of it may be missing.
    """
    try:
        return sink.deliver(events)
    except SinkDown:
        raise
    except Exception as error:
        log.error("the sink %s met a fault of ours: %s", name, _where(error))
        raise SinkDown(name, f"a fault of ours ({type(error).__name__})") from error


def _where(error: Exception) -> str:
    """Kind and place of a fault; not its text, which may hold what was to be sent (RULES 30)."""
    frame = traceback.extract_tb(error.__traceback__)[-1]
    return f"{type(error).__name__} at {Path(frame.filename).name}:{frame.lineno}"
