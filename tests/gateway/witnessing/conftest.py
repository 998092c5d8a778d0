"""Gateways whose logs have three entries."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from living.home import Home, home_in
from witnesses import grow

from gateway.parts.starting import recover
from gateway.services import Services


@pytest.fixture
def home(tmp_path: Path) -> Iterator[Home]:
    """A folder and a database for a gateway."""
    with home_in(tmp_path / "home") as home:
        yield home


@pytest.fixture
def services(home: Home) -> Iterator[Services]:
    """The stores of a gateway whose log has three entries."""
    with home.stores() as services:
        recover(services)
        grow(services, 3)
        yield services


@pytest.fixture(scope="module")
def still(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Services]:
    """The same for tests that add nothing to it."""
    with home_in(tmp_path_factory.mktemp("still") / "home") as home, home.stores() as services:
        recover(services)
        grow(services, 3)
        yield services
