"""How many tokens may live, how they end, and how what is over goes: on both databases."""

from __future__ import annotations

from dataclasses import replace
from datetime import timedelta
from typing import Any
from uuid import uuid4

import pytest
from flask.testing import FlaskClient
from services.clock import FixedClock
from sqlalchemy import Table, event, func, insert, select

from gateway.auth.clients import Move, NewClient, add_client, move_client
from gateway.auth.issuing import (
    AccessToken,
    end_family,
    end_tokens_of_client,
    new_access_token,
    store_access_token,
)
from gateway.auth.scopes import BUNDLES, Role
from gateway.auth.secrets import SecretKind, digest, new_secret
from gateway.auth.tokens import TokenKind, find, purge_expired
from gateway.auth.tokens.purging import LONGEST_BATCH_S, purge
from gateway.config import Config
from gateway.services import Services
from gateway.storage.asking import OwnConnections
from gateway.tables import authorization_codes, revoked_tokens, tokens, used_assertions

CLIENTS = "/api/v1/clients"


@pytest.fixture
def config(config: Config) -> Config:
    """Three live tokens a client; JWTs need an issuer."""
    return replace(config, tokens_per_client=3, issuer="https://fl.example.com")


class Holder:
    """A client as `issuing` sees it."""

    def __init__(self, client_id: str, token_format: str = "opaque") -> None:  # noqa: S107 - a format
        self.client_id, self.token_format = client_id, token_format


@pytest.fixture
def operator(services: Services) -> NewClient:
    """A client with an API key."""
    return add_client(services, "operator", Role.OPERATOR)


def bearer(token: str) -> dict[str, str]:
    return {"Authorization": f"Bearer {token}"}


def issue(
    services: Services,
    client: NewClient,
    token_format: str = "opaque",  # noqa: S107 - a format
    *,
    user_id: str | None = None,
    family_id: str | None = None,
) -> AccessToken:
    holder = Holder(client.client_id, token_format)
    token = new_access_token(services, holder, BUNDLES[Role.OPERATOR])
    with services.engine.begin() as conn:
        store_access_token(
            conn, services, token, client_id=client.client_id, user_id=user_id, family_id=family_id
        )
    return token


def rows_of(services: Services, table: Table) -> int:
    with services.engine.connect() as conn:
        return int(conn.execute(select(func.count()).select_from(table)).scalar_one())


@pytest.mark.parametrize("token_format", ["opaque", "jwt"])
def test_the_oldest_token_ends_when_there_are_too_many(
    http: FlaskClient, services: Services, operator: NewClient, clock: FixedClock, token_format: str
) -> None:
    """A client that asks at every request fills no table, and is not shut out either; a cached one ends too."""
    first = issue(services, operator, token_format)
    assert http.get(CLIENTS, headers=bearer(first.text)).status_code == 200

    later = []
    for _ in range(3):
        clock.advance(timedelta(seconds=1))
        later.append(issue(services, operator, token_format))

    assert rows_of(services, tokens) == 3
    assert http.get(CLIENTS, headers=bearer(first.text)).status_code == 401
    assert {http.get(CLIENTS, headers=bearer(token.text)).status_code for token in later} == {200}


@pytest.mark.parametrize("database_url", ["sqlite"], indirect=True)
def test_the_newest_token_never_is_the_one_that_ends(services: Services, operator: NewClient) -> None:
    """However many a client gets in one moment: JWTs count whole seconds."""
    for _ in range(20):
        newest = issue(services, operator, "jwt")

        assert find(services, newest.text) is not None
    assert rows_of(services, tokens) == 3


def test_each_person_s_tokens_are_counted_apart(
    services: Services, operator: NewClient, clock: FixedClock
) -> None:
    """A tool with many people would otherwise end the tokens of some with those of others."""
    people = [str(uuid4()) for _ in range(3)]
    for user_id in (None, *people) * 4:
        clock.advance(timedelta(seconds=1))
        issue(services, operator, user_id=user_id)

    assert rows_of(services, tokens) == 12


@pytest.mark.parametrize("end", ["client", "family"])
def test_what_ends_together_is_gone_and_stays_refused(
    services: Services, operator: NewClient, clock: FixedClock, end: str
) -> None:
    """Rows go, JWTs among them are written down, codes too; caches hear of it with the commit."""
    family = str(uuid4())
    ended = [issue(services, operator, form, family_id=family) for form in ("opaque", "jwt")]
    with services.engine.begin() as conn:
        conn.execute(insert(authorization_codes).values(code_row(operator, family, clock)))
    assert all(find(services, token.text) for token in ended)

    with services.engine.begin() as conn:
        if end == "client":
            end_tokens_of_client(conn, operator.client_id)
        else:
            end_family(conn, family)

    assert [find(services, token.text) for token in ended] == [None, None]
    assert (rows_of(services, tokens), rows_of(services, authorization_codes)) == (0, 0)
    assert rows_of(services, revoked_tokens) == 1


def code_row(client: NewClient, family: str, clock: FixedClock) -> dict[str, object]:
    return {
        "code_hash": uuid4().hex,
        "client_id": client.client_id,
        "user_id": str(uuid4()),
        "family_id": family,
        "redirect_uri": "https://tool.example/back",
        "scope": "client:manage",
        "code_challenge": "c" * 43,
        "issued_at": clock(),
        "expires_at": clock() + timedelta(seconds=60),
    }


def test_a_cached_token_ends_with_its_client(
    http: FlaskClient, services: Services, operator: NewClient
) -> None:
    """Suspension and resumption are seen by the next request; so is the end of an API key."""
    token = issue(services, operator).text
    assert operator.api_key is not None
    assert http.get(CLIENTS, headers=bearer(token)).status_code == 200
    assert find(services, operator.api_key) is not None

    move_client(services, operator.client_id, Move.SUSPEND)
    suspended = http.get(CLIENTS, headers=bearer(token)).status_code
    move_client(services, operator.client_id, Move.RESUME)
    resumed = http.get(CLIENTS, headers=bearer(token)).status_code
    move_client(services, operator.client_id, Move.REVOKE)

    assert (suspended, resumed) == (401, 200)
    assert http.get(CLIENTS, headers=bearer(token)).status_code == 401
    key = find(services, operator.api_key)
    assert key is not None
    assert not key.is_good(services.clock())


def test_a_cached_token_costs_no_query(
    http: FlaskClient, services: Services, operator: NewClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of many requests in half a second only the first asks the database, or writes that the client is there."""
    token = issue(services, operator).text
    looks: list[object] = []
    ask = OwnConnections.ask

    def watched(own: OwnConnections, *about: Any) -> Any:
        looks.append(about)
        return ask(own, *about)

    monkeypatch.setattr(OwnConnections, "ask", watched)
    for _ in range(2):
        http.get("/api/v1/rounds/0", headers=bearer(token))
    assert looks
    looks.clear()
    event.listen(services.engine, "checkout", lambda *about: looks.append(about))

    assert http.get(f"{CLIENTS}/no-id", headers=bearer(token)).status_code == 404
    assert looks == []
    services.state.bump_epoch()
    http.get(f"{CLIENTS}/no-id", headers=bearer(token))
    assert len(looks) == 1


@pytest.mark.parametrize(
    ("text", "looks"),
    [
        ("", 0),
        ("garbage", 0),
        ("flg_token_short", 0),
        ("flg_token_" + "ä" * 43, 0),
        ("flg_secret_" + "a" * 43, 0),
        ("A" * 100_000, 0),
        ("a.b.c", 0),
        ("flg_token_" + "a" * 43, 1),
        ("flg_key_" + "a" * 43, 1),
    ],
)
@pytest.mark.parametrize("database_url", ["sqlite"], indirect=True)
def test_what_cannot_be_a_token_reaches_no_database(services: Services, text: str, looks: int) -> None:
    """A hostile text costs no more than a good token."""
    looked: list[object] = []
    event.listen(services.engine, "checkout", lambda *about: looked.append(about))

    assert find(services, text) is None

    assert len(looked) == looks


def test_a_refresh_token_opens_no_door(
    http: FlaskClient, services: Services, operator: NewClient, clock: FixedClock
) -> None:
    """It is good for one thing, at one endpoint; revoking it ends its family (RFC 7009, section 2.1)."""
    family, refresh = str(uuid4()), new_secret(SecretKind.REFRESH_TOKEN)
    access = issue(services, operator, family_id=family)
    row = {
        "token_hash": digest(refresh),
        "client_id": operator.client_id,
        "family_id": family,
        "scope": "client:manage",
        "kind": TokenKind.REFRESH.value,
        "issued_at": clock(),
        "expires_at": clock() + timedelta(days=1),
    }
    with services.engine.begin() as conn:
        conn.execute(insert(tokens).values(row))
    auth = (operator.client_id, operator.client_secret)

    opened = http.get(CLIENTS, headers=bearer(refresh)).status_code
    told = http.post("/oauth/introspect", data={"token": refresh}, auth=auth).get_json()
    http.post("/oauth/revoke", data={"token": refresh, "token_type_hint": "access_token"}, auth=auth)

    assert opened == 401
    assert told["active"] is True
    assert "token_type" not in told
    assert rows_of(services, tokens) == 0
    assert http.get(CLIENTS, headers=bearer(access.text)).status_code == 401


@pytest.mark.parametrize("method", ["header", "query", "form"])
@pytest.mark.parametrize("database_url", ["sqlite"], indirect=True)
def test_two_tokens_at_once_are_refused(
    http: FlaskClient, services: Services, operator: NewClient, method: str
) -> None:
    """RFC 6750, section 2: one way for a token in each request."""
    token = issue(services, operator).text
    twice = {
        "header": {"headers": [("Authorization", f"Bearer {token}")] * 2},
        "query": {"headers": bearer(token), "query_string": {"access_token": token}},
        "form": {"headers": bearer(token), "data": {"access_token": token}},
    }[method]

    answer = http.post("/api/v1/rounds", **twice)  # type: ignore[arg-type]

    assert answer.status_code == 400
    assert 'error="invalid_request"' in answer.headers["WWW-Authenticate"]


@pytest.mark.parametrize("database_url", ["sqlite"], indirect=True)
def test_another_scheme_is_no_bearer_token(
    http: FlaskClient, services: Services, operator: NewClient
) -> None:
    """RFC 6750, section 3.1: a scheme that is not taken is as no credentials: the challenge has no error code."""
    token = issue(services, operator).text

    answer = http.get(CLIENTS, headers={"Authorization": f"DPoP {token}"})

    assert (answer.status_code, answer.headers["WWW-Authenticate"]) == (401, 'Bearer realm="fl-gateway"')


def test_everything_that_is_over_goes_in_small_batches(
    services: Services, operator: NewClient, clock: FixedClock
) -> None:
    """Tokens, revocations, assertions, codes once their tokens are over; what lives stays."""
    live = issue(services, operator)
    gone = 3000
    with services.engine.begin() as conn:
        conn.execute(insert(tokens), [token_row(operator, number, clock) for number in range(gone)])
        for table, key in ((revoked_tokens, "token_hash"), (used_assertions, "jti_hash")):
            conn.execute(insert(table), {key: "a", "client_id": operator.client_id, "expires_at": clock()})
        old = code_row(operator, str(uuid4()), clock) | {"expires_at": clock() - timedelta(days=1)}
        conn.execute(insert(authorization_codes), [old, code_row(operator, str(uuid4()), clock)])

    batches = list(purge(services))

    assert sum(batch.rows for batch in batches) == gone + 3
    assert max(batch.rows for batch in batches) <= 500
    assert rows_of(services, tokens) == 1
    assert find(services, live.text) is not None
    assert rows_of(services, authorization_codes) == 1
    assert (rows_of(services, revoked_tokens), rows_of(services, used_assertions)) == (0, 0)
    assert purge_expired(services) == 0
    assert LONGEST_BATCH_S < 0.05


def token_row(client: NewClient, number: int, clock: FixedClock) -> dict[str, object]:
    return {
        "token_hash": f"{number:064x}",
        "client_id": client.client_id,
        "scope": "client:manage",
        "kind": TokenKind.ACCESS.value,
        "issued_at": clock() - timedelta(hours=1),
        "expires_at": clock() - timedelta(seconds=number % 100),
    }
