"""Rows that travel with the COMMIT of PostgreSQL: there with their transaction, or not at all, and nobody hangs."""

from __future__ import annotations

import shutil
import signal
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import psycopg
import pytest
from services import postgresql
from services.small_disk import small_disk
from sqlalchemy import Connection, Engine, func, make_url, select, text
from sqlalchemy.exc import DBAPIError, IntegrityError, OperationalError

from audit.draft import Personal, draft
from audit.entry import Draft, Sealed
from audit.events import EventType
from audit.store import stage
from audit.tables import audit_pending
from audit.writing import is_conflict, writing
from gateway.services import utc_now
from gateway.storage import silence
from gateway.storage.bell import Channel, open_bell
from gateway.storage.database import is_outage, is_over_limit, lacks_room, open_engine
from gateway.storage.ringing import ring_after_commits
from gateway.storage.silence import WatchfulConnection
from gateway.storage.with_commit import CarryingConnection

INSERT = "INSERT INTO carried (id, body) VALUES (%s, %s)"


@pytest.fixture
def engine(postgresql_url: str) -> Iterator[Engine]:
    """A database with a table for rows that are carried, and one for effects."""
    opened = open_engine(postgresql_url)
    with opened.begin() as conn:
        conn.execute(text("CREATE TABLE carried (id text PRIMARY KEY, body text)"))
        conn.execute(text("CREATE TABLE effects (id integer PRIMARY KEY)"))
    yield opened
    opened.dispose()


def carry(conn: Connection, *rows: tuple[str, str]) -> CarryingConnection:
    """Give the transaction rows to take along; its connection."""
    own = conn.connection.driver_connection
    assert isinstance(own, CarryingConnection)
    if not conn.in_transaction():
        conn.begin()
    assert own.carry(INSERT, rows)
    return own


def effect(conn: Connection, number: int) -> None:
    """Something that the transaction does."""
    conn.execute(text("INSERT INTO effects VALUES (:number)"), {"number": number})


def found(engine: Engine) -> tuple[list[str], list[int]]:
    """The ids of carried rows, and of effects, that were committed."""
    with engine.connect() as conn:
        ids = conn.scalars(text("SELECT id FROM carried ORDER BY id")).all()
        return [*ids], [*conn.scalars(text("SELECT id FROM effects ORDER BY id"))]


def test_rows_are_committed_with_their_effect(engine: Engine) -> None:
    """Nothing is there before; afterwards both are."""
    with engine.connect() as conn, conn.begin() as transaction:
        effect(conn, 1)
        carry(conn, ("a", "one"), ("b", "it's ä %s $1 \\"))
        assert found(engine) == ([], [])
        transaction.commit()

    assert found(engine) == (["a", "b"], [1])
    with engine.connect() as conn:
        assert conn.scalar(text("SELECT body FROM carried WHERE id = 'b'")) == "it's ä %s $1 \\"


def test_effect_and_rows_take_one_answer_of_the_server(
    engine: Engine, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What it is for: a transaction of rows alone waits once, and the COMMIT of an effect brings them along."""
    waits: list[str] = []
    wait, end = WatchfulConnection.wait, WatchfulConnection.end_pipeline

    def note_wait(self: Any, *args: Any) -> Any:
        waits.append("statement")
        return wait(self, *args)

    def note_end(self: Any, commands: int) -> None:
        waits.append(f"pipeline of {commands}")
        end(self, commands)

    def waits_for(*rows: tuple[str, str], effects: Sequence[int] = ()) -> list[str]:
        with engine.connect() as conn:
            waits.clear()
            for number in effects:
                effect(conn, number)
            carry(conn, *rows)
            conn.commit()
            return [*waits]

    monkeypatch.setattr(WatchfulConnection, "wait", note_wait)
    monkeypatch.setattr(WatchfulConnection, "end_pipeline", note_end)
    bare = waits_for(effects=[1])

    assert waits_for(("a", "")) == ["pipeline of 1"]
    assert waits_for(("b", ""), effects=[2]) == [*bare[:-1], "pipeline of 2"]
    assert found(engine) == (["a", "b"], [1, 2])


def test_a_rollback_forgets_rows(engine: Engine) -> None:
    """The next transaction of the same connection has nothing of them."""
    with engine.connect() as conn:
        own = carry(conn, ("a", ""))
        conn.rollback()
        effect(conn, 1)
        conn.commit()
        carry(conn, ("b", ""))
    with engine.begin() as conn:
        assert conn.connection.driver_connection is own
        effect(conn, 2)

    assert found(engine) == ([], [1, 2])


@pytest.mark.parametrize("has_effect", [True, False])
def test_a_refused_row_undoes_the_whole_and_spoils_nothing(engine: Engine, *, has_effect: bool) -> None:
    """The error is that of the commit, of the kind that everybody knows; the connection goes on."""
    with engine.connect() as conn:
        pid = conn.scalar(text("SELECT pg_backend_pid()"))
        conn.rollback()
        with pytest.raises(IntegrityError) as told, conn.begin():  # noqa: PT012 - at its end
            if has_effect:
                effect(conn, 1)
            carry(conn, ("a", ""), ("b", ""), ("a", ""), ("c", ""))

        assert isinstance(told.value.orig, psycopg.errors.UniqueViolation)
        assert conn.scalar(text("SELECT pg_backend_pid()")) == pid
    assert found(engine) == ([], [])
    with engine.begin() as conn:
        effect(conn, 2)
        carry(conn, ("a", ""))
    assert found(engine) == (["a"], [2])


def test_a_transaction_that_failed_before_is_not_said_to_be_committed(engine: Engine) -> None:
    """Whoever swallows an error of the database inside a transaction learns of it at the end."""
    with pytest.raises(DBAPIError) as told, engine.begin() as conn:  # noqa: PT012 - raised at its end
        effect(conn, 1)
        with pytest.raises(IntegrityError):
            effect(conn, 1)
        carry(conn, ("a", ""))

    assert isinstance(told.value.orig, psycopg.errors.InFailedSqlTransaction)
    assert found(engine) == ([], [])


def test_the_server_may_forget_prepared_statements(engine: Engine) -> None:
    """psycopg has it forget them all after some rollbacks, and after a change of a table."""
    with engine.connect() as conn:
        for number in range(12):  # psycopg prepares what it has executed five times
            effect(conn, number)
            carry(conn, (f"{number:02}", ""))
            conn.commit()
            if number % 3 == 0:
                conn.execute(text("SELECT 1"))
                conn.rollback()
        conn.execute(text("ALTER TABLE carried ADD COLUMN more text"))
        carry(conn, ("13", ""))
        conn.commit()

    assert len(found(engine)[0]) == 13


def test_megabytes_of_rows_come_through(engine: Engine) -> None:
    """More than the buffers of the kernel hold: both sides talk at the same time."""
    with engine.begin() as conn:
        effect(conn, 1)
        carry(conn, *((f"{number:05}", "x" * 60_000) for number in range(300)))
        carry(conn, *((f"s{number:05}", "") for number in range(20_000)))

    assert [len(ids) for ids in found(engine)] == [20_300, 1]


@pytest.mark.parametrize(
    "options",
    [
        {"isolation_level": "AUTOCOMMIT"},
        {"isolation_level": "REPEATABLE READ"},
        {"postgresql_readonly": True},
        {"postgresql_deferrable": True},
    ],
)
def test_no_transaction_of_a_kind_of_its_own_begins_with_a_row(
    engine: Engine, options: dict[str, Any]
) -> None:
    """In autocommit nobody commits; a read-only transaction must refuse the row, as PostgreSQL does."""
    with engine.connect().execution_options(**options) as conn:
        own: Any = conn.connection.driver_connection
        assert not own.carry(INSERT, [("a", "")])
        conn.execute(text("SELECT 1"))
        conn.commit()

    assert found(engine) == ([], [])


@pytest.mark.parametrize(
    "options",
    [
        {"isolation_level": "AUTOCOMMIT"},
        {"isolation_level": "REPEATABLE READ", "postgresql_readonly": True, "postgresql_deferrable": True},
    ],
)
def test_a_connection_carries_again_once_it_is_back_in_the_pool(
    engine: Engine, options: dict[str, Any]
) -> None:
    """SQLAlchemy leaves `READ COMMITTED` and `read write` said on it: look-ups and bundles come first anywhere."""
    with engine.connect() as conn:
        before = conn.connection.driver_connection
        conn.execution_options(**options).execute(text("SELECT 1"))
    with engine.begin() as conn:
        own = carry(conn, ("a", ""))

    assert own is before
    assert found(engine) == (["a"], [])


@pytest.mark.parametrize(
    ("options", "kept"),
    [({"isolation_level": "SERIALIZABLE"}, ["a"]), ({"postgresql_readonly": True}, [])],
)
def test_rows_belong_to_the_transaction_that_has_begun(
    engine: Engine, options: dict[str, Any], kept: list[str]
) -> None:
    """Whatever its kind is: a read-only one refuses them with its commit."""
    with engine.connect().execution_options(**options) as conn:
        conn.execute(text("SELECT 1"))
        carry(conn, ("a", ""))
        if kept:
            conn.commit()
        else:
            with pytest.raises(DBAPIError) as told:
                conn.commit()
            assert isinstance(told.value.orig, psycopg.errors.ReadOnlySqlTransaction)

    assert found(engine)[0] == kept


def test_an_entry_in_a_savepoint_ends_with_it(engine: Engine) -> None:
    """The driver sees no savepoint: there the row is written at once."""
    with engine.begin() as conn:
        audit_pending.create(conn)
        with conn.begin_nested() as savepoint:
            stage(conn, _entry())
            inside = conn.scalar(select(func.count()).select_from(audit_pending))
            savepoint.rollback()
    with engine.connect() as conn:
        after = conn.scalar(select(func.count()).select_from(audit_pending))

    assert (inside, after) == (1, 0)


def test_text_is_utf_8_whatever_the_database_keeps(postgresql_server: postgresql.PostgreSQL) -> None:
    """The server recodes what it can, and refuses what it cannot; it never keeps other characters."""
    url = postgresql_server.url()
    admin = open_engine(url)
    with admin.connect().execution_options(isolation_level="AUTOCOMMIT") as conn:
        conn.execute(
            text("CREATE DATABASE latin ENCODING 'LATIN1' LC_COLLATE 'C' LC_CTYPE 'C' TEMPLATE template0")
        )
    latin = open_engine(make_url(url).set(database="latin").render_as_string(hide_password=False))
    try:
        with latin.begin() as conn:
            conn.execute(text("CREATE TABLE carried (id text PRIMARY KEY, body text)"))
            carry(conn, ("a", "ä"))
        with pytest.raises(DBAPIError), latin.begin() as conn:
            carry(conn, ("b", "€"))
        with latin.connect() as conn:
            rows = conn.execute(text("SELECT id, body FROM carried")).all()
    finally:
        latin.dispose()
        with admin.connect().execution_options(isolation_level="AUTOCOMMIT") as conn:
            conn.execute(text("DROP DATABASE latin"))
        admin.dispose()

    assert [tuple(row) for row in rows] == [("a", "ä")]


@pytest.mark.parametrize(
    ("state", "is_meant"),
    [
        ("40001", is_conflict),
        ("40P01", is_conflict),
        ("25006", is_outage),
        ("55P03", is_over_limit),
        ("57014", is_over_limit),
        ("ZX123", lambda error: not is_outage(error)),  # a trigger's own: no database is away
    ],
)
def test_a_refusals_state_is_told_and_not_its_text(
    engine: Engine, state: str, is_meant: Callable[[DBAPIError], bool]
) -> None:
    """Who asks what went wrong gets the answer that a statement of its own would have given; no value is repeated."""
    with engine.begin() as conn:
        conn.execute(
            text(
                "CREATE FUNCTION no() RETURNS trigger LANGUAGE plpgsql AS "
                f"$$ BEGIN RAISE EXCEPTION 'a secret' USING ERRCODE = '{state}'; END $$"
            )
        )
        conn.execute(text("CREATE TRIGGER no BEFORE INSERT ON carried FOR EACH ROW EXECUTE FUNCTION no()"))
    with pytest.raises(DBAPIError) as told, engine.begin() as conn:  # noqa: PT012 - raised at its end
        effect(conn, 1)
        carry(conn, ("a", ""))

    assert getattr(told.value.orig, "sqlstate", None) == state
    assert is_meant(told.value)
    assert "a secret" not in str(told.value)
    assert found(engine) == ([], [])


def test_a_full_disk_is_told_and_nothing_is_lost() -> None:
    """The server cannot write the row: neither is the effect there, and with room again the same goes well."""
    with postgresql.running() as server, small_disk(server.directory / "disk", 16 << 20) as disk:
        place = disk.directory / "rows"
        place.mkdir()
        shutil.chown(place, server.directory.owner())
        engine = open_engine(server.url())
        with engine.connect().execution_options(isolation_level="AUTOCOMMIT") as conn:
            conn.execute(text(f"CREATE TABLESPACE small LOCATION '{place}'"))
        with engine.begin() as conn:
            conn.execute(text("CREATE TABLE carried (id text PRIMARY KEY, body text) TABLESPACE small"))
            conn.execute(text("ALTER TABLE carried ALTER body SET STORAGE EXTERNAL"))
            conn.execute(text("CREATE TABLE effects (id integer PRIMARY KEY)"))
        disk.fill()
        with pytest.raises(DBAPIError) as told, engine.begin() as conn:  # noqa: PT012 - raised at its end
            effect(conn, 1)
            carry(conn, ("a", "x" * 1_000_000))
        refused = found(engine)
        disk.make_room()
        with engine.begin() as conn:
            effect(conn, 1)
            carry(conn, ("a", "x" * 1_000_000))
        kept = found(engine)
        engine.dispose()
        server.stop(crash=True)  # the disk goes first

    assert lacks_room(told.value)
    assert (refused, kept) == (([], []), (["a"], [1]))


def test_a_commit_that_could_not_be_sent_leaves_no_effect_to_the_next(
    engine: Engine, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whatever is amiss before the first byte: the transaction is over, and its effect undone."""

    def fail(*_: object) -> None:
        raise MemoryError

    with engine.connect() as conn:
        effect(conn, 1)
        carry(conn, ("a", ""))
        with monkeypatch.context() as broken:
            broken.setattr(CarryingConnection, "_commit_with", fail)
            with pytest.raises(MemoryError):
                conn.commit()
    with engine.begin() as conn:
        effect(conn, 2)

    assert found(engine) == ([], [2])


def test_a_zero_byte_is_refused_and_not_read_as_an_end(engine: Engine) -> None:
    """libpq would write `a`."""
    with pytest.raises(psycopg.DataError), engine.begin() as conn:
        carry(conn, ("a\0b", ""))

    assert found(engine) == ([], [])


def test_a_server_that_cut_the_connection_has_committed_nothing(engine: Engine) -> None:
    """The error is an outage, and the next transaction has another connection."""
    with pytest.raises(OperationalError), engine.begin() as conn:  # noqa: PT012 - raised at its end
        effect(conn, 1)
        pid = conn.scalar(text("SELECT pg_backend_pid()"))
        carry(conn, ("a", ""))
        with engine.connect() as other:
            other.execute(text("SELECT pg_terminate_backend(:pid, 5000)"), {"pid": pid})

    assert found(engine) == ([], [])


def test_a_silent_server_is_given_up_at_the_commit_too(monkeypatch: pytest.MonkeyPatch) -> None:
    """Decision 0071: a frozen server takes no new connection either."""
    monkeypatch.setattr(silence, "LOOK_AFTER_S", 0.2)
    with postgresql.running() as server:
        engine = open_engine(server.url())
        with engine.begin() as conn:
            conn.execute(text("CREATE TABLE carried (id text PRIMARY KEY, body text)"))
        began_s = time.monotonic()
        try:
            with pytest.raises(OperationalError) as told, engine.begin() as conn:  # noqa: PT012 - at its end
                carry(conn, ("a", ""))
                server.freeze()
        finally:
            server.thaw()
        waited_s = time.monotonic() - began_s
        engine.dispose()
        server.stop(crash=True)  # else it waits for the look's socket, which psycopg leaves to the collector

    assert isinstance(told.value.orig, silence.ServerSilent)
    assert waited_s < 15


class _Interrupted(BaseException):
    """What a signal's handler raises, such as that of a server that ends its worker."""


def test_a_commit_that_a_signal_interrupts_leaves_no_answer_to_another_question(engine: Engine) -> None:
    """The connection is closed: who comes next gets another one, and the answers to its own questions."""

    def interrupt(_number: int, _frame: object) -> None:
        raise _Interrupted

    def signal_the_waiting() -> None:
        waiting = text("SELECT count(*) FROM pg_locks WHERE NOT granted")
        deadline = time.monotonic() + 30
        with engine.connect() as looking:
            while not looking.scalar(waiting) and time.monotonic() < deadline:
                time.sleep(0.02)
        signal.pthread_kill(main, signal.SIGALRM)

    main, signalling = threading.get_ident(), threading.Thread(target=signal_the_waiting)
    before = signal.signal(signal.SIGALRM, interrupt)
    signalling.start()
    try:
        with engine.connect() as other, other.begin():
            other.execute(text("INSERT INTO carried VALUES ('a', '')"))  # whoever inserts it, too, waits
            with pytest.raises(_Interrupted), engine.begin() as conn:  # noqa: PT012 - raised at its end
                effect(conn, 1)
                own = carry(conn, ("a", ""))
    finally:
        signalling.join()
        signal.signal(signal.SIGALRM, before)

    assert own.closed
    deadline = time.monotonic() + 30
    while found(engine) != (["a"], []) and time.monotonic() < deadline:
        time.sleep(0.05)
    assert found(engine) == (["a"], [])


def test_a_conflict_over_rows_is_tried_again(engine: Engine) -> None:
    """Two that wait for each other in their commits: PostgreSQL gives one up, which does its work once more."""
    meet = threading.Barrier(2)
    tries: list[str] = []

    def work(mine: str, others: str) -> None:
        def write(conn: Connection) -> None:
            conn.execute(text("INSERT INTO carried VALUES (:id, '') ON CONFLICT DO NOTHING"), {"id": mine})
            if not tries.count(mine):
                tries.append(mine)
                meet.wait(20)
                carry(conn, (others, ""))  # waits for the other's, which waits for ours
            else:
                tries.append(mine)

        try:
            writing(engine, write)
        except IntegrityError:  # the other one was faster
            tries.append("refused")

    threads = [threading.Thread(target=work, args=pair) for pair in (("a", "b"), ("b", "a"))]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)

    assert not any(thread.is_alive() for thread in threads)
    assert found(engine)[0] == ["a", "b"]
    assert sorted(tries) in (["a", "a", "b"], ["a", "b", "b"])


def test_carried_rows_ring_the_bell(engine: Engine, postgresql_url: str) -> None:
    """The sequencer is woken by entries, though no statement of theirs is seen before the commit."""
    with engine.begin() as conn:
        audit_pending.create(conn)
    listening = open_engine(postgresql_url)
    bell = open_bell(listening)
    ring_after_commits(engine, bell, {audit_pending: Channel.PENDING})
    assert bell.wait(Channel.PENDING, 30)  # a listener that has just connected rings for everything

    with engine.connect() as conn:
        stage(conn, _entry())
        conn.rollback()
        rolled_back = bell.wait(Channel.PENDING, 0.2)
        stage(conn, _entry())
        conn.commit()
    committed = bell.wait(Channel.PENDING, 5)
    bell.close()
    listening.dispose()

    assert (rolled_back, committed) == (False, True)


class _NoSealer:
    def seal(self, *_: Any) -> Sealed:
        return Sealed("", "0" * 64)

    def open(self, *_: Any) -> Any:
        raise NotImplementedError


def _entry() -> Draft:
    return draft(
        EventType.SERVER_STARTED,
        sealer=_NoSealer(),
        now=utc_now(),
        actor=Personal("system", "web"),
        action="started",
        details={"mode": "test", "version": "0"},
    )
