"""A database that goes away while tokens are asked for and shown: a clear 503, nothing half-issued, nothing used up."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from consent import add_somebody, add_tool, code_for, exchange, opens, refresh, sign_in
from flask import Flask
from services import postgresql
from sqlalchemy import event, func, select
from werkzeug.test import TestResponse

from audit.reading import reading
from gateway.app import create_app
from gateway.auth.clients import add_client
from gateway.auth.refusals import close_refusals
from gateway.auth.scopes import Role
from gateway.config import Config
from gateway.services import Services, open_services
from gateway.storage.migrating import upgrade
from gateway.tables import tokens

GRANT = {"grant_type": "client_credentials"}


@pytest.fixture
def server() -> Iterator[postgresql.PostgreSQL]:
    """A PostgreSQL of this test's own, which it may kill."""
    with postgresql.running() as running:
        yield running


@pytest.fixture
def services(server: postgresql.PostgreSQL, tmp_path: Path) -> Iterator[Services]:
    """The gateway's stores, the main database on that server."""
    config = Config(
        database_url=server.url(server.create_database()),
        keystore_url=f"sqlite:///{tmp_path / 'keys' / 'subjects.db'}",
        blob_url=f"file:{tmp_path / 'blobs'}",
        state_url=f"file:{tmp_path / 'keys' / 'state'}",
        master_key="5a" * 32,
        siem_sinks="",
    )
    opened = open_services(config, part="console")
    upgrade(opened.engine, "main")
    upgrade(opened.keystore_engine, "keystore")
    yield opened
    opened.close()


@pytest.fixture
def app(services: Services) -> Iterator[Flask]:
    """The application on them."""
    made = create_app(services)
    yield made
    close_refusals(made)


def test_every_credential_waits_for_the_database_and_is_good_afterwards(
    app: Flask, services: Services, server: postgresql.PostgreSQL
) -> None:
    """A server lost inside the transaction of a token, a code, a refresh token: 503, no row; the same again works."""
    http, new = app.test_client(), add_client(services, "an auditor", Role.AUDITOR)
    tool, person = add_tool(services), add_somebody(services)
    sign_in(http, services, person)
    code, auth = code_for(http, tool), (new.client_id, new.client_secret)
    ask = {
        "token": lambda: http.post("/oauth/token", data=GRANT, auth=auth),
        "code": lambda: exchange(http, tool, code),
    }
    held: dict[str, Any] = {}

    for name, rows in (("token", 1), ("code", 2), ("refresh", 2)):
        before, lost = _tokens(services), _lost(services, server, ask[name])
        told, count = ask[name](), _tokens(services)
        held[name] = told.json
        ask["refresh"] = lambda: refresh(http, tool, held["code"]["refresh_token"])

        assert (lost.status_code, lost.json["error"]) == (503, "temporarily_unavailable"), name
        assert lost.headers["Retry-After"]
        assert told.status_code == 200, (name, told.json)
        assert count == before + rows, name  # of the answer that came, and of no other
    assert opens(http, held["token"]["access_token"], "/api/v1/audit/entries")


def test_a_good_token_is_not_called_wrong_while_nobody_can_look_it_up(
    app: Flask, services: Services, server: postgresql.PostgreSQL
) -> None:
    """503 and not 401: a client must not throw its token away, and gets in again with it."""
    http, new = app.test_client(), add_client(services, "an auditor", Role.AUDITOR)
    told = http.post("/oauth/token", data=GRANT, auth=(new.client_id, new.client_secret)).json
    headers = {"Authorization": f"Bearer {told['access_token']}"}
    server.stop(crash=True)

    away = http.get("/api/v1/audit/entries", headers=headers)
    server.start()
    back = http.get("/api/v1/audit/entries", headers=headers)

    assert (away.status_code, away.json["code"]) == (503, "INSUFFICIENT_RESOURCES")
    assert away.headers["Retry-After"]
    assert "WWW-Authenticate" not in away.headers
    assert back.status_code == 200


def _lost(services: Services, server: postgresql.PostgreSQL, ask: Any) -> TestResponse:
    """The answer where the server is killed right after the token's row was written, before the commit."""
    killed: list[str] = []

    def inside(_conn: Any, _cursor: Any, statement: str, *_: Any) -> None:
        if statement.startswith("INSERT INTO tokens") and not killed:
            killed.append(statement)
            server.stop(crash=True)

    event.listen(services.engine, "after_cursor_execute", inside)
    answer: TestResponse = ask()
    event.remove(services.engine, "after_cursor_execute", inside)
    assert killed
    server.start()
    return answer


def _tokens(services: Services) -> int:
    with reading(services.engine) as conn:
        return int(conn.execute(select(func.count()).select_from(tokens)).scalar_one())
