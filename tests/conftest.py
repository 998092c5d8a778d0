"""What every test may ask for: a clock, an empty database (SQLite or PostgreSQL), a closed door to the world.

`tests/` is on the path (pyproject.toml): `from services.postgresql import ...` imports a throwaway server.
"""

from __future__ import annotations

import gc
import os
import socket
import sys
from collections.abc import Callable, Iterator
from ipaddress import ip_address
from pathlib import Path
from typing import Any

import pytest
from hypothesis import settings
from services import postgresql, rabbitmq
from services.clock import FixedClock
from werkzeug.routing import Rule

# A test starts many commands; where this is set, as in images of containers, each would compile all our modules anew.
os.environ.pop("PYTHONDONTWRITEBYTECODE", None)
sys.dont_write_bytecode = False

settings.register_profile("desk", deadline=None)
settings.register_profile("ci", deadline=None, derandomize=True, print_blob=True)
settings.load_profile("ci" if os.environ.get("CI") else "desk")


_builders: dict[Any, Any] = {}
_compile_builder = Rule._compile_builder


def _kept_builder(self: Rule, append_unknown: bool = True) -> Any:
    """What makes a rule's URLs, compiled once: each test has an application, and 100 rules take six sevenths of it."""
    if self.defaults:
        return _compile_builder(self, append_unknown)
    key = (*self._trace, append_unknown)
    if key not in _builders:
        _builders[key] = _compile_builder(self, append_unknown)
    return _builders[key]


Rule._compile_builder = _kept_builder  # type: ignore[method-assign]


@pytest.hookimpl(wrapper=True)
def pytest_collection() -> Iterator[None]:
    """Collect no garbage among the modules and tests that are loaded: they stay to the end.

    A third of the time that collecting the tests takes would go into it, and half a second now and then afterwards.
    """
    gc.disable()
    try:
        return (yield)
    finally:
        gc.collect()
        gc.freeze()
        gc.enable()


@pytest.fixture
def clock() -> FixedClock:
    """A clock that stands at noon (UTC) of 24 November 2026 until `clock.advance(...)`."""
    return FixedClock()


@pytest.fixture(scope="session")
def postgresql_server() -> Iterator[postgresql.PostgreSQL]:
    """A private PostgreSQL, one a pytest-xdist worker. To stop one, make your own with `running()`."""
    with postgresql.running() as server:
        yield server


@pytest.fixture
def postgresql_url(postgresql_server: postgresql.PostgreSQL) -> Iterator[str]:
    """An empty PostgreSQL database."""
    name = postgresql_server.create_database()
    yield postgresql_server.url(name)
    postgresql_server.drop_database(name)


@pytest.fixture(scope="session")
def rabbitmq_server() -> Iterator[rabbitmq.RabbitMQ]:
    """A private RabbitMQ, one a pytest-xdist worker. To stop one, make your own with `running()`."""
    with rabbitmq.running() as server:
        yield server


@pytest.fixture
def broker(rabbitmq_server: rabbitmq.RabbitMQ) -> rabbitmq.RabbitMQ:
    """A RabbitMQ without a queue."""
    rabbitmq_server.clear()
    return rabbitmq_server


@pytest.fixture
def sqlite_url(tmp_path: Path) -> str:
    """An empty SQLite database."""
    return f"sqlite:///{tmp_path / 'fl-gateway.db'}"


@pytest.fixture(params=["sqlite", "postgresql"])
def database_url(request: pytest.FixtureRequest) -> str:
    """An empty database: the test runs once on SQLite and once on PostgreSQL."""
    url: str = request.getfixturevalue(f"{request.param}_url")
    return url


def _guarded(connect: Callable[[socket.socket, Any], Any]) -> Callable[[socket.socket, Any], Any]:
    """Refuse a connection to any other machine: a test must not need, load or tell the outside world.

    No audit hook, which would be shorter: it lets other threads run inside of coverage's `sys.settrace`.
    """

    def guarded(self: socket.socket, address: Any) -> Any:
        if isinstance(address, tuple) and not _is_here(str(address[0])):
            self.close()
            raise RuntimeError(f"a test tried to connect to {address[0]}, outside of this machine")
        return connect(self, address)

    return guarded


def _is_here(host: str) -> bool:
    try:
        return ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


socket.socket.connect = _guarded(socket.socket.connect)  # type: ignore[method-assign]
socket.socket.connect_ex = _guarded(socket.socket.connect_ex)  # type: ignore[method-assign]
