"""The door of every route: bearer tokens, scopes and rate limits (RFC 6750; DESIGN, Tokens)."""

from __future__ import annotations

import io
from collections.abc import Callable, Iterator
from datetime import datetime, timedelta

import pytest
from flask import Flask, Response, g
from flask.testing import FlaskClient
from services.clock import FixedClock
from sqlalchemy import event, select

from gateway.auth.admission import current_client
from gateway.auth.clients import Move, NewClient, move_client
from gateway.auth.roster import client_record
from gateway.auth.rules import LimitClass, Proof, Rule, rules_of
from gateway.auth.scopes import Scope
from gateway.openapi import operation
from gateway.services import Services
from gateway.tables import clients

CLIENTS = "/api/v1/clients"
Entries = Callable[..., list]
TokenFor = Callable[..., str]


def bearer(token: str) -> dict[str, str]:
    return {"Authorization": f"Bearer {token}"}


@pytest.fixture
def app(app: Flask) -> Iterator[Flask]:
    """The application with a limited route of two scopes, and one outside of the API document."""

    @operation("A test route", answers={200: None})
    def limited() -> Response:
        return Response(current_client().client_id)

    app.add_url_rule("/test/limited", "test_limited", limited, methods=["GET", "POST"])
    app.add_url_rule("/test/plain", "test_plain", lambda: Response(str(g.origin.actor)))
    either = (Scope.TRAINING_PARTICIPATE, Scope.ROUND_MANAGE)
    rules_of(app)["test_limited"] = Rule(Proof.TOKEN, either, limit=LimitClass.UPDATES)
    rules_of(app)["test_plain"] = Rule(Proof.TOKEN, (Scope.AUDIT_READ,))
    return app


def test_a_token_without_the_scope_is_told_which_one_it_lacks(
    http: FlaskClient, token_for: TokenFor, entries: Entries
) -> None:
    """RFC 6750, 3.1: 403 insufficient_scope with the scope; the entry names the proven client."""
    answer = http.get(CLIENTS, headers=bearer(token_for("participant")))

    assert answer.status_code == 403
    assert answer.get_json()["code"] == "INSUFFICIENT_SCOPE"
    assert answer.headers["WWW-Authenticate"].endswith('error="insufficient_scope", scope="client:manage"')
    (entry,) = entries("access.refused")
    assert entry["actor"]["role"] == "participant"
    assert entry["details"]["reason"] == "INSUFFICIENT_SCOPE"


def test_of_several_scopes_that_would_do_the_one_is_told_that_the_client_can_get(
    http: FlaskClient, token_for: TokenFor
) -> None:
    """RFC 6750, 3: what is told is asked for; two scopes would have to be of one role."""
    told = [
        http.get("/test/limited", headers=bearer(token_for(role, scope))).headers["WWW-Authenticate"]
        for role, scope in (
            ("participant", "model:download"),
            ("operator", "client:manage"),
            ("auditor", "audit:read"),
        )
    ]

    assert [challenge.rpartition("scope=")[2] for challenge in told] == [
        '"training:participate"',
        '"round:manage"',
        '"training:participate"',
    ]


def test_any_of_a_routes_scopes_suffices(http: FlaskClient, token_for: TokenFor) -> None:
    """API.md: reading rounds needs training:participate or round:manage."""
    answers = [
        http.get("/test/limited", headers=bearer(token_for(role))) for role in ("edge", "operator", "siem")
    ]

    assert [answer.status_code for answer in answers] == [200, 200, 403]


def test_a_token_does_not_travel_in_clear(http: FlaskClient, token_for: TokenFor) -> None:
    """Decision 0051: over a network only through TLS."""
    headers = bearer(token_for("operator"))

    from_outside = http.get(CLIENTS, headers=headers, environ_base={"REMOTE_ADDR": "192.0.2.7"})
    by_tls = http.get(
        CLIENTS, headers=headers, base_url="https://localhost", environ_base={"REMOTE_ADDR": "192.0.2.7"}
    )

    assert (from_outside.status_code, from_outside.get_json()["code"]) == (400, "INSECURE_TRANSPORT")
    assert by_tls.status_code == 200


def test_who_is_turned_away_is_so_before_the_body_is_read(http: FlaskClient) -> None:
    """DESIGN, the way of an update: the token is checked first."""

    class Unread(io.BytesIO):
        def read(self, size: int | None = -1) -> bytes:
            raise AssertionError("the body was read")

    answer = http.post(
        "/test/limited", environ_overrides={"wsgi.input": Unread(b"a body"), "CONTENT_LENGTH": "6"}
    )

    assert answer.status_code == 401


@pytest.mark.parametrize(("move", "back"), [(Move.SUSPEND, True), (Move.REVOKE, False)])
def test_tokens_and_keys_of_a_client_that_is_shut_out_fail_at_once(
    http: FlaskClient, services: Services, client_of: Callable[[str], NewClient], move: Move, *, back: bool
) -> None:
    """Suspension stops every credential; resuming brings them back, a revocation never ends."""
    new = client_of("operator")
    form = {"grant_type": "client_credentials"}
    token = http.post("/oauth/token", data=form, auth=(new.client_id, new.client_secret)).get_json()
    headers, key = bearer(token["access_token"]), bearer(str(new.api_key))
    assert http.get(CLIENTS, headers=headers).status_code == 200

    move_client(services, new.client_id, move)

    assert http.get(CLIENTS, headers=headers).status_code == 401
    assert http.post(f"{CLIENTS}/register", json={}, headers=key).status_code == 401
    if back:
        move_client(services, new.client_id, Move.RESUME)
        assert http.get(CLIENTS, headers=headers).status_code == 200
        assert http.post(f"{CLIENTS}/register", json={}, headers=key).status_code == 201


def test_an_api_key_carries_client_register_alone(
    http: FlaskClient, client_of: Callable[[str], NewClient]
) -> None:
    """API.md, Identity: an operator's key does not manage clients."""
    new = client_of("operator")

    answer = http.get(CLIENTS, headers=bearer(str(new.api_key)))

    assert answer.status_code == 403


def test_the_sixth_update_of_a_minute_waits(
    http: FlaskClient, token_for: TokenFor, clock: FixedClock, entries: Entries
) -> None:
    """API.md, Common: five updates a minute and client, told in headers; 429 says when to come again."""
    headers, other = bearer(token_for("participant")), bearer(token_for("participant"))

    answers = [http.get("/test/limited", headers=headers) for _ in range(6)]

    assert [answer.status_code for answer in answers] == [200] * 5 + [429]
    assert [answer.headers["X-RateLimit-Remaining"] for answer in answers] == ["4", "3", "2", "1", "0", "0"]
    assert answers[0].headers["X-RateLimit-Limit"] == "5"
    assert int(answers[0].headers["X-RateLimit-Reset"]) == clock().timestamp() + 60
    assert answers[-1].headers["Retry-After"] == "60"
    assert answers[-1].get_json()["code"] == "RATE_LIMITED"
    assert entries("access.refused")[-1]["details"]["reason"] == "RATE_LIMITED"
    assert http.get("/test/limited", headers=other).status_code == 200
    clock.advance(timedelta(seconds=60))
    assert http.get("/test/limited", headers=headers).status_code == 200


def test_operators_have_no_limit(http: FlaskClient, token_for: TokenFor) -> None:
    """API.md, Common: routes of operators and of audit:read have no limit."""
    headers = bearer(token_for("operator"))

    answers = [http.get("/test/limited", headers=headers) for _ in range(7)]

    assert {answer.status_code for answer in answers} == {200}
    assert "X-RateLimit-Limit" not in answers[0].headers


def test_a_client_is_seen_at_most_once_a_minute(
    http: FlaskClient, token_for: TokenFor, services: Services, clock: FixedClock
) -> None:
    """No request costs a write because of last_seen_at, except the first of a minute."""
    headers, start = bearer(token_for("operator")), clock()
    with services.engine.connect() as conn:
        client_id = conn.execute(select(clients.c.client_id)).scalar_one()

    seen: list[datetime | None] = []
    written: list[str] = []
    event.listen(services.engine, "before_cursor_execute", lambda *about: written.append(about[2]))
    for _ in range(3):
        http.get(CLIENTS, headers=headers)
        seen.append(client_record(services, client_id).last_seen_at)
        clock.advance(timedelta(seconds=40))

    assert seen == [start, start, start + timedelta(seconds=80)]
    assert len([statement for statement in written if statement.startswith("UPDATE clients")]) == 2


def test_a_view_outside_of_the_document_can_be_guarded_too(http: FlaskClient, token_for: TokenFor) -> None:
    """`require` is `admit` for views without a promise."""
    assert http.get("/test/plain").status_code == 401
    assert http.get("/test/plain", headers=bearer(token_for("auditor"))).status_code == 200
