"""Makes `from logbook import ...` work in this folder, and lends an empty log on either database."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

sys.path.append(str(Path(__file__).parent))

from logbook import Logbook
from services.clock import FixedClock


@pytest.fixture
def log(database_url: str, clock: FixedClock) -> Iterator[Logbook]:
    """An empty log: the test runs once on SQLite and once on PostgreSQL."""
    book = Logbook(database_url, clock)
    yield book
    book.engine.dispose()


@pytest.fixture
def sqlite_log(sqlite_url: str, clock: FixedClock) -> Iterator[Logbook]:
    """An empty log on SQLite, where the database makes no difference."""
    book = Logbook(sqlite_url, clock)
    yield book
    book.engine.dispose()
