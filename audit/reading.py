"""A transaction that only reads: on SQLite it is deferred, so that it keeps no writer waiting (RULES 3)."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from sqlalchemy import Connection, Engine

ALONE = "alone"
_POSTGRESQL_ALONE = {"isolation_level": "AUTOCOMMIT"}
_POSTGRESQL_SNAPSHOT = {"isolation_level": "REPEATABLE READ", "postgresql_readonly": True}


@contextmanager
def reading(engine: Engine) -> Iterator[Connection]:
    """One consistent view on SQLite; on PostgreSQL each statement sees what was committed before it."""
    with engine.connect() as conn:
        yield conn.execution_options(flg_reading=True)


@contextmanager
def glance(engine: Engine) -> Iterator[Connection]:
    """One statement alone, without a transaction around it: for what each request asks."""
    with engine.connect() as conn:
        options = _POSTGRESQL_ALONE if engine.dialect.name == "postgresql" else {}
        yield conn.execution_options(flg_reading=ALONE, **options)


@contextmanager
def snapshot(engine: Engine) -> Iterator[Connection]:
    """Every statement sees the state that the first one saw, on either database: what a bundle or a backup needs."""
    with engine.connect() as conn:
        options = _POSTGRESQL_SNAPSHOT if engine.dialect.name == "postgresql" else {}
        yield conn.execution_options(flg_reading=True, **options)
