"""PostgreSQL as the main database: every wait has an end, and what the server gave up is done again."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx
import psycopg
import pytest
from living.driver import await_that, tensors
from living.home import home_in
from living.threads import LocalGateway, local_gateway_in
from services import postgresql
from sqlalchemy import Connection, Engine, text
from sqlalchemy.exc import DBAPIError, OperationalError
from sqlalchemy.exc import TimeoutError as PoolExhausted

from audit.writing import ATTEMPTS, writing
from gateway.storage import database, silence
from gateway.storage.database import is_outage, open_engine

ANSWERS_WITHIN_S = 15.0


@pytest.fixture
def server() -> Iterator[postgresql.PostgreSQL]:
    """A PostgreSQL of this test's own, which it may stop."""
    with postgresql.running() as running:
        yield running


@contextmanager
def engine_on(url: str, **limits: Any) -> Iterator[Engine]:
    """An engine as the gateway opens it."""
    engine = open_engine(url, **limits)
    yield engine
    engine.dispose()


@contextmanager
def gateway_on(server: postgresql.PostgreSQL, directory: Path) -> Iterator[LocalGateway]:
    """A whole gateway in threads with its database there."""
    with home_in(directory, server) as home, local_gateway_in(home) as gateway:
        yield gateway


def timed(ask: httpx.Client, path: str, headers: dict[str, str]) -> tuple[httpx.Response, float]:
    """An answer, and how long it took."""
    began = time.monotonic()
    return ask.get(path, headers=headers), time.monotonic() - began


@pytest.mark.parametrize(
    ("setting", "value"),
    [
        ("statement_timeout", "7s"),
        ("lock_timeout", "10s"),
        ("idle_in_transaction_session_timeout", "30s"),
        ("tcp_user_timeout", "15000"),
        ("tcp_keepalives_idle", "15"),
        ("timezone", "UTC"),
        ("application_name", "fl-gateway web"),
    ],
)
def test_a_session_has_its_limits(postgresql_url: str, setting: str, value: str) -> None:
    """The server itself ends what takes too long, and frees the locks of a peer that is gone."""
    with engine_on(postgresql_url, part="web", statement_timeout_s=7) as engine, engine.connect() as conn:
        assert conn.scalar(text(f"SHOW {setting}")) == value


def test_options_in_the_url_are_kept(postgresql_url: str) -> None:
    """An operator's own session settings, such as a search path, stand beside ours."""
    url = f"{postgresql_url}?options=-csearch_path%3Dfederation"
    with engine_on(url) as engine, engine.connect() as conn:
        told = [conn.scalar(text(f"SHOW {name}")) for name in ("search_path", "lock_timeout")]

    assert told == ["federation", "10s"]


def test_a_connection_in_use_is_not_pinged_and_one_that_was_cut_is_noticed(postgresql_url: str) -> None:
    """Nobody sees an error though the server hung up between two questions, and no question is asked twice."""
    pings: list[object] = []
    with engine_on(postgresql_url) as engine:
        ping = engine.dialect.do_ping
        engine.dialect.do_ping = lambda told: (pings.append(told), ping(told))[1]  # type: ignore[method-assign]

        def number() -> int:
            with engine.connect() as conn:
                return int(conn.execute(text("SELECT pg_backend_pid()")).scalar_one())

        first, again = number(), number()
        used = pings[-1]
        assert first == again
        assert used.is_fresh()  # type: ignore[attr-defined]
        with engine_on(postgresql_url) as other, other.connect() as conn:
            conn.execute(text("SELECT pg_terminate_backend(:pid, 5000)"), {"pid": first})

        assert not used.is_fresh()  # type: ignore[attr-defined]
        assert number() != first


def test_a_statement_that_takes_too_long_is_ended(postgresql_url: str) -> None:
    """FLG_STATEMENT_TIMEOUT_S; the caller hears of an outage, not of a fault in the program."""
    with engine_on(postgresql_url, statement_timeout_s=2) as engine, engine.connect() as conn:
        with pytest.raises(OperationalError) as told:
            conn.execute(text("SELECT pg_sleep(20)"))

        assert isinstance(told.value.orig, psycopg.errors.QueryCanceled)  # the server's word
        assert is_outage(told.value)


def test_a_wait_for_a_lock_ends(postgresql_url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Who holds a row for ever keeps nobody else for ever."""
    monkeypatch.setattr(database, "BUSY_TIMEOUT_MS", 200)
    with engine_on(postgresql_url) as engine, engine.connect() as holder:
        holder.execute(text("CREATE TABLE held AS SELECT 1 AS id"))
        holder.commit()
        holder.execute(text("SELECT * FROM held FOR UPDATE"))
        with engine.connect() as waiter, pytest.raises(OperationalError) as told:
            waiter.execute(text("SELECT * FROM held FOR UPDATE"))

    assert isinstance(told.value.orig, psycopg.errors.LockNotAvailable)
    assert is_outage(told.value)


def test_the_locks_of_a_process_that_is_halted_in_a_transaction_are_freed(
    postgresql_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A web process under SIGSTOP that holds a round's row does not keep the round for as long as it is halted."""
    monkeypatch.setattr(database, "_IDLE_TRANSACTION_S", 1)
    with engine_on(postgresql_url) as engine, engine.connect() as halted:
        halted.execute(text("CREATE TABLE held AS SELECT 1 AS id"))
        halted.commit()
        halted.execute(text("SELECT * FROM held FOR UPDATE"))

        with engine.connect() as waiter:
            waited = waiter.execute(text("SELECT * FROM held FOR UPDATE")).all()
        with pytest.raises(DBAPIError) as told:
            halted.execute(text("SELECT 1"))

    assert waited == [(1,)]
    assert is_outage(told.value)


def test_an_exhausted_pool_is_a_busy_gateway(
    postgresql_server: postgresql.PostgreSQL, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """503 INSUFFICIENT_RESOURCES with Retry-After, never 500; and a statement of health that says so."""
    settings = {"database_pool": "1"}
    with (
        home_in(tmp_path, postgresql_server, **settings) as home,
        local_gateway_in(home, "worker") as gateway,
    ):
        operator = gateway.as_role("operator")
        engine = gateway.web_services().engine
        assert engine.pool.timeout() == database.POOL_TIMEOUT_S  # type: ignore[attr-defined]
        with engine.connect(), engine.connect(), monkeypatch.context() as exhausted:
            exhausted.setattr(engine.pool, "_timeout", 0.2)  # who can be served may wait for a busy machine
            with pytest.raises(PoolExhausted):
                engine.connect()
            refused = gateway.http.get("/api/v1/rounds", headers=operator)
        again = gateway.http.get("/api/v1/rounds", headers=operator)

    assert (refused.status_code, refused.json()["code"]) == (503, "INSUFFICIENT_RESOURCES")
    assert refused.headers["Retry-After"]
    assert again.status_code == 200


def test_a_halted_server_is_told_within_seconds_and_works_again_when_it_goes_on(
    server: postgresql.PostgreSQL, tmp_path: Path
) -> None:
    """SIGSTOP of every PostgreSQL process: its kernel acknowledges all, so that no TCP limit helps. No thread hangs."""
    with gateway_on(server, tmp_path) as gateway:
        gateway.add_model()
        person, operator = gateway.register(), gateway.as_role("operator")
        number = gateway.open_round({"mechanism": "none"}, planned_clients=1, min_clients=1)
        server.freeze()
        with ThreadPoolExecutor(4) as pool:
            asked = [pool.submit(timed, gateway.http, "/api/v1/rounds", operator) for _ in range(4)]
            told = [one.result() for one in asked]
        began = time.monotonic()
        update = gateway.send(person, number, tensors(1))
        took_s = time.monotonic() - began
        server.thaw()
        await_that("an answer", lambda: gateway.http.get("/health").status_code == 200)
        gateway.submit(person, number)
        ended = gateway.await_end(number)

        assert [answer.status_code for answer, _ in told] == [503] * 4
        assert all(answer.headers["Retry-After"] for answer, _ in told)
        assert max(took for _, took in told) < ANSWERS_WITHIN_S
        assert update.status_code == 503
        assert took_s < ANSWERS_WITHIN_S
        assert ended["status"] == "completed"
        verdict = gateway.home.verify_log()
        assert verdict.ok, verdict.text()


def test_a_slow_statement_is_no_silence(postgresql_url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """A server that takes connections is at work: a long report is not given up."""
    monkeypatch.setattr(silence, "LOOK_AFTER_S", 0.2)
    with engine_on(postgresql_url) as engine, engine.connect() as conn:
        assert conn.scalar(text("SELECT 1 FROM pg_sleep(1.2)")) == 1


def test_an_answer_that_never_comes_is_given_up_though_the_server_takes_connections(
    postgresql_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One backend alone is halted, or one connection cut: the wait ends soon after the server should have ended it."""
    monkeypatch.setattr(silence, "LOOK_AFTER_S", 0.2)
    monkeypatch.setattr(silence, "_GRACE_S", 0.5)
    with engine_on(postgresql_url, statement_timeout_s=0.5) as engine, engine.connect() as conn:
        conn.execute(text("SET statement_timeout = 0"))
        with pytest.raises(OperationalError) as told:
            conn.execute(text("SELECT pg_sleep(30)"))

        assert isinstance(told.value.orig, silence.ServerSilent)
        assert conn.invalidated


def two_rows(engine: Engine) -> None:
    """A table with two rows to be locked in either order."""
    with engine.begin() as conn:
        conn.execute(text("CREATE TABLE pair AS SELECT id, 0 AS changes FROM generate_series(1, 2) AS id"))


def test_two_transactions_that_wait_for_each_other_both_come_through(postgresql_url: str) -> None:
    """A real deadlock: PostgreSQL ends one of them, and its work is done again."""
    with engine_on(postgresql_url) as engine:
        two_rows(engine)
        meeting, attempts = threading.Barrier(2), []

        def change(first: int, second: int) -> None:
            def work(conn: Connection) -> None:
                attempts.append(first)
                conn.execute(text("UPDATE pair SET changes = changes + 1 WHERE id = :id"), {"id": first})
                if len(attempts) <= 2:
                    meeting.wait(10)  # both have their first row, so that they must meet
                conn.execute(text("UPDATE pair SET changes = changes + 1 WHERE id = :id"), {"id": second})

            writing(engine, work)

        threads = [threading.Thread(target=change, args=order) for order in ((1, 2), (2, 1))]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        with engine.connect() as conn:
            changes = conn.scalars(text("SELECT changes FROM pair")).all()

    assert len(attempts) == 3
    assert changes == [2, 2]


@pytest.mark.parametrize("state", ["40001", "40P01"])
def test_a_conflict_that_goes_on_is_told_in_the_end(postgresql_url: str, state: str) -> None:
    """Five times again, each after a longer pause; then the caller hears of it."""
    attempts: list[int] = []
    pauses: list[float] = []

    def work(conn: Connection) -> None:
        attempts.append(1)
        conn.execute(text(f"DO $$ BEGIN RAISE EXCEPTION USING ERRCODE = '{state}'; END $$"))

    with engine_on(postgresql_url) as engine, pytest.raises(OperationalError):
        writing(engine, work, jitter=lambda: 1.0, pause=pauses.append)

    assert len(attempts) == ATTEMPTS
    assert pauses == sorted(pauses)
    assert len(set(pauses)) == ATTEMPTS - 1


def test_another_error_is_not_tried_again(postgresql_url: str) -> None:
    """What is wrong stays wrong: a broken constraint is told at once."""
    attempts: list[int] = []

    def work(conn: Connection) -> None:
        attempts.append(1)
        conn.execute(text("SELECT 1/0"))

    with engine_on(postgresql_url) as engine, pytest.raises(DBAPIError) as told:
        writing(engine, work)

    assert attempts == [1]
    assert not is_outage(told.value)


def test_a_restart_under_traffic_is_told_and_nothing_acknowledged_is_lost(
    server: postgresql.PostgreSQL, tmp_path: Path
) -> None:
    """Promise 3: while PostgreSQL crashes and comes back, an update gets 202 or 503 with Retry-After; all 202 count."""
    with gateway_on(server, tmp_path) as gateway:
        gateway.add_model()
        people = [gateway.register() for _ in range(6)]
        number = gateway.open_round({"mechanism": "none"}, planned_clients=6, min_clients=6)
        refusals: list[httpx.Response] = []

        def send(position: int) -> None:
            deadline = time.monotonic() + 60
            headers = {"Idempotency_Key": f"update-{position}"}
            while time.monotonic() < deadline:
                answer = gateway.send(people[position], number, tensors(position), **headers)
                if answer.status_code == 202:
                    return
                refusals.append(answer)
                time.sleep(0.1)

        with ThreadPoolExecutor(6) as pool:
            server.stop(crash=True)
            sent = [pool.submit(send, position) for position in range(6)]
            await_that("a refusal", lambda: refusals)
            server.start()
            for one in sent:
                one.result()
        ended = gateway.await_end(number)

        assert {answer.status_code for answer in refusals} == {503}
        assert all(answer.headers["Retry-After"] for answer in refusals)
        assert (ended["status"], ended["num_updates"]) == ("completed", 6)
        assert gateway.home.verify_log().ok


def test_a_statement_that_a_standby_refuses_is_an_outage(postgresql_url: str) -> None:
    """After a failover some connections still lead to the old server, which only reads: come again later."""
    with engine_on(postgresql_url) as engine, engine.connect() as conn:
        conn.execute(text("SET TRANSACTION READ ONLY"))
        with pytest.raises(DBAPIError) as told:
            conn.execute(text("CREATE TABLE nothing (id int)"))

    assert isinstance(told.value.orig, psycopg.errors.ReadOnlySqlTransaction)
    assert is_outage(told.value)


CONFLICT_ONCE = """
CREATE SEQUENCE conflicts;
CREATE FUNCTION conflict_once() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    IF nextval('conflicts') = 1 THEN  -- a sequence remembers what a rollback forgets
        RAISE EXCEPTION USING ERRCODE = '40P01', MESSAGE = 'deadlock detected';
    END IF;
    RETURN NEW;
END $$;
CREATE TRIGGER conflict_once BEFORE {moment} FOR EACH ROW EXECUTE FUNCTION conflict_once()
"""


@pytest.mark.parametrize(
    "moment",
    [
        "INSERT ON rounds",
        "INSERT ON client_updates",
        "INSERT ON model_versions",
        "UPDATE ON privacy_ledger",
        "UPDATE ON subjects",
    ],
)
def test_what_takes_several_locks_is_done_again_after_a_conflict(
    postgresql_server: postgresql.PostgreSQL, tmp_path: Path, moment: str
) -> None:
    """Opening a round, an update, a release, an erasure: the caller sees nothing of a deadlock, and all count once."""
    with home_in(tmp_path, postgresql_server) as home, local_gateway_in(home) as gateway:
        gateway.add_model(budget={"epsilon": 8.0, "delta": 1e-5})
        people = [gateway.register() for _ in range(2)]
        with gateway.web_services().engine.begin() as conn:
            conn.execute(text(CONFLICT_ONCE.format(moment=moment)))
        ended = gateway.run_round(people)
        erased = gateway.erase(people[0])
        with gateway.web_services().engine.connect() as conn:
            conflicts = conn.scalar(text("SELECT last_value FROM conflicts"))
        verdict = gateway.home.verify_log()

    assert conflicts >= 2
    assert (ended["status"], ended["num_updates"]) == ("completed", 2)
    assert erased["status"] == "completed"
    assert verdict.ok
