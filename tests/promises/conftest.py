"""Homes and running gateways for the tests that try to break a promise, on SQLite and on PostgreSQL."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from living.home import Home, home_in
from living.production import Servers, servers
from living.threads import LocalGateway, local_gateway_in
from services.postgresql import PostgreSQL


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Give tests that start process trees time on a busy machine."""
    for item in items:
        if "promises" in item.path.parts:
            item.add_marker(pytest.mark.timeout(290))


@pytest.fixture(scope="session")
def production_servers(postgresql_server: PostgreSQL) -> Iterator[Servers]:
    """RabbitMQ, Redis and an S3 server beside the PostgreSQL of the other tests."""
    with servers(postgresql_server) as made:
        yield made


@pytest.fixture(params=["embedded", "production"])
def home(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Home]:
    """An empty home: the test runs once on the embedded set and once on the production set, unless it is marked."""
    if request.param == "embedded":
        with home_in(tmp_path / "home") as made:
            yield made
    else:
        production: Servers = request.getfixturevalue("production_servers")
        with production.home(tmp_path / "home") as made:
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
