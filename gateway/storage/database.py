"""One way to open a database: SQLite (WAL, full sync, one writer at a time) or PostgreSQL (psycopg 3).

On PostgreSQL everything has an end: a statement, a wait for a lock, an idle transaction, a connection to a peer that
is gone, and the wait for a place in the pool. A process that is halted or cut off keeps nobody else waiting for long.
"""

from __future__ import annotations

import sqlite3
import time
from typing import TYPE_CHECKING, Any

from sqlalchemy import Connection, Engine, create_engine, event, make_url
from sqlalchemy.exc import DBAPIError, OperationalError, SQLAlchemyError
from sqlalchemy.exc import TimeoutError as PoolExhausted

from audit.reading import ALONE

if TYPE_CHECKING:
    import psycopg

BUSY_TIMEOUT_MS = 10_000
_LOOK_MS = 8
POOL_TIMEOUT_S = 5.0
WAL_PAGES = 4000  # 16 MB: a batch of a long log changes a thousand pages, many of them again in the next one
CACHE_KIB = 2000  # SQLite's own
_POOL_RECYCLE_S = 1800
_IDLE_TRANSACTION_S = 30
_READING = "flg_reading"
_PEER_GONE = {
    "keepalives_idle": 15,
    "keepalives_interval": 5,
    "keepalives_count": 3,
    "tcp_user_timeout": 15_000,
}
_STATE_DISK_FULL = "53100"
_STATES_OF_A_LIMIT = frozenset({"55P03", "57014"})  # the wait for a lock, and the statement, took too long
_STATES_OF_AN_OUTAGE = frozenset({"25006", "25P03"})  # a standby took over; our transaction was ended


def open_engine(
    url: str,
    *,
    secure_delete: bool = False,
    part: str = "",
    pool_size: int = 10,
    statement_timeout_s: float = 60.0,
    wal_pages: int = WAL_PAGES,
    cache_kib: int = CACHE_KIB,
) -> Engine:
    """An engine whose `begin()` is a writing transaction; nothing is connected yet.

    On SQLite a writing transaction is BEGIN IMMEDIATE (RULES 3): it waits up to ten seconds for the one
    writer's place, and never fails half-way for want of it.

    Args:
        url: an SQLAlchemy URL, `sqlite:///…` or `postgresql+psycopg://…`.
        secure_delete: overwrite deleted content with zeros (what was erased leaves the file, too; SQLite only).
        part: who connects, for PostgreSQL's list of sessions.
        pool_size: connections that are kept to PostgreSQL; as many again are opened under load.
        statement_timeout_s: PostgreSQL ends a statement after this time; 0: never.
        wal_pages: of so many pages SQLite's write-ahead log begins anew, if no reader keeps it from that.
        cache_kib: what a connection to SQLite keeps of pages that it has read.
    """
    if make_url(url).get_backend_name() == "sqlite":
        return _open_sqlite(url, secure_delete=secure_delete, wal_pages=wal_pages, cache_kib=cache_kib)
    return _open_postgresql(url, part, pool_size, statement_timeout_s)


def _open_postgresql(url: str, part: str, pool_size: int, statement_timeout_s: float) -> Engine:
    # An embedded gateway need not load psycopg.
    from gateway.storage.silence import CONNECT_S
    from gateway.storage.with_commit import CarryingConnection

    engine = create_engine(
        url,
        hide_parameters=True,  # an error's text carries no value of anybody's (RULES 30)
        pool_pre_ping=True,
        pool_size=pool_size,
        max_overflow=pool_size,
        pool_timeout=POOL_TIMEOUT_S,
        pool_recycle=_POOL_RECYCLE_S,
        connect_args={
            **_PEER_GONE,
            "connect_timeout": CONNECT_S,
            "client_encoding": "utf8",  # whatever the database's own is: the server recodes, or refuses
            "application_name": f"fl-gateway {part}".strip(),
            "options": f"{make_url(url).query.get('options', '')} {_server_limits(statement_timeout_s)}",
        },
    )

    @event.listens_for(engine, "do_connect")
    def _connect(_dialect: object, _record: object, _args: object, parameters: dict[str, Any]) -> object:
        return CarryingConnection.watchful(parameters, statement_timeout_s)

    _ask_only_the_quiet(engine)
    return engine


def _ask_only_the_quiet(engine: Engine) -> None:
    """Spare a connection the ping where the server has just been heard: a ping costs as much as most questions."""
    ping = engine.dialect.do_ping

    def do_ping(dbapi_connection: Any) -> bool:
        return dbapi_connection.is_fresh() or ping(dbapi_connection)

    engine.dialect.do_ping = do_ping  # type: ignore[method-assign]


def _server_limits(statement_timeout_s: float) -> str:
    """Settings of the session: the server frees the locks of a peer that is halted in a transaction or gone."""
    limits = {
        "timezone": "UTC",
        "statement_timeout": round(statement_timeout_s * 1000),
        "lock_timeout": BUSY_TIMEOUT_MS,
        "idle_in_transaction_session_timeout": _IDLE_TRANSACTION_S * 1000,
        "tcp_keepalives_idle": _PEER_GONE["keepalives_idle"],
        "tcp_keepalives_interval": _PEER_GONE["keepalives_interval"],
        "tcp_keepalives_count": _PEER_GONE["keepalives_count"],
        "tcp_user_timeout": _PEER_GONE["tcp_user_timeout"],
    }
    return " ".join(f"-c {name}={value}" for name, value in limits.items())


def _open_sqlite(url: str, *, secure_delete: bool, wal_pages: int, cache_kib: int) -> Engine:
    engine = create_engine(
        url,
        hide_parameters=True,
        pool_size=20,  # more than a web process has threads
        max_overflow=20,
        connect_args={"timeout": BUSY_TIMEOUT_MS / 1000},
    )

    @event.listens_for(engine, "connect")
    def _prepare(dbapi_connection: Any, _record: object) -> None:
        dbapi_connection.isolation_level = None  # we say BEGIN ourselves
        for pragma in (
            f"busy_timeout={BUSY_TIMEOUT_MS}",
            "journal_mode=WAL",
            f"wal_autocheckpoint={wal_pages}",
            f"cache_size=-{cache_kib}",
            "synchronous=FULL",
            "foreign_keys=ON",
            f"secure_delete={'ON' if secure_delete else 'OFF'}",
        ):
            dbapi_connection.execute(f"PRAGMA {pragma}")

    @event.listens_for(engine, "begin")
    def _begin(conn: Connection) -> None:
        reading = conn.get_execution_options().get(_READING, False)
        if reading == ALONE:
            return
        if reading:
            conn.exec_driver_sql("BEGIN")
        else:
            _take_the_writers_place(conn)

    return engine


def _take_the_writers_place(conn: Connection) -> None:
    """BEGIN IMMEDIATE, asked for again after 8 ms at most: SQLite itself looks less and less often, and comes too late.

    It would sleep for a tenth of a second while others begin and end.
    """
    own = conn.connection.driver_connection
    assert isinstance(own, sqlite3.Connection)  # noqa: S101 - narrows the type
    until_s = time.monotonic() + BUSY_TIMEOUT_MS / 1000
    own.execute(f"PRAGMA busy_timeout={_LOOK_MS}")
    try:
        while time.monotonic() < until_s:
            try:
                own.execute("BEGIN IMMEDIATE")
            except sqlite3.Error as error:
                if getattr(error, "sqlite_errorcode", 0) & 0xFF != sqlite3.SQLITE_BUSY:
                    break
            else:
                return
        conn.exec_driver_sql("BEGIN IMMEDIATE")  # whose error is SQLAlchemy's
    finally:
        own.execute(f"PRAGMA busy_timeout={BUSY_TIMEOUT_MS}")


def own_session(engine: Engine) -> psycopg.Connection[Any]:
    """A connection to PostgreSQL beside the pool, each statement its own transaction; the caller closes it."""
    import psycopg

    pooled = engine.raw_connection()
    connection = pooled.driver_connection
    assert isinstance(connection, psycopg.Connection)  # noqa: S101 - narrows the type
    pooled.detach()
    connection.autocommit = True
    return connection


def kind_of(error: SQLAlchemyError) -> str:
    """The error's name for a log; its text may carry a value (RULES 30)."""
    return type(getattr(error, "orig", None) or error).__name__


def is_outage(error: SQLAlchemyError) -> bool:
    """Whether the database is away, or too busy: the same may go well a little later."""
    if isinstance(error, PoolExhausted | OperationalError):
        return True
    return isinstance(error, DBAPIError) and getattr(error.orig, "sqlstate", "") in _STATES_OF_AN_OUTAGE


def is_over_limit(error: BaseException) -> bool:
    """Whether one statement waited or ran too long, while the database is there."""
    return isinstance(error, DBAPIError) and getattr(error.orig, "sqlstate", "") in _STATES_OF_A_LIMIT


def lacks_room(error: BaseException) -> bool:
    """Whether the database's disk is full; then the transaction has certainly not committed."""
    if not isinstance(error, DBAPIError):
        return False
    return (
        getattr(error.orig, "sqlite_errorcode", None) == sqlite3.SQLITE_FULL
        or getattr(error.orig, "sqlstate", None) == _STATE_DISK_FULL
    )
