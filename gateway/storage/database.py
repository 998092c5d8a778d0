"""One way to open a database: SQLite (WAL, full sync, one writer at a time) or PostgreSQL (psycopg 3)."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from sqlalchemy import Connection, Engine, create_engine, event, make_url

BUSY_TIMEOUT_MS = 10_000
_READING = "flg_reading"


def open_engine(url: str, *, secure_delete: bool = False) -> Engine:
    """An engine whose `begin()` is a writing transaction; nothing is connected yet.

    On SQLite a writing transaction is BEGIN IMMEDIATE (RULES 3): it waits up to ten seconds for the one
    writer's place, and never fails half-way for want of it.

    Args:
        url: an SQLAlchemy URL, `sqlite:///…` or `postgresql+psycopg://…`.
        secure_delete: overwrite deleted content with zeros (the key store's promise; SQLite only).
    """
    if make_url(url).get_backend_name() == "sqlite":
        return _open_sqlite(url, secure_delete=secure_delete)
    return create_engine(
        url,
        hide_parameters=True,  # an error's text carries no value of anybody's (RULES 30)
        pool_pre_ping=True,
        pool_size=10,
        max_overflow=20,
        connect_args={"connect_timeout": 10, "options": "-c statement_timeout=60000 -c timezone=UTC"},
    )


def _open_sqlite(url: str, *, secure_delete: bool) -> Engine:
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
            "synchronous=FULL",
            "foreign_keys=ON",
            f"secure_delete={'ON' if secure_delete else 'OFF'}",
        ):
            dbapi_connection.execute(f"PRAGMA {pragma}")

    @event.listens_for(engine, "begin")
    def _begin(conn: Connection) -> None:
        reading = conn.get_execution_options().get(_READING, False)
        conn.exec_driver_sql("BEGIN" if reading else "BEGIN IMMEDIATE")

    return engine


@contextmanager
def reading(engine: Engine) -> Iterator[Connection]:
    """A transaction that only reads: it sees one state of the database and keeps no writer waiting."""
    with engine.connect() as conn:
        yield conn.execution_options(**{_READING: True})
