"""Bells: who waits for rows is woken after the commit, by threads and, on PostgreSQL, by other processes."""

from __future__ import annotations

import os
import resource
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import ExitStack, closing, contextmanager
from pathlib import Path

import pytest
from services import postgresql
from sqlalchemy import Column, Engine, Integer, MetaData, Table, insert, text

from gateway.storage.bell import Bell, Channel, LocalBell, open_bell
from gateway.storage.database import open_engine
from gateway.storage.ringing import ring_after_commits

PATIENCE_S = 30.0
_notes = Table("notes", MetaData(), Column("id", Integer, primary_key=True))
RINGS_ELSEWHERE = """
import sys
from gateway.storage.bell import Channel, open_bell
from gateway.storage.database import open_engine
engine = open_engine(sys.argv[1])
bell = open_bell(engine)
bell.ring(Channel.LOG)
bell.close()
engine.dispose()
"""


@contextmanager
def opened(url: str) -> Iterator[tuple[Engine, Bell]]:
    """An engine and its bell."""
    engine = open_engine(url)
    with closing(open_bell(engine)) as bell:
        yield engine, bell
    engine.dispose()


def heard_within(bell: Bell, channel: Channel, patience_s: float = PATIENCE_S) -> float | None:
    """How long this thread waited for a ring, by waits as short as the bell makes them; None: in vain."""
    began = time.monotonic()
    while (waited := time.monotonic() - began) < patience_s:
        if bell.wait(channel, patience_s - waited):
            return time.monotonic() - began
    return None


def settle(bell: Bell) -> None:
    """Wait until the listener, which rings everything once it is connected, has done so."""
    if not isinstance(bell, LocalBell):
        assert heard_within(bell, Channel.PENDING) is not None  # nobody else rings this one here
    for channel in Channel:
        bell.wait(channel, 0)


def test_a_ring_wakes_a_waiting_thread_of_the_same_process(database_url: str) -> None:
    """A waiter need not look again and again: it is woken."""
    with opened(database_url) as (_, bell):
        settle(bell)
        threading.Timer(0.2, bell.ring, [Channel.LOG]).start()

        waited = heard_within(bell, Channel.LOG)

        assert waited is not None
        assert waited < 5


def test_a_ring_between_the_look_and_the_wait_is_heard(database_url: str) -> None:
    """No wake-up is lost: what rang since a thread's last wait ends its next one at once."""
    with opened(database_url) as (_, bell):
        settle(bell)
        bell.ring(Channel.ROUNDS)

        heard = bell.wait(Channel.ROUNDS, PATIENCE_S)
        again = bell.wait(Channel.ROUNDS, 0)

        assert heard
        assert not again


def test_a_ring_of_one_channel_wakes_nobody_on_another(database_url: str) -> None:
    """The channels are apart: an update does not wake those who wait for invitations."""
    with opened(database_url) as (_, bell):
        settle(bell)
        bell.ring(Channel.LOG)

        assert not bell.wait(Channel.INVITATIONS, 0.3)


def test_every_waiting_thread_hears_a_ring(database_url: str) -> None:
    """A ring is for all: a hundred long polls may wait for it."""
    with opened(database_url) as (_, bell):
        heard: list[float | None] = []
        waiting = threading.Barrier(6)

        def wait() -> None:
            settle(bell)
            waiting.wait()
            heard.append(heard_within(bell, Channel.INVITATIONS))

        threads = [threading.Thread(target=wait) for _ in range(5)]
        for thread in threads:
            thread.start()
        waiting.wait()
        bell.ring(Channel.INVITATIONS)
        for thread in threads:
            thread.join()

        assert len(heard) == 5
        assert None not in heard


def test_a_wait_of_an_embedded_gateway_ends_after_a_poll() -> None:
    """Other processes cannot ring on SQLite: whoever waits looks again soon."""
    bell = LocalBell({Channel.LOG: 0.02})
    began = time.monotonic()

    heard = bell.wait(Channel.LOG, 60)

    assert not heard
    assert time.monotonic() - began < 5


def test_a_ring_reaches_another_process(postgresql_url: str) -> None:
    """LISTEN and NOTIFY: the sequencer hears the web process at once."""
    with opened(postgresql_url) as (_, bell):
        settle(bell)

        subprocess.run([sys.executable, "-c", RINGS_ELSEWHERE, postgresql_url], check=True)

        assert bell.wait(Channel.LOG, PATIENCE_S)


def test_rings_at_once_go_out_as_few_notifications(postgresql_url: str) -> None:
    """NOTIFY takes a lock of the whole server: a thousand updates do not mean a thousand notifications."""
    with opened(postgresql_url) as (engine, bell), closing(engine.raw_connection()) as raw:
        listening = raw.driver_connection
        assert listening is not None
        listening.autocommit = True
        listening.execute("LISTEN flg_log")

        began = time.monotonic()
        for _ in range(1000):
            bell.ring(Channel.LOG)
        took_s = time.monotonic() - began
        bell.close()
        told = list(listening.notifies(timeout=PATIENCE_S, stop_after=1))
        told += listening.notifies(timeout=0.5)
        listening.autocommit = False

        assert 1 <= len(told) <= 2 + took_s / 0.01


def test_the_bell_is_heard_again_after_the_server_was_away(caplog: pytest.LogCaptureFixture) -> None:
    """A restart of PostgreSQL ends both connections; the threads live on and connect again."""
    with postgresql.running() as server, opened(server.url()) as (_, bell):
        settle(bell)
        server.stop(crash=True)
        bell.ring(Channel.LOG)
        server.start()
        settle(bell)

        subprocess.run([sys.executable, "-c", RINGS_ELSEWHERE, server.url()], check=True)
        waited = heard_within(bell, Channel.LOG)

    assert waited is not None
    assert "the database is away" in caplog.text


def test_closing_the_bell_ends_every_wait_and_thread(database_url: str) -> None:
    """A process that is told to stop does not hang in a wait."""
    engine = open_engine(database_url)
    bell = open_bell(engine)
    settle(bell)
    bell.ring(Channel.LOG)
    closing_thread = threading.Timer(0.2, bell.close)
    closing_thread.start()
    began = time.monotonic()

    bell.wait(Channel.INVITATIONS, 60)
    closing_thread.join()
    bell.close()

    assert time.monotonic() - began < 10
    assert not [thread for thread in threading.enumerate() if thread.name.startswith("bell-")]
    engine.dispose()


def test_the_bell_rings_after_the_commit_of_what_somebody_waits_for(database_url: str) -> None:
    """No writer thinks of the bell; inside the transaction it is silent, and after a rollback too."""
    with opened(database_url) as (engine, bell):
        _notes.metadata.create_all(engine)
        ring_after_commits(engine, bell, {_notes: Channel.ROUNDS})
        settle(bell)
        told: dict[str, bool] = {}

        with engine.connect() as conn:
            conn.execute(insert(_notes).values(id=1))
            conn.rollback()
        told["rolled back"] = bell.wait(Channel.ROUNDS, 0.1)
        with engine.begin() as conn:
            conn.execute(text("SELECT 1"))
        told["only read"] = bell.wait(Channel.ROUNDS, 0.1)
        with engine.begin() as conn:
            conn.execute(insert(_notes).values(id=1))
            told["inside"] = bell.wait(Channel.ROUNDS, 0.1)
        told["committed"] = bell.wait(Channel.ROUNDS, 0.1)

        assert told == {"rolled back": False, "only read": False, "inside": False, "committed": True}


def test_rows_that_the_driver_was_given_ring_as_those_of_sqlalchemy(database_url: str) -> None:
    """Entries are staged by a text for the driver: the sequencer is woken all the same."""
    with opened(database_url) as (engine, bell):
        _notes.metadata.create_all(engine)
        ring_after_commits(engine, bell, {_notes: Channel.ROUNDS})
        settle(bell)

        with engine.begin() as conn:
            conn.exec_driver_sql("INSERT INTO notes (id) VALUES (2)")

        assert bell.wait(Channel.ROUNDS, 0.1)


def test_the_bell_is_heard_in_a_process_with_thousands_of_connections(postgresql_url: str) -> None:
    """A web process has more open files than `select` can look at."""
    before = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (min(4096, before[1]), before[1]))
    with ExitStack() as stack:
        stack.callback(resource.setrlimit, resource.RLIMIT_NOFILE, before)
        here = stack.enter_context(Path(os.devnull).open("rb"))
        for _ in range(1100):
            stack.callback(os.close, os.dup(here.fileno()))
        _, bell = stack.enter_context(opened(postgresql_url))
        settle(bell)
        subprocess.run([sys.executable, "-c", RINGS_ELSEWHERE, postgresql_url], check=True)

        assert heard_within(bell, Channel.LOG) is not None
