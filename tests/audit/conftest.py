"""Makes `from logbook import ...` work in this folder, and lends an empty log on either database."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

sys.path.append(str(Path(__file__).parent))

from logbook import Logbook
from services.clock import FixedClock
from services.postgresql import PostgreSQL
from sqlalchemy import create_engine, text


@pytest.fixture(scope="session")
def audit_database(postgresql_server: PostgreSQL) -> str:
    """One PostgreSQL database for all tests of this folder; each empties it first."""
    return postgresql_server.url(postgresql_server.create_database())


@pytest.fixture
def postgresql_log(audit_database: str, clock: FixedClock) -> Iterator[Logbook]:
    """An empty log on PostgreSQL."""
    administrator = create_engine(audit_database)
    with administrator.begin() as conn:
        conn.execute(text("DROP SCHEMA public CASCADE"))
        conn.execute(text("CREATE SCHEMA public"))
    administrator.dispose()
    book = Logbook(audit_database, clock)
    yield book
    book.engine.dispose()


@pytest.fixture
def sqlite_log(sqlite_url: str, clock: FixedClock) -> Iterator[Logbook]:
    """An empty log on SQLite, where the database makes no difference."""
    book = Logbook(sqlite_url, clock)
    yield book
    book.engine.dispose()


@pytest.fixture(params=["sqlite", "postgresql"])
def log(request: pytest.FixtureRequest) -> Logbook:
    """An empty log: the test runs once on SQLite and once on PostgreSQL."""
    book: Logbook = request.getfixturevalue(f"{request.param}_log")
    return book
