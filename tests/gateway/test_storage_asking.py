"""The connections that look-ups keep on PostgreSQL: a handful, watched, closed with their engine."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any

import pytest
from living.driver import await_that
from psycopg.errors import LockNotAvailable
from services import postgresql
from sqlalchemy import Engine, Text, bindparam, column, event, func, select, text
from sqlalchemy.exc import DataError, OperationalError

from gateway.storage import asking, database, silence
from gateway.storage.asking import MOST, own_connections
from gateway.storage.database import is_outage, is_over_limit, open_engine
from gateway.storage.lookup import LookUp

BACKEND = LookUp(
    select(func.pg_backend_pid().label("pid"), bindparam("word", type_=Text).label("word")), "word"
)
HELD = LookUp(
    select(column("id")).select_from(text("held")).where(column("id", Text) == bindparam("id")), "id"
)
SLOW = LookUp(select(bindparam("word", type_=Text).label("word")).select_from(text("pg_sleep(30)")), "word")


@pytest.fixture
def engine(postgresql_url: str) -> Iterator[Engine]:
    """An engine as the gateway opens it."""
    engine = open_engine(postgresql_url, part="asks")
    yield engine
    engine.dispose()


@pytest.fixture
def other(postgresql_url: str) -> Iterator[Engine]:
    """Somebody else's, who looks on."""
    engine = open_engine(postgresql_url, part="looks on")
    yield engine
    engine.dispose()


def sessions(other: Engine, waiting_for: str = "%") -> int:
    """How many connections of the asker the server has."""
    asked = text(
        "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() "
        "AND application_name = 'fl-gateway asks' AND coalesce(wait_event_type, '') LIKE :waiting_for"
    )
    with other.connect() as conn:
        return int(conn.scalar(asked, {"waiting_for": waiting_for}) or 0)


def backends(other: Engine) -> set[int]:
    """The server's processes behind the asker's connections."""
    asked = text("SELECT pid FROM pg_stat_activity WHERE application_name = 'fl-gateway asks'")
    with other.connect() as conn:
        return set(conn.scalars(asked))


def asked_while_held(engine: Engine, other: Engine, count: int, during: Any) -> list[object]:
    """The answers to so many look-ups at the same time, all of which wait until `during` is over."""
    with other.begin() as conn:
        conn.execute(text("CREATE TABLE IF NOT EXISTS held AS SELECT '7'::text AS id"))
    with ThreadPoolExecutor(count) as pool:
        with other.begin() as conn:
            conn.execute(text("LOCK TABLE held IN ACCESS EXCLUSIVE MODE"))
            asked: list[Future[object]] = [pool.submit(HELD.one, engine, "7") for _ in range(count)]
            during()
        return [one.result() for one in asked]


def test_one_connection_serves_one_after_the_other(engine: Engine, other: Engine) -> None:
    """No pool, no ping, no new connection: that is what a look-up saves."""
    found = [BACKEND.one(engine, word) for word in ("a", "b", "a")]

    assert [row.word for row in found if row] == ["a", "b", "a"]
    assert len({row.pid for row in found if row}) == 1
    assert engine.pool.checkedout() == 0  # type: ignore[attr-defined]
    assert sessions(other) == 1


def test_a_handful_is_kept_and_all_more_go_through_the_pool(
    engine: Engine, other: Engine, monkeypatch: pytest.MonkeyPatch
) -> None:
    """However many ask at the same moment: the pool bounds the rest. Those that wait long look on meanwhile."""
    monkeypatch.setattr(silence, "LOOK_AFTER_S", 0.1)
    count = MOST + 2

    def all_wait() -> None:
        await_that("all to wait", lambda: sessions(other, "Lock") == count)
        time.sleep(0.3)
        assert engine.pool.checkedout() == count - MOST  # type: ignore[attr-defined]

    found = asked_while_held(engine, other, count, all_wait)

    assert [row.id for row in found] == ["7"] * count  # type: ignore[attr-defined]
    assert engine.pool.checkedout() == 0  # type: ignore[attr-defined]


def test_they_are_closed_with_their_engine_also_those_in_use(engine: Engine, other: Engine) -> None:
    """A process that ends leaves no session behind, and an engine that is used again opens new ones."""
    first = BACKEND.one(engine, "a")

    def dispose_once_all_wait() -> None:
        await_that("all to wait", lambda: sessions(other, "Lock") == 2)
        engine.dispose()

    asked_while_held(engine, other, 2, dispose_once_all_wait)

    await_that("no session", lambda: sessions(other) == 0)
    again = BACKEND.one(engine, "a")
    assert first
    assert again
    assert again.pid != first.pid


def test_a_connection_that_was_cut_is_replaced_unseen(engine: Engine, other: Engine) -> None:
    """The server was restarted between two questions: the second is asked once more, on a new connection."""
    first = BACKEND.one(engine, "a")
    assert first
    with other.connect() as conn:
        conn.execute(text("SELECT pg_terminate_backend(:pid, 5000)"), {"pid": first.pid})

    again = [BACKEND.one(engine, "b") for _ in range(2)]

    assert all(row and row.word == "b" and row.pid != first.pid for row in again)


def test_where_one_was_cut_the_others_are_not_asked_either(engine: Engine, other: Engine) -> None:
    """A fail-over cuts them all: one question finds it out, and no later one waits for a host that is gone."""

    def both_wait() -> None:
        await_that("both to wait", lambda: sessions(other, "Lock") == 2)

    asked_while_held(engine, other, 2, both_wait)
    before = backends(other)
    first = BACKEND.one(engine, "a")
    assert first
    assert len(before) == 2
    with other.connect() as conn:
        conn.execute(text("SELECT pg_terminate_backend(:pid, 5000)"), {"pid": first.pid})
    BACKEND.one(engine, "b")

    asked_while_held(engine, other, 2, both_wait)

    assert not before & backends(other)


def test_a_question_that_took_too_long_is_not_asked_again(
    other: Engine, postgresql_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A table is locked: the thread waits as long as any statement may, and not twice as long (RULES 29)."""
    monkeypatch.setattr(database, "BUSY_TIMEOUT_MS", 200)
    engine = open_engine(postgresql_url, part="asks")
    asked_again: list[object] = []
    event.listen(engine, "before_cursor_execute", lambda *told: asked_again.append(told))

    def refused() -> None:
        with pytest.raises(OperationalError) as told:
            HELD.one(engine, "secret")
        assert isinstance(told.value.orig, LockNotAvailable)
        assert is_outage(told.value)
        assert is_over_limit(told.value)
        assert "secret" not in str(told.value)

    with other.begin() as conn:
        conn.execute(text("CREATE TABLE held AS SELECT '7'::text AS id"))
    assert HELD.one(engine, "7")
    asked_again.clear()
    with other.begin() as conn:
        conn.execute(text("LOCK TABLE held IN ACCESS EXCLUSIVE MODE"))
        refused()

    assert not asked_again
    assert HELD.one(engine, "7")
    engine.dispose()


def test_a_text_that_postgresql_cannot_have_is_not_cut_at_its_zero_byte(engine: Engine) -> None:
    """libpq reads a text to its zero byte: who asked for `a\\0b` would be told of `a`."""
    with pytest.raises(DataError):
        BACKEND.one(engine, "a\0b")


def test_a_connection_is_opened_anew_now_and_then(engine: Engine, monkeypatch: pytest.MonkeyPatch) -> None:
    """After a fail-over nothing leads to the old server for ever: it is as with the connections of the pool."""
    monkeypatch.setattr(asking, "KEPT_S", 0.0)

    first, again = BACKEND.one(engine, "a"), BACKEND.one(engine, "a")

    assert first
    assert again
    assert again.pid != first.pid


def test_a_child_leaves_its_parent_s_connections_alone(engine: Engine) -> None:
    """After a fork two processes would read each other's answers, and one's end would end the other's session."""
    first = BACKEND.one(engine, "a")
    child = os.fork()
    if child == 0:
        engine.dispose(close=False)  # SQLAlchemy's own pool
        found = BACKEND.one(engine, "a")
        os._exit(0 if found and first and found.pid != first.pid else 1)

    assert os.waitpid(child, 0)[1] == 0
    assert BACKEND.one(engine, "a") == first


def test_a_child_does_not_wait_for_a_thread_that_it_does_not_have(engine: Engine) -> None:
    """Another thread of the parent may be about to make an engine's connections while it forks."""
    with asking._making:
        child = os.fork()
        if child == 0:
            signal.signal(signal.SIGALRM, signal.SIG_DFL)
            signal.alarm(5)
            own_connections(engine)
            os._exit(0)

    assert os.waitpid(child, 0)[1] == 0


def test_a_silent_server_is_asked_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """Decision 0071: given up after one look, though the connection was in use a moment ago; it is an outage."""
    monkeypatch.setattr(silence, "LOOK_AFTER_S", 0.5)
    with postgresql.running() as server:
        engine = open_engine(server.url(), part="asks")
        assert BACKEND.one(engine, "a")
        server.freeze()
        began_s = time.monotonic()
        with pytest.raises(OperationalError) as told:
            BACKEND.one(engine, "a")
        took_s = time.monotonic() - began_s
        server.thaw()

        assert is_outage(told.value)
        assert isinstance(told.value.orig, silence.ServerSilent)
        assert took_s < 0.5 + silence.CONNECT_S + 2
        assert BACKEND.one(engine, "a")
        engine.dispose()


def test_an_answer_that_never_comes_is_given_up(postgresql_url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """One backend alone is halted: the server takes connections, and should have ended the statement long ago."""
    monkeypatch.setattr(silence, "LOOK_AFTER_S", 0.2)
    monkeypatch.setattr(silence, "_GRACE_S", -58.0)
    engine = open_engine(postgresql_url, part="asks")
    with pytest.raises(OperationalError) as told:
        SLOW.one(engine, "a")

    assert isinstance(told.value.orig, silence.ServerSilent)
    engine.dispose()
