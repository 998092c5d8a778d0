"""A whole gateway for a test: its stores in the test's folder, the main database on SQLite and PostgreSQL."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from functools import cache
from pathlib import Path
from typing import Any, LiteralString, cast

import psycopg
import pytest
from blob_stores import Servers, servers
from flask import Flask
from flask.testing import FlaskClient
from living.served import served  # noqa: F401 - a fixture
from services.clock import FixedClock
from services.postgresql import PostgreSQL
from sqlalchemy import select
from whole import METADATAS, config_in, opened, prepare, sqlite_in

from audit.entry import Sealed
from audit.tables import audit_pending
from gateway.app import create_app
from gateway.auth.clients import NewClient, add_client
from gateway.auth.refusals import close_refusals
from gateway.auth.scopes import Role
from gateway.config import Config
from gateway.services import Services

TokenFor = Callable[..., str]
Entries = Callable[..., list[dict[str, Any]]]


@pytest.fixture(scope="session")
def s3_servers() -> Iterator[Servers]:
    """S3 servers by kind (`moto`, `s3rver`, `checking`), one of each a pytest-xdist worker."""
    with servers() as get:
        yield get


@pytest.fixture(scope="session")
def gateway_postgresql_url(postgresql_server: PostgreSQL) -> str:
    """A PostgreSQL database with every table, shared by the tests, which empty it; making one takes a second."""
    url = postgresql_server.url(postgresql_server.create_database())
    prepare(url)
    return url


@cache
def _emptying() -> LiteralString:
    """Delete every row; whoever is still connected goes, and the log's triggers look away."""
    statements = [
        "SELECT pg_terminate_backend(pid) FROM pg_stat_activity "
        "WHERE datname = current_database() AND pid <> pg_backend_pid()",
        "SET LOCAL session_replication_role = replica",
        *(str(table.delete()) for metadata in METADATAS for table in metadata.sorted_tables),
    ]
    return cast("LiteralString", "; ".join(statements))


def _empty(url: str) -> None:
    with psycopg.connect(url.replace("+psycopg", "")) as conn:
        conn.execute(_emptying())


@pytest.fixture(params=["sqlite", "postgresql"])
def database_url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """A main database with every table and no row: the test runs once on SQLite and once on PostgreSQL."""
    if request.param == "sqlite":
        url = sqlite_in(tmp_path)
    else:
        url = request.getfixturevalue("gateway_postgresql_url")
        _empty(url)
    return url


@pytest.fixture
def config(database_url: str, tmp_path: Path) -> Config:
    """Settings whose stores are empty and in the test's own folder."""
    return config_in(tmp_path, database_url)


@pytest.fixture
def services(config: Config, clock: FixedClock) -> Iterator[Services]:
    """The gateway's stores, empty, with every table."""
    with opened(config, clock) as made:
        yield made


@pytest.fixture
def app(services: Services) -> Iterator[Flask]:
    """The gateway's application."""
    made = create_app(services)
    yield made
    close_refusals(made)


@pytest.fixture
def http(app: Flask) -> FlaskClient:
    """A client of the application, at 127.0.0.1."""
    return app.test_client()


@pytest.fixture
def client_of(services: Services) -> Callable[[str], NewClient]:
    """Adds a client of a role."""
    return lambda role: add_client(services, f"a {role}", Role(role))


@pytest.fixture
def token_for(http: FlaskClient, client_of: Callable[[str], NewClient]) -> TokenFor:
    """Adds a client of a role and gets a token for it: `token_for("dpo", "privacy:*")`."""

    def get(role: str, scopes: str | None = None) -> str:
        new = client_of(role)
        form = {"grant_type": "client_credentials"} | ({"scope": scopes} if scopes else {})
        answer = http.post("/oauth/token", data=form, auth=(new.client_id, new.client_secret))
        assert answer.status_code == 200, answer.text
        return str(answer.get_json()["access_token"])

    return get


@pytest.fixture
def entries(services: Services) -> Entries:
    """Reads the entries staged so far, oldest first, sealed fields opened: `entries("access.refused")`."""

    def opened(entry_id: str, place: str, value: Any) -> Any:
        sealed = Sealed.read(value)
        return services.sealer.open(sealed, f"{entry_id}.{place}") if sealed else value

    def read(event_type: str | None = None) -> list[dict[str, Any]]:
        with services.engine.connect() as conn:
            bodies = conn.execute(select(audit_pending.c.body).order_by(audit_pending.c.id)).scalars()
            found = [json.loads(body) for body in bodies]
        for entry in found:
            entry["sealed"] = {name for name, value in entry["details"].items() if Sealed.read(value)}
            entry["details"] = {
                name: opened(entry["id"], f"details.{name}", value)
                for name, value in entry["details"].items()
            }
            for name in ("actor", "ip_address"):
                entry[name] = opened(entry["id"], name, entry[name])
        return [entry for entry in found if event_type in (None, entry["event_type"])]

    return read
