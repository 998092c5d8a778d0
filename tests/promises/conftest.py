"""Homes and running gateways for the tests that try to break a promise, on SQLite and on PostgreSQL."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from living.home import Home, home_in
from living.threads import LocalGateway, local_gateway_in
from services.postgresql import PostgreSQL


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Give tests that start process trees time on a busy machine."""
    for item in items:
        if "promises" in item.path.parts:
            item.add_marker(pytest.mark.timeout(290))


@pytest.fixture(params=["sqlite", "postgresql"])
def home(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Home]:
    """An empty home: the test runs once on SQLite and once on PostgreSQL, unless it is marked otherwise."""
    server: PostgreSQL | None = None
    if request.param == "postgresql":
        server = request.getfixturevalue("postgresql_server")
    with home_in(tmp_path / "home", server) as made:
        yield made


@pytest.fixture
def gateway(home: Home) -> Iterator[LocalGateway]:
    """A gateway in threads, on the test's own home."""
    with local_gateway_in(home) as running:
        yield running


@pytest.fixture(scope="session")
def shared(tmp_path_factory: pytest.TempPathFactory) -> Iterator[LocalGateway]:
    """A gateway on SQLite that tests share which read and add, and change no store behind its back."""
    with home_in(tmp_path_factory.mktemp("shared") / "home") as made, local_gateway_in(made) as running:
        yield running
