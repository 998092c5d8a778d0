"""A gateway with a past, and a backup of it, for tests that look at the file or put it somewhere else."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from living.home import Home, home_in
from living.restores import Past, back_up, back_up_keys, live
from services.postgresql import PostgreSQL


@pytest.fixture(scope="session")
def past(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Past]:
    """A gateway on SQLite that tests share, and do not change."""
    folder = tmp_path_factory.mktemp("past")
    with home_in(folder / "home") as home:
        people = live(home)
        yield Past(home, people, back_up(home, folder / "data.zip"), back_up_keys(home, folder / "keys.zip"))


@pytest.fixture(params=["sqlite", "postgresql"])
def anywhere(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Home]:
    """An empty home: the test runs once on SQLite and once on PostgreSQL."""
    server: PostgreSQL | None = None
    if request.param == "postgresql":
        server = request.getfixturevalue("postgresql_server")
    with home_in(tmp_path / "anywhere", server) as home:
        yield home


@pytest.fixture
def elsewhere(tmp_path: Path) -> Iterator[Home]:
    """An empty home on SQLite."""
    with home_in(tmp_path / "elsewhere") as home:
        yield home
