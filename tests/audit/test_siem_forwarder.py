"""The forwarder against real files, a real database and a process that is really killed (promise 6)."""

from __future__ import annotations

import json
import os
import signal
import stat
import subprocess
import sys
import textwrap
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from services.clock import FixedClock
from services.siem import draft_of, events_in, fill_log, open_log, pseudonym, told
from sqlalchemy import Engine, text

from audit.events import EventType
from audit.siem import Delivery, Forwarder, NamedSink, Refusal, SiemEvent, SinkDown, backoff_s, lag_entries
from audit.siem.cursor import Cursor, Standing, note_taken, read_cursor, read_standing
from audit.siem.dead_letters import count_dead_letters, read_dead_letters
from audit.siem.file_sink import FileSink
from audit.siem.replay import replay, retry_dead_letters

TESTS = Path(__file__).resolve().parents[1]


class Outage:
    """A sink that is down for its first `failures` batches."""

    def __init__(self, failures: int) -> None:
        self.failures = failures
        self.taken: list[SiemEvent] = []

    def deliver(self, events: Sequence[SiemEvent]) -> Delivery:
        if self.failures:
            self.failures -= 1
            raise SinkDown("test", "it is down")
        self.taken.extend(events)
        return Delivery("taken")

    def probe(self) -> None:
        """Nothing to reach."""

    def close(self) -> None:
        """Nothing to close."""


class Picky(Outage):
    """A sink that refuses some places of the log for good."""

    def __init__(self, refuses: set[int]) -> None:
        super().__init__(0)
        self.refuses = refuses

    def deliver(self, events: Sequence[SiemEvent]) -> Delivery:
        self.taken.extend(event for event in events if event.seq not in self.refuses)
        refused = (Refusal(event, "400 bad") for event in events if event.seq in self.refuses)
        return Delivery("taken", tuple(refused))


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


def test_an_outage_is_told_once_and_so_is_its_end(engine: Engine, clock: FixedClock) -> None:
    """The events siem.down and siem.up stand once an outage in the log, however long it lasts, and say how far."""
    fill_log(engine, 3)
    sink = Outage(3)

    for _ in range(3):  # each a forwarder of its own: a restart does not begin the outage anew
        with pytest.raises(SinkDown):
            Forwarder(engine, sink, "s", pseudonym, clock, draft=draft_of).run_once()
    with engine.connect() as conn:
        during = read_standing(conn, "s")
    Forwarder(engine, sink, "s", pseudonym, clock, draft=draft_of).run_once()

    about = {"sink": "s", "seq": -1, "lag_entries": 3}
    assert told(engine) == [("siem.down", {**about, "reason": "it is down"}), ("siem.up", about)]
    assert (during.state, during.down_since, during.problem) == ("down", clock(), "it is down")
    with engine.connect() as conn:
        after = read_standing(conn, "s")
    assert (after.state, after.down_since, after.failures, after.answer) == ("up", None, 0, "taken")
    assert [event.seq for event in sink.taken] == [0, 1, 2]


def test_a_sink_that_fails_now_and_then_does_not_keep_the_log_busy(engine: Engine, clock: FixedClock) -> None:
    """What the log is told of a sink is an event, too: its failure is no outage, until another event waits."""
    fill_log(engine, 1)
    sink = Outage(0)
    forwarder = Forwarder(engine, sink, "s", pseudonym, clock, draft=draft_of)

    def round_of(failures: int) -> str:
        sink.failures = failures
        for _ in range(failures):
            with pytest.raises(SinkDown):
                forwarder.run_once()
        with engine.connect() as conn:
            seen = read_standing(conn, "s").state
        forwarder.run_once()
        return seen

    states = [round_of(1)]
    _tell(engine, 1, EventType.SIEM_DOWN, EventType.SIEM_UP)
    states.append(round_of(1))
    after_first = [event for event, _ in told(engine)]
    _tell(engine, 3, EventType.SIEM_UP)
    sink.failures = 1
    with pytest.raises(SinkDown):
        forwarder.run_once()
    fill_log(engine, 1, first=4)
    states.append(round_of(1))

    assert after_first == ["siem.down", "siem.up"]
    assert [event for event, _ in told(engine)] == ["siem.down", "siem.up"] * 2
    assert states == ["down"] * 3
    with engine.connect() as conn:
        assert (read_standing(conn, "s").state, read_standing(conn, "s").failures) == ("up", 0)
    assert [event.seq for event in sink.taken] == list(range(5))


def _tell(engine: Engine, first: int, *events: EventType) -> None:
    """Put tellings into the log, as the sequencer does with what a forwarder has staged."""
    fill_log(engine, len(events), first=first)
    with engine.begin() as conn:
        for seq, event in enumerate(events, first):
            change = "UPDATE audit_log SET canonical = replace(canonical, 'access.refused', :event)"
            conn.execute(text(f"{change} WHERE seq = :seq"), {"event": event.value, "seq": seq})


def test_the_forwarder_itself_tries_until_it_is_taken(engine: Engine, clock: FixedClock) -> None:
    """It goes on by itself: after five failures the breaker is open, and a probe is one event."""
    fill_log(engine, 40)
    sink, stop, sizes = Outage(6), threading.Event(), list[int]()

    class Watched(Outage):
        def deliver(self, events: Sequence[SiemEvent]) -> Delivery:
            sizes.append(len(events))
            if events[-1].seq == 39 and not sink.failures:
                stop.set()
            return sink.deliver(events)

    forwarder = Forwarder(
        engine, Watched(0), "s", pseudonym, clock, batch=32, draft=draft_of, jitter=lambda: -0.99
    )
    forwarder.run(stop)

    assert sizes[:7] == [32, 16, 8, 4, 2, 1, 1]
    assert [event.seq for event in sink.taken] == list(range(40))


def test_a_fault_of_ours_in_a_sink_is_an_outage_and_not_the_end(
    engine: Engine, clock: FixedClock, caplog: pytest.LogCaptureFixture
) -> None:
    """What nobody foresaw is told, kept as the problem, and tried again; its text is not repeated."""
    fill_log(engine, 1)

    class Broken(Outage):
        def deliver(self, events: Sequence[SiemEvent]) -> Delivery:
            raise KeyError("canary")

    with pytest.raises(SinkDown):
        Forwarder(engine, Broken(0), "s", pseudonym, clock, draft=draft_of).run_once()

    ((event, details),) = told(engine)
    assert (event, details["reason"]) == ("siem.down", "a fault of ours (KeyError)")
    assert "KeyError at test_siem_forwarder.py:" in caplog.text
    assert "canary" not in caplog.text


def test_a_stop_does_not_wait_for_the_sink(engine: Engine, clock: FixedClock) -> None:
    """A forwarder in the middle of a back-off ends at once."""
    fill_log(engine, 1)
    stop, down = threading.Event(), threading.Event()

    class Told(Outage):
        def deliver(self, events: Sequence[SiemEvent]) -> Delivery:
            down.set()
            return super().deliver(events)

    forwarder = Forwarder(engine, Told(1000), "s", pseudonym, clock, jitter=lambda: 100.0)
    running = threading.Thread(target=forwarder.run, args=(stop,))
    running.start()
    assert down.wait(5)

    stop.set()
    running.join(2)

    assert not running.is_alive()


def test_two_forwarders_of_one_sink_never_move_it_back(engine: Engine, clock: FixedClock) -> None:
    """The cursor moves by compare-and-set: the slower of two finds it moved, and writes nothing at all."""
    refused = Delivery("taken", (Refusal(SiemEvent(4, 3, {}), "bad"),))

    def move(before: int, after: int) -> bool:
        standing = Standing(Cursor(before, before))
        entry = draft_of(EventType.SIEM_REFUSED, {"sink": "s"})
        return note_taken(engine, "s", standing, Cursor(after, after), refused, clock(), [entry])

    moved, again, late = move(-1, 9), move(-1, 4), move(3, 5)

    with engine.connect() as conn:
        assert (moved, again, late, read_cursor(conn, "s")) == (True, False, False, Cursor(9, 9))
        assert count_dead_letters(conn, "s") == 1
    assert len(told(engine)) == 1


def test_two_forwarders_at_once_leave_no_hole(engine: Engine, tmp_path: Path, clock: FixedClock) -> None:
    """A second forwarder makes doubles at the worst: every entry is there, first seen in order."""
    fill_log(engine, 200)
    path, stop = tmp_path / "siem.jsonl", threading.Event()
    forwarders = [
        Forwarder(engine, FileSink(path), "s", pseudonym, clock, batch=7, draft=draft_of) for _ in range(2)
    ]
    threads = [threading.Thread(target=forwarder.run, args=(stop,)) for forwarder in forwarders]
    for thread in threads:
        thread.start()
    deadline = time.monotonic() + 20
    while _lag(engine, "s") and time.monotonic() < deadline:
        time.sleep(0.02)
    stop.set()
    for thread in threads:
        thread.join(10)

    first_seen = list(dict.fromkeys(event["seq"] for event in events_in(path)))
    assert first_seen == list(range(200))
    assert told(engine) == []


def _lag(engine: Engine, sink: str) -> int:
    with engine.connect() as conn:
        return lag_entries(conn, sink)


def test_what_a_sink_refuses_for_good_is_kept_and_told_and_passed(engine: Engine, clock: FixedClock) -> None:
    """Dead letters: kept and counted, one entry a batch, and the events behind them go on."""
    fill_log(engine, 6)
    sink = Picky({1, 2})

    forwarder = Forwarder(engine, sink, "s", pseudonym, clock, batch=4, draft=draft_of)
    delivered = [forwarder.run_once() for _ in range(3)]

    assert delivered == [4, 2, 0]
    assert [(event.seq, event.prev_seq) for event in sink.taken] == [(0, -1), (3, 2), (4, 3), (5, 4)]
    with engine.connect() as conn:
        letters = read_dead_letters(conn, "s")
        assert (read_cursor(conn, "s"), lag_entries(conn, "s")) == (Cursor(5, 5), 0)
    assert [(letter.seq, letter.reason) for letter in letters] == [(1, "400 bad"), (2, "400 bad")]
    about = {"sink": "s", "count": 2, "seq": 1, "last_seq": 2, "reason": "400 bad"}
    assert told(engine) == [("siem.refused", about)]


def test_a_sink_that_refuses_everything_does_not_keep_the_log_busy(engine: Engine, clock: FixedClock) -> None:
    """A refused `siem.refused` is a dead letter and no news, or it would bring forth the next one for ever."""
    event = SiemEvent(0, -1, {"event_type": "siem.refused"})
    fill_log(engine, 1)

    class Refuses(Picky):
        def deliver(self, events: Sequence[SiemEvent]) -> Delivery:
            return Delivery("none", (Refusal(event, "400 bad"),))

    Forwarder(engine, Refuses(set()), "s", pseudonym, clock, draft=draft_of).run_once()

    assert told(engine) == []
    with engine.connect() as conn:
        assert count_dead_letters(conn, "s") == 1


def test_dead_letters_that_are_taken_at_last_fill_their_holes(engine: Engine, clock: FixedClock) -> None:
    """Retried, an event is that of the first time: its `prev_seq` closes the hole; what is refused again stays."""
    fill_log(engine, 5)
    sink = Picky({1, 3})
    Forwarder(engine, sink, "s", pseudonym, clock).run_once()
    sink.refuses, sink.taken = {3}, []

    batches = list(retry_dead_letters(engine, NamedSink("s", sink), pseudonym, clock()))

    assert [(batch.taken, batch.refused) for batch in batches] == [(1, 1)]
    assert [(event.seq, event.prev_seq) for event in sink.taken] == [(1, 0)]
    with engine.connect() as conn:
        assert [letter.seq for letter in read_dead_letters(conn, "s")] == [3]


def test_dead_letters_are_retried_in_batches_and_one_without_an_entry_hides_no_other(
    engine: Engine, clock: FixedClock
) -> None:
    """A retry sends no more at once than a receiver takes, and goes on behind entries that somebody deleted."""
    fill_log(engine, 60)
    sink = Picky(set(range(60)))
    Forwarder(engine, sink, "s", pseudonym, clock).run_once()
    sink.refuses = set()
    with engine.begin() as conn:
        conn.execute(text("DELETE FROM audit_log WHERE seq < 40"))

    batches = list(retry_dead_letters(engine, NamedSink("s", sink), pseudonym, clock()))

    assert [event.seq for event in sink.taken] == list(range(40, 60))
    assert max(batch.taken for batch in batches) <= 8


@pytest.mark.parametrize(
    ("first", "last", "seqs"), [(0, None, range(7)), (2, 4, range(2, 5)), (6, 9, [6]), (9, None, [])]
)
def test_a_stretch_of_the_log_is_delivered_again(
    engine: Engine, clock: FixedClock, first: int, last: int | None, seqs: Sequence[int]
) -> None:
    """Replay: the same events as the first time, and the live cursor stays where it is."""
    fill_log(engine, 7)
    sink = Picky(set())

    batches = list(replay(engine, NamedSink("s", sink), pseudonym, first, last, clock()))

    assert [(event.seq, event.prev_seq) for event in sink.taken] == [(seq, seq - 1) for seq in seqs]
    assert sum(batch.taken for batch in batches) == len(seqs)
    with engine.connect() as conn:
        assert read_cursor(conn, "s") == Cursor()


def test_a_batch_has_an_end_by_its_bytes_too(engine: Engine, clock: FixedClock) -> None:
    """Large entries go in smaller batches, which receivers with a limit take; every one goes."""
    fill_log(engine, 20, padding="x" * 60_000)
    sink = Picky(set())
    forwarder = Forwarder(engine, sink, "s", pseudonym, clock)

    sizes = [forwarder.run_once() for _ in range(4)]

    assert sizes == [8, 8, 4, 0]


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


@pytest.mark.parametrize(
    ("spoil", "told_of"),
    [
        (lambda entry: entry["details"].update(x=_nested(65)), "log.unreadable"),
        (lambda entry: entry["details"].update(x=_nested(900)), "log.unreadable"),
        (lambda entry: entry["actor"].update(key="\0"), "access.refused"),
    ],
)
def test_an_entry_of_the_right_shape_with_an_odd_content_stops_nothing(
    engine: Engine, clock: FixedClock, spoil: Callable[[dict[str, Any]], None], told_of: str
) -> None:
    """Depth that no entry has, and a key id that PostgreSQL cannot be asked for, mute no SIEM either."""
    entry = json.loads(fill_log(engine, 3)[1])
    spoil(entry)
    spoilt = json.dumps(entry, ensure_ascii=False, sort_keys=True, separators=(",", ":"))
    with engine.begin() as conn:
        conn.execute(text("UPDATE audit_log SET canonical = :spoilt WHERE seq = 1"), {"spoilt": spoilt})
    sink, asked = Outage(0), list[str]()

    Forwarder(engine, sink, "s", asked.append, clock).run_once()

    assert [event.text("event_type") for event in sink.taken] == ["access.refused", told_of, "access.refused"]
    assert "\0" not in asked


def test_bytes_in_a_column_of_texts_stop_nothing(sqlite_url: str, clock: FixedClock) -> None:
    """SQLite keeps in a column whatever it is given."""
    engine, sink = open_log(sqlite_url), Outage(0)
    fill_log(engine, 2)
    with engine.begin() as conn:
        conn.execute(text("UPDATE audit_log SET canonical = x'00ff' WHERE seq = 0"))

    Forwarder(engine, sink, "s", pseudonym, clock).run_once()
    engine.dispose()

    assert [event.text("event_type") for event in sink.taken] == ["log.unreadable", "access.refused"]


def _nested(depth: int) -> list[Any]:
    value: list[Any] = []
    for _ in range(depth):
        value = [value]
    return value


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


def test_a_new_file_s_name_is_on_disk_whoever_made_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A file that a killed forwarder or log rotation has made may not vanish with what is in it; once is enough."""
    synced, fsync = list[bool](), os.fsync

    def watched(number: int) -> None:
        synced.append(stat.S_ISDIR(os.fstat(number).st_mode))
        fsync(number)

    monkeypatch.setattr(os, "fsync", watched)
    path, event = tmp_path / "siem.jsonl", SiemEvent(0, -1, {})
    path.touch()
    sink = FileSink(path)

    for _ in range(2):
        sink.deliver([event])
    path.rename(tmp_path / "siem.jsonl.1")
    path.touch()
    sink.deliver([event])

    assert synced == [False, True, False, False, True]


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
