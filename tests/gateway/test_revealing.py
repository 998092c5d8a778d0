"""Personal fields of the log in clear: for who was given `audit:reveal` by name, with a reason, and never unseen."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import pytest
from federation import Federation
from flask.testing import FlaskClient
from sqlalchemy import select

from audit.tables import audit_pending
from gateway.auth.clients import add_client
from gateway.auth.scopes import BUNDLES, BY_NAME, Role, Scope, ScopeRefused, given_by_name, granted
from gateway.services import Services

Entries = Callable[..., list[dict[str, Any]]]
WHY = "case 7 of 2026: whose device was this?"


@pytest.fixture
def federation(services: Services, http: FlaskClient) -> Federation:
    """A federation whose log has entries."""
    made = Federation(services, http)
    made.register("a device of somebody")
    made.sequence()
    return made


def revealer(services: Services, http: FlaskClient, scope: str = "audit:read audit:reveal") -> dict[str, str]:
    """The credentials of an auditor's tool that was given the scope by name."""
    new = add_client(services, "a tool", Role.AUDITOR, extra=["audit:reveal"])
    form = {"grant_type": "client_credentials", "scope": scope}
    answer = http.post("/oauth/token", data=form, auth=(new.client_id, new.client_secret))
    assert answer.status_code == 200, answer.text
    return {"Authorization": f"Bearer {answer.json['access_token']}"}


def place_of(federation: Federation, event_type: str) -> int:
    """Where the newest entry of a type is."""
    auditor = federation.staff("auditor")
    found = federation.http.get("/api/v1/audit/entries?limit=1000", headers=auditor).json["data"]
    return int([entry["seq"] for entry in found if entry["event_type"] == event_type][-1])


def test_the_fields_of_an_entry_are_opened_and_the_log_knows_who_asked_and_why(
    services: Services, http: FlaskClient, federation: Federation, entries: Entries
) -> None:
    """RULES 27: each reveal is an entry, of its fields, with the reason sealed under the reader."""
    seq, headers = place_of(federation, "client.registered"), revealer(services, http)
    sealed = http.get(f"/api/v1/audit/entries/{seq}", headers=headers).json

    answer = http.post(f"/api/v1/audit/entries/{seq}/reveal", json={"reason": WHY}, headers=headers)

    assert answer.status_code == 200, answer.text
    assert answer.json["fields"]["ip_address"] == "127.0.0.1"
    assert set(answer.json["fields"]) == {"actor", "ip_address", "details.client_id"}
    assert "enc" in sealed["actor"]
    (written,) = entries("audit.revealed")
    assert written["details"] == {"seq": seq, "fields": list(answer.json["fields"]), "reason": WHY}
    assert written["sealed"] == {"reason"}
    assert WHY not in _bodies(services)


def test_nothing_is_opened_when_the_entry_of_it_cannot_be_written(
    services: Services, http: FlaskClient, federation: Federation
) -> None:
    """What was seen, the log knows: without its entry nothing is shown."""
    seq, headers = place_of(federation, "client.registered"), revealer(services, http)
    with services.engine.begin() as conn:
        conn.exec_driver_sql("ALTER TABLE audit_pending RENAME TO audit_away")

    answer = http.post(f"/api/v1/audit/entries/{seq}/reveal", json={"reason": WHY}, headers=headers)

    with services.engine.begin() as conn:
        conn.exec_driver_sql("ALTER TABLE audit_away RENAME TO audit_pending")
    assert answer.status_code >= 500
    assert "127.0.0.1" not in answer.text


def test_a_field_whose_key_was_destroyed_stays_noise(
    services: Services, http: FlaskClient, federation: Federation
) -> None:
    """Promise 5: after an erasure nobody can open what is left, whatever scope they have."""
    seq, headers = place_of(federation, "client.registered"), revealer(services, http)
    entry = http.get(f"/api/v1/audit/entries/{seq}", headers=headers).json
    services.keystore.destroy([entry["details"]["client_id"]["key"]])

    answer = http.post(f"/api/v1/audit/entries/{seq}/reveal", json={"reason": WHY}, headers=headers)

    assert answer.json["destroyed"] == ["details.client_id"]
    assert "details.client_id" not in answer.json["fields"]


@pytest.mark.parametrize(
    ("body", "status"),
    [({"reason": ""}, 422), ({"reason": " \n "}, 422), ({"reason": "x" * 501}, 422), ({}, 422)],
)
def test_without_a_reason_nothing_is_revealed(
    services: Services, http: FlaskClient, federation: Federation, entries: Entries, body: Any, status: int
) -> None:
    """Who wants to know says why, in 1 to 500 characters."""
    headers = revealer(services, http)

    answer = http.post("/api/v1/audit/entries/0/reveal", json=body, headers=headers)

    assert (answer.status_code, entries("audit.revealed")) == (status, [])


def test_an_entry_that_is_not_there_is_not_found(
    services: Services, http: FlaskClient, federation: Federation
) -> None:
    """404, and no entry of a revealing."""
    headers = revealer(services, http)

    answer = http.post("/api/v1/audit/entries/99999/reveal", json={"reason": WHY}, headers=headers)

    assert answer.status_code == 404


def test_reading_the_log_does_not_open_it(
    services: Services, http: FlaskClient, federation: Federation
) -> None:
    """The scope is in no bundle, and a token has it only if it was asked for by name."""
    by_name_but_not_asked_for = revealer(services, http, "audit:read")

    for headers in (federation.staff("auditor"), federation.staff("dpo"), by_name_but_not_asked_for):
        answer = http.post("/api/v1/audit/entries/0/reveal", json={"reason": WHY}, headers=headers)
        assert answer.status_code == 403, answer.text


def test_the_scope_is_in_no_bundle_and_given_to_few_roles() -> None:
    """`audit:reveal` is given to one person or tool, never to a role."""
    assert not any(Scope.AUDIT_REVEAL in scopes for scopes in BUNDLES.values())
    assert set(BY_NAME) == {Role.AUDITOR, Role.DPO}
    assert granted(Role.AUDITOR, "audit:reveal", [Scope.AUDIT_REVEAL]) == (Scope.AUDIT_REVEAL,)
    assert granted(Role.AUDITOR, None, [Scope.AUDIT_REVEAL]) == BUNDLES[Role.AUDITOR]
    for role, scope in (
        (Role.SIEM, "audit:reveal"),
        (Role.OPERATOR, "audit:read"),
        (Role.AUDITOR, "audit:read"),
    ):
        with pytest.raises(ScopeRefused):
            given_by_name(role, [scope])
    with pytest.raises(ScopeRefused):
        granted(Role.SIEM, "audit:reveal", [Scope.AUDIT_REVEAL])


def _bodies(services: Services) -> str:
    """Every entry that waits, as stored."""
    with services.engine.connect() as conn:
        return json.dumps(list(conn.execute(select(audit_pending.c.body)).scalars()))
