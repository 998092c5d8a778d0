"""The forwarder against real files, a real database and a process that is really killed (promise 6)."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
import textwrap
import threading
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from services.clock import FixedClock
from services.siem import events_in, fill_log, open_log, pseudonym
from sqlalchemy import Engine, text

from audit.siem import Forwarder, SiemEvent, SinkDown, SinkState, backoff_s, lag_entries
from audit.siem.cursor import Cursor, move_cursor, read_cursor
from audit.siem.file_sink import FileSink

TESTS = Path(__file__).resolve().parents[1]


class Outage:
    """A sink that is down for its first `failures` batches."""

    def __init__(self, failures: int) -> None:
        self.failures = failures
        self.taken: list[SiemEvent] = []

    def deliver(self, events: Sequence[SiemEvent]) -> None:
        if self.failures:
            self.failures -= 1
            raise SinkDown("test", "it is down")
        self.taken.extend(events)


@pytest.fixture
def engine(database_url: str) -> Iterator[Engine]:
    """A database with an empty log."""
    engine = open_log(database_url)
    yield engine
    engine.dispose()


@pytest.fixture
def to_file(engine: Engine, tmp_path: Path, clock: FixedClock) -> Callable[[], Forwarder]:
    """Makes the forwarder anew, as a restart does: nothing but the database remembers where it was."""

    def make() -> Forwarder:
        return Forwarder(engine, FileSink(tmp_path / "siem.jsonl"), "file:siem", pseudonym, clock, batch=4)

    return make


def test_every_entry_arrives_once_and_in_order(
    engine: Engine, to_file: Callable[[], Forwarder], tmp_path: Path
) -> None:
    """Promise 6: a SIEM query over seq and prev_seq finds no hole, across batches and restarts."""
    fill_log(engine, 10)

    delivered = [to_file().run_once() for _ in range(4)]

    events = events_in(tmp_path / "siem.jsonl")
    assert delivered == [4, 4, 2, 0]
    assert [event["seq"] for event in events] == list(range(10))
    assert [event["prev_seq"] for event in events] == list(range(-1, 9))


def test_a_person_leaves_as_a_pseudonym_and_an_erased_one_as_nobody(
    engine: Engine, to_file: Callable[[], Forwarder], tmp_path: Path
) -> None:
    """RULES 28: a random id per subject; once the key is gone, null. No ciphertext and no key id leaves."""
    fill_log(engine, 1)

    to_file().run_once()

    (event,) = events_in(tmp_path / "siem.jsonl")
    assert event["entry"]["actor"] == {"pseudonym": "p-alive"}
    assert event["entry"]["ip_address"] == {"pseudonym": None}
    assert event["entry"]["details"] == {"reason": "0", "device": {"pseudonym": "p-alive"}, "name": "Grüße"}
    assert "enc" not in json.dumps(event)


def test_a_failing_sink_leaves_the_cursor_where_it_was(engine: Engine, clock: FixedClock) -> None:
    """Promise 6: what the sink did not take, it is sent again."""
    fill_log(engine, 3)
    sink = Outage(1)
    forwarder = Forwarder(engine, sink, "s", pseudonym, clock)

    with pytest.raises(SinkDown):
        forwarder.run_once()

    with engine.connect() as conn:
        assert (read_cursor(conn, "s"), lag_entries(conn, "s")) == (Cursor(), 3)
    assert forwarder.run_once() == 3
    with engine.connect() as conn:
        assert (read_cursor(conn, "s"), lag_entries(conn, "s")) == (Cursor(2, 2), 0)


def test_an_outage_is_reported_once_and_so_is_its_end(engine: Engine, clock: FixedClock) -> None:
    """The events siem.down and siem.up stand once an outage in the log, however long it lasts."""
    fill_log(engine, 3)
    sink, stop, told = Outage(3), threading.Event(), list[SinkState]()

    def report(state: SinkState) -> None:
        told.append(state)
        if state is SinkState.UP:
            stop.set()

    forwarder = Forwarder(engine, sink, "s", pseudonym, clock, report=report, jitter=lambda: -0.99)
    forwarder.run(stop)

    assert told == [SinkState.DOWN, SinkState.UP]
    assert [event.seq for event in sink.taken] == [0, 1, 2]


def test_a_stop_does_not_wait_for_the_sink(engine: Engine, clock: FixedClock) -> None:
    """A forwarder in the middle of a back-off ends at once."""
    fill_log(engine, 1)
    stop, down = threading.Event(), threading.Event()
    forwarder = Forwarder(
        engine, Outage(1000), "s", pseudonym, clock, report=lambda _: down.set(), jitter=lambda: 100.0
    )
    running = threading.Thread(target=forwarder.run, args=(stop,))
    running.start()
    assert down.wait(5)

    stop.set()
    running.join(2)

    assert not running.is_alive()


def test_two_forwarders_of_one_sink_never_move_it_back(engine: Engine, clock: FixedClock) -> None:
    """The cursor moves by compare-and-set: the slower of two finds it moved and leaves it."""
    moved = move_cursor(engine, "s", Cursor(), Cursor(9, 9), clock())
    again = move_cursor(engine, "s", Cursor(), Cursor(4, 4), clock())
    late = move_cursor(engine, "s", Cursor(3, 3), Cursor(5, 5), clock())

    with engine.connect() as conn:
        assert (moved, again, late, read_cursor(conn, "s")) == (True, False, False, Cursor(9, 9))


def test_a_spoilt_entry_is_reported_and_stops_nothing(engine: Engine, clock: FixedClock) -> None:
    """Who rewrites an entry in the database does not mute the SIEM by it."""
    fill_log(engine, 3)
    with engine.begin() as conn:
        conn.execute(text("UPDATE audit_log SET canonical = '{}' WHERE seq = 1"))
    sink = Outage(0)

    Forwarder(engine, sink, "s", pseudonym, clock).run_once()

    assert [event.text("event_type") for event in sink.taken] == [
        "access.refused",
        "log.unreadable",
        "access.refused",
    ]


def test_a_kill_between_delivery_and_cursor_loses_nothing(
    engine: Engine, database_url: str, to_file: Callable[[], Forwarder], tmp_path: Path
) -> None:
    """Promise 6: SIGKILL after the batch is delivered and before it is noted repeats the batch, in order."""
    fill_log(engine, 6)
    path = tmp_path / "siem.jsonl"
    program = f"""
        import sys
        sys.path.insert(0, {str(TESTS)!r})
        from audit.siem import Forwarder
        from audit.siem.file_sink import FileSink
        from gateway.crash import crash_at
        from gateway.storage.database import open_engine
        from services.clock import FixedClock
        from services.siem import pseudonym as names
        engine, crash = open_engine({database_url!r}), crash_at("forwarder.batch")
        Forwarder(engine, FileSink({str(path)!r}), "file:siem", names, FixedClock(), batch=4, crash=crash).run_once()
    """
    killed = subprocess.run([sys.executable, "-c", textwrap.dedent(program)], cwd=TESTS.parent, check=False)

    while to_file().run_once():
        pass

    seqs = [event["seq"] for event in events_in(tmp_path / "siem.jsonl")]
    assert killed.returncode == -signal.SIGKILL
    assert seqs == [0, 1, 2, 3, 0, 1, 2, 3, 4, 5]


@pytest.mark.parametrize("torn", [b'{"seq":0,"prev_', b"x" * 200_000])
def test_a_torn_last_line_is_mended(
    engine: Engine, to_file: Callable[[], Forwarder], tmp_path: Path, torn: bytes
) -> None:
    """A line that a crash cut short is removed before the batch comes again: every line stays whole JSON."""
    fill_log(engine, 6)
    to_file().run_once()
    with (tmp_path / "siem.jsonl").open("ab") as file:
        file.write(torn)

    to_file().run_once()

    assert [event["seq"] for event in events_in(tmp_path / "siem.jsonl")] == list(range(6))


def test_a_file_that_cannot_be_written_is_an_outage(tmp_path: Path) -> None:
    """A full or missing disk delays events; the reason names no content."""
    sink = FileSink(tmp_path / "missing" / "siem.jsonl")

    with pytest.raises(SinkDown) as down:
        sink.deliver([SiemEvent(0, -1, {"event_type": "canary"})])

    assert "No such file" in str(down.value)
    assert "canary" not in str(down.value)


@given(failures=st.integers(1, 10_000), jitter=st.floats(0, 1))
def test_the_wait_grows_to_a_minute_and_no_further(failures: int, jitter: float) -> None:
    """Back-off: between half and all of 0.5 s doubled each time, never above a minute."""
    wait = backoff_s(failures, jitter)

    whole = min(60.0, 0.5 * 2 ** min(failures - 1, 20))
    assert whole / 2 <= wait <= whole
