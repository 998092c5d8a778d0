"""The syslog sink against a real rsyslog, and against receivers that die (RFC 5424, RFC 6587, promise 6)."""

from __future__ import annotations

import json
import re
import socket
import struct
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from services.clock import FixedClock
from services.ports import free_port
from services.rsyslog import Rsyslog, running_rsyslog
from services.siem import fill_log, open_log, pseudonym
from sqlalchemy import Engine

from audit.siem import Forwarder, SiemEvent, SinkDown, parse_sinks
from audit.siem.syslog_sink import Confirmation, SyslogSink, frame

LINE = re.compile(r'(\d) (\S+) \[flg@32473 seq="(\d+)" prevSeq="(-?\d+)"\] ?\ufeff?(\{.*\})')
EVENT = SiemEvent(
    7,
    6,
    {"event_type": "access.refused", "outcome": "denied", "time": "2026-11-24T12:00:00.000000Z", "x": "ü"},
)

LARGE = SiemEvent(7, 6, {**EVENT.entry, "x": "x" * 60_000})


@pytest.fixture
def engine(sqlite_url: str) -> Iterator[Engine]:
    """A database with an empty log."""
    engine = open_log(sqlite_url)
    yield engine
    engine.dispose()


def await_lines(rsyslog: Rsyslog, count: int) -> list[tuple[str, ...]]:
    """The lines that rsyslog wrote, taken apart, once there are so many."""
    deadline = time.monotonic() + 60
    while (came := len(rsyslog.lines())) < count:
        assert time.monotonic() < deadline, f"rsyslog wrote {came} lines, not {count}"
        time.sleep(0.05)
    matches = [LINE.fullmatch(line) for line in rsyslog.lines()]
    return [match.groups() for match in matches if match]


def test_rsyslog_writes_every_entry_as_it_was_sent(engine: Engine, tmp_path: Path, clock: FixedClock) -> None:
    """RFC 5424: severity, time, structured data and JSON of 300 entries, compared one by one."""
    fill_log(engine, 300)
    with running_rsyslog(tmp_path / "rsyslog", free_port()) as rsyslog:
        (named,) = parse_sinks(f"syslog+tcp://127.0.0.1:{rsyslog.port}", hostname="fl.example.com")
        forwarder = Forwarder(engine, named.sink, named.name, pseudonym, clock, batch=128)

        while forwarder.run_once():
            pass

        lines = await_lines(rsyslog, 300)

    assert [(int(seq), int(prev)) for _, _, seq, prev, _ in lines] == [(n, n - 1) for n in range(300)]
    assert [severity for severity, *_ in lines[:3]] == ["6", "4", "3"]
    assert {stamp for _, stamp, *_ in lines} == {"2026-11-24T12:00:00.000000Z"}
    for number, (*_, message) in enumerate(lines):
        event = json.loads(message)
        assert (event["seq"], event["prev_seq"], event["entry"]["seq"]) == (number, number - 1, number)
        assert event["entry"]["details"]["name"] == "Grüße"
        assert event["entry"]["actor"] == {"pseudonym": "p-alive"}


def test_the_longest_entry_passes_whole(engine: Engine, tmp_path: Path, clock: FixedClock) -> None:
    """An entry of nearly 65,535 bytes is one message, not cut."""
    fill_log(engine, 1, padding="x" * 64_000)
    with running_rsyslog(tmp_path / "rsyslog", free_port()) as rsyslog:
        Forwarder(engine, SyslogSink("127.0.0.1", rsyslog.port), "s", pseudonym, clock).run_once()
        (line,) = await_lines(rsyslog, 1)

    assert json.loads(line[-1])["entry"]["details"]["name"] == "Grüße" + "x" * 64_000


def test_an_outage_loses_nothing_and_keeps_the_order(
    engine: Engine, tmp_path: Path, clock: FixedClock
) -> None:
    """Promise 6: a receiver that is down while 1,000 entries come gets them all in order when it is back."""
    fill_log(engine, 1000)
    port, stop = free_port(), threading.Event()
    forwarder = Forwarder(
        engine, SyslogSink("127.0.0.1", port), "s", pseudonym, clock, batch=100, jitter=lambda: -0.9
    )
    running = threading.Thread(target=forwarder.run, args=(stop,))
    running.start()
    time.sleep(0.5)  # some attempts fail

    try:
        with running_rsyslog(tmp_path / "rsyslog", port) as rsyslog:
            lines = await_lines(rsyslog, 1000)
    finally:
        stop.set()
        running.join(60)

    assert not running.is_alive()
    assert [int(seq) for _, _, seq, _, _ in lines] == list(range(1000))


def read_half_and_reset(connection: socket.socket, _over: threading.Event) -> None:
    """Dies in the middle of the batch, as a killed receiver with unread bytes does."""
    connection.recv(1000)
    reset(connection)


def read_a_bit_and_leave(connection: socket.socket, _over: threading.Event) -> None:
    """Takes what has come and goes in order, as a receiver that is stopped in the middle of a frame does."""
    connection.recv(1000)
    connection.close()


def end_and_die(connection: socket.socket, _over: threading.Event) -> None:
    """Ends its half without having read, and dies: its end comes first, and then the reset."""
    time.sleep(0.1)
    connection.shutdown(socket.SHUT_WR)
    time.sleep(0.2)
    connection.close()


def chatter(connection: socket.socket, over: threading.Event) -> None:
    """Reads everything, never ends, and says something now and then."""
    with connection:
        while connection.recv(65_536):
            pass
        while not over.wait(0.05):
            connection.sendall(b".")


def read_nothing(connection: socket.socket, over: threading.Event) -> None:
    """Hangs until the test is over: its kernel takes the bytes, the program never does."""
    over.wait(20)
    reset(connection)


def reset(connection: socket.socket) -> None:
    """Close with RST, as the kernel does for a dead process with unread bytes."""
    connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    connection.close()


@pytest.fixture
def receiver(request: pytest.FixtureRequest) -> Iterator[int]:
    """The port of a receiver that treats its one connection as the test says."""
    behave: Callable[[socket.socket, threading.Event], None] = request.param
    over = threading.Event()
    with socket.create_server(("127.0.0.1", 0)) as server:
        server.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)  # what is unread waits at our side
        thread = threading.Thread(target=lambda: behave(server.accept()[0], over))
        thread.start()
        yield server.getsockname()[1]
        over.set()
        thread.join(10)


@pytest.mark.parametrize(
    "receiver",
    [read_half_and_reset, read_a_bit_and_leave, end_and_die, read_nothing, chatter],
    indirect=True,
)
def test_a_batch_that_the_receiver_did_not_read_to_its_end_is_not_taken(receiver: int) -> None:
    """Bytes in the other kernel are not yet read: without the receiver's own end the batch comes again."""
    sink = SyslogSink("127.0.0.1", receiver, timeout_s=0.8)

    with pytest.raises(SinkDown):
        sink.deliver([LARGE] * 4)


@pytest.mark.parametrize("receiver", [read_nothing], indirect=True)
def test_a_receiver_that_never_closes_can_be_had_with_a_weaker_promise(receiver: int) -> None:
    """?confirm=sent: one connection stays, and what its machine has received counts as taken after a while."""
    sink = SyslogSink("127.0.0.1", receiver, timeout_s=5.0, confirmation=Confirmation.SENT, settle_s=0.2)

    answers = {sink.deliver([EVENT]).answer for _ in range(3)}  # over one connection
    sink.close()

    assert [answer.rpartition(": ")[2] for answer in answers] == ["weaker than its close"]


@pytest.mark.parametrize("receiver", [read_half_and_reset, read_a_bit_and_leave], indirect=True)
def test_the_window_of_a_connection_that_breaks_is_sent_again(receiver: int) -> None:
    """?confirm=sent: a batch whose connection does not live on is not taken, though every byte had left us."""
    sink = SyslogSink("127.0.0.1", receiver, timeout_s=2.0, confirmation=Confirmation.SENT, settle_s=0.5)

    with pytest.raises(SinkDown):
        sink.deliver([EVENT] * 20)


@pytest.mark.parametrize("receiver", [read_nothing], indirect=True)
def test_a_window_that_the_receiver_s_machine_has_no_room_for_is_not_taken(receiver: int) -> None:
    """?confirm=sent: a receiver that hangs is found once its machine takes no more."""
    sink = SyslogSink("127.0.0.1", receiver, timeout_s=0.5, confirmation=Confirmation.SENT, settle_s=0.1)

    with pytest.raises(SinkDown, match="in time"):
        sink.deliver([LARGE] * 4)


def test_a_frame_counts_its_bytes_and_marks_its_text_as_utf8() -> None:
    """RFC 6587 3.4.1 and RFC 5424 6: length in octets, priority of facility 13, BOM before the message."""
    length, _, message = frame(EVENT, "host").partition(b" ")

    assert int(length) == len(message)
    header, _, body = message.partition(b"\xef\xbb\xbf")
    assert header == (
        b"<108>1 2026-11-24T12:00:00.000000Z host fl-gateway - access.refused "
        b'[flg@32473 seq="7" prevSeq="6"] '
    )
    assert json.loads(body) == {"seq": 7, "prev_seq": 6, "entry": EVENT.entry}
