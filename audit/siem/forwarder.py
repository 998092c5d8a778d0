"""The way of the log to one sink: read behind the durable cursor, deliver, then save the cursor.

The log is the only buffer. A crash between delivery and cursor repeats a batch and never skips one.
"""

from __future__ import annotations

import random
import threading
import time
from collections.abc import Callable
from datetime import datetime
from enum import StrEnum

from sqlalchemy import Engine
from sqlalchemy.exc import OperationalError
from sqlalchemy.exc import TimeoutError as PoolExhausted

from audit.crash import CrashPoint, no_crash
from audit.reading import reading
from audit.siem.cursor import Cursor, move_cursor, read_cursor
from audit.siem.errors import SinkDown
from audit.siem.event import Pseudonym, SiemEvent, render
from audit.siem.sinks import Sink
from audit.store import StoredEntry, read_entries

FIRST_BACKOFF_S = 0.5
LONGEST_BACKOFF_S = 60.0


class SinkState(StrEnum):
    """What is reported about a sink, once an outage each: the event types `siem.down` and `siem.up`."""

    DOWN = "down"
    UP = "up"


class Forwarder:
    """Delivers the log to one sink: every entry at least once, in order.

    Args:
        pseudonym: called with a subject-key id, outside of any transaction.
        report: told once when an outage begins and once when it ends; by default nobody is told.
        wait: returns when the sink may lack something, soon at the latest.
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
        batch: int = 500,
        wait: Callable[[], object] = lambda: time.sleep(0.05),
        report: Callable[[SinkState], None] | None = None,
        jitter: Callable[[], float] = random.random,
        crash: CrashPoint = no_crash,
    ) -> None:
        self._engine, self._sink, self._name = engine, sink, sink_name
        self._pseudonym, self._clock = pseudonym, clock
        self._batch, self._wait = batch, wait
        self._report, self._jitter, self._crash = report, jitter, crash
        self._reported = SinkState.UP

    def run_once(self) -> int:
        """Deliver one batch; how many entries the sink has got. Raises SinkDown, with the cursor unmoved."""
        with reading(self._engine) as conn:
            cursor = read_cursor(conn, self._name)
            entries = read_entries(conn, cursor.seq if cursor.seq >= 0 else None, self._batch)
        if not entries:
            return 0
        events = self._render(entries, cursor)
        self._sink.deliver(events)
        self._crash("forwarder.batch")
        last = events[-1].seq
        move_cursor(self._engine, self._name, cursor, Cursor(last, last), self._clock())
        return len(events)

    def run(self, stop: threading.Event) -> None:
        """Deliver until stopped; while the sink or the database is away, try again ever more rarely."""
        failures = 0
        while not stop.is_set():
            try:
                delivered = self._run_reported()
            except (SinkDown, OperationalError, PoolExhausted):
                failures += 1
                stop.wait(backoff_s(failures, self._jitter()))
                continue
            failures = 0
            if delivered < self._batch:
                self._wait()

    def _run_reported(self) -> int:
        """One batch, and the report if the sink's state is another than was last reported."""
        try:
            delivered = self.run_once()
        except SinkDown:
            self._tell(SinkState.DOWN)
            raise
        if delivered:
            self._tell(SinkState.UP)
        return delivered

    def _tell(self, state: SinkState) -> None:
        if state is not self._reported:
            if self._report:
                self._report(state)
            self._reported = state  # only now: a report that failed is made again

    def _render(self, entries: list[StoredEntry], cursor: Cursor) -> list[SiemEvent]:
        events: list[SiemEvent] = []
        for stored in entries:
            prev_seq = events[-1].seq if events else cursor.sent_seq
            events.append(render(stored, prev_seq, self._pseudonym))
        return events


def backoff_s(failures: int, jitter: float) -> float:
    """The wait after so many failures in a row: doubling up to a minute, shortened at random by up to a half.

    Args:
        jitter: from 0 (half the wait) to 1 (all of it), so that many forwarders do not return together.
    """
    longest: float = min(LONGEST_BACKOFF_S, FIRST_BACKOFF_S * 2 ** min(failures - 1, 16))
    return longest * (1 + jitter) / 2
