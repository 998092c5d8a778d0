"""A transaction that only reads: on SQLite it is deferred, so that it keeps no writer waiting (RULES 3)."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from sqlalchemy import Connection, Engine


@contextmanager
def reading(engine: Engine) -> Iterator[Connection]:
    """One consistent view on SQLite; on PostgreSQL each statement sees what was committed before it."""
    with engine.connect() as conn:
        yield conn.execution_options(flg_reading=True)
