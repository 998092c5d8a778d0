"""Registering, listing and ending clients over HTTP, on both databases (API.md, Identity)."""

from __future__ import annotations

import threading
from base64 import b64encode
from collections.abc import Callable

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from flask import Flask
from flask.testing import FlaskClient
from sqlalchemy import func, select

from compliance.errors import SubjectErased, SubjectErasing
from compliance.subjects import SubjectState, state_of
from gateway.auth.client_keys import rotate_api_key
from gateway.auth.clients import (
    Device,
    Move,
    NewClient,
    add_client,
    move_client,
    new_registration,
    register_client,
)
from gateway.auth.roster import client_id_of, client_record, public_key_of
from gateway.auth.scopes import Role
from gateway.errors import Conflict, NotFound
from gateway.services import Services
from gateway.tables import clients

CLIENTS = "/api/v1/clients"
REGISTER = f"{CLIENTS}/register"
ClientOf = Callable[[str], NewClient]
Entries = Callable[..., list]


def bearer(token: str | None) -> dict[str, str]:
    return {"Authorization": f"Bearer {token}"}


def count(services: Services) -> int:
    with services.engine.connect() as conn:
        return conn.execute(select(func.count()).select_from(clients)).scalar_one()


@pytest.mark.parametrize(
    ("role", "has_key"),
    [
        ("participant", True),
        ("edge", True),
        ("operator", True),
        ("dpo", False),
        ("auditor", False),
        ("siem", False),
    ],
)
def test_a_client_is_added_with_its_subject_and_its_entry(
    services: Services, entries: Entries, role: str, *, has_key: bool
) -> None:
    """API.md, Identity: an API key for those who bring devices; the name is sealed, and finds the client."""
    new = add_client(services, "Hospital Ä", Role(role))

    assert (new.api_key is not None) is has_key
    record = client_record(services, new.client_id)
    assert (record.name, record.role, record.status) == ("Hospital Ä", role, "active")
    assert client_id_of(services, "Hospital Ä") == new.client_id
    with services.engine.connect() as conn:
        assert state_of(conn, new.subject_id) is SubjectState.ACTIVE
        assert "Hospital" not in str(conn.execute(select(clients.c.name, clients.c.name_index)).all())
    (entry,) = entries("client.added")
    assert (entry["actor"], entry["details"]["role"]) == ("console", role)
    assert entry["details"]["client_id"] == new.client_id
    assert "client_id" in entry["sealed"]


def test_a_device_registers_with_an_api_key_and_takes_part_at_once(
    http: FlaskClient, services: Services, client_of: ClientOf, entries: Entries
) -> None:
    """Each register makes a new client and subject; the token has the participant's scopes for 30 days."""
    owner, public = client_of("participant"), Ed25519PrivateKey.generate().public_key().public_bytes_raw()
    body = {"device_id": "ct-scanner-3", "platform": "linux", "public_key": b64encode(public).decode()}

    first, second = (http.post(REGISTER, json=body, headers=bearer(owner.api_key)) for _ in "ab")

    told = first.get_json()
    assert (first.status_code, second.status_code) == (201, 201)
    assert set(told) == {"client_id", "registration_token", "expires_at"}
    assert told["expires_at"] == "2026-12-24T12:00:00Z"
    assert told["client_id"] not in (owner.client_id, second.get_json()["client_id"])
    record = client_record(services, told["client_id"])
    assert (record.name, record.platform, record.role) == ("ct-scanner-3", "linux", "participant")
    assert record.subject_id != owner.subject_id
    assert public_key_of(services, told["client_id"]) == body["public_key"]
    assert http.get(CLIENTS, headers=bearer(told["registration_token"])).status_code == 403
    entry = entries("client.registered")[0]
    assert entry["actor"]["client_id"] == owner.client_id
    assert entry["details"]["client_id"] == told["client_id"]


@pytest.mark.parametrize("role", ["participant", "edge", "operator"])
def test_an_api_key_opens_nothing_but_registration(http: FlaskClient, client_of: ClientOf, role: str) -> None:
    """The phase-2 flow: scope `client:register` alone, 100 requests a minute."""
    key = bearer(client_of(role).api_key)

    answers = [http.get(path, headers=key) for path in (CLIENTS, "/api/v1/rounds", "/api/v1/models")]
    registered = http.post(REGISTER, json={}, headers=key)

    assert [answer.status_code for answer in answers] == [403] * 3
    assert [answer.get_json()["code"] for answer in answers] == ["INSUFFICIENT_SCOPE"] * 3
    assert registered.status_code == 201
    assert registered.headers["X-RateLimit-Limit"] == "100"
    assert registered.headers["X-RateLimit-Remaining"] == "99"


def test_a_new_api_key_ends_the_old_one(
    http: FlaskClient, services: Services, client_of: ClientOf, entries: Entries
) -> None:
    """At the commit, also where the old one is remembered; its entry holds neither of them."""
    new = client_of("participant")
    assert http.post(REGISTER, json={}, headers=bearer(new.api_key)).status_code == 201

    key = rotate_api_key(services, new.client_id)

    assert http.post(REGISTER, json={}, headers=bearer(new.api_key)).status_code == 401
    assert http.post(REGISTER, json={}, headers=bearer(key)).status_code == 201
    (entry,) = entries("client.changed")
    assert entry["details"]["changed"] == ["api_key"]
    assert key not in str(entry)


def test_who_registers_no_devices_has_no_api_key_to_rotate(services: Services, client_of: ClientOf) -> None:
    """Nor does a client that was revoked."""
    auditor, revoked = client_of("auditor"), client_of("edge")
    move_client(services, revoked.client_id, Move.REVOKE)

    for client_id in (auditor.client_id, revoked.client_id):
        with pytest.raises(Conflict):
            rotate_api_key(services, client_id)


def test_the_published_typescript_client_registers_unmodified(http: FlaskClient, client_of: ClientOf) -> None:
    """DESIGN, HTTP: camelCase with X-WIA-Platform, a bare API key, members we do not know."""
    answer = http.post(
        REGISTER,
        json={"deviceId": "d-1", "platform": "ios", "capabilities": {"cpu": 8}, "sdkVersion": "1.2"},
        headers=bearer(client_of("participant").api_key) | {"X-WIA-Platform": "ios"},
    )

    assert answer.status_code == 201
    assert set(answer.get_json()) == {"clientId", "registrationToken", "expiresAt"}
    assert answer.headers["X-RateLimit-Limit"] == "100"


@pytest.mark.parametrize(
    ("body", "pointer"),
    [
        ({"public_key": "AAAA"}, "/public_key"),
        ({"public_key": "!" * 44}, "/public_key"),
        ({"public_key": b64encode(bytes(32)).decode()}, "/public_key"),
        ({"device_id": 7}, "/device_id"),
        ({"name": ""}, "/name"),
        ({"platform": "x" * 201}, "/platform"),
    ],
)
def test_a_bad_member_is_named_and_leaves_nothing_behind(
    http: FlaskClient, services: Services, client_of: ClientOf, body: dict, pointer: str
) -> None:
    """Promise 7."""
    owner = client_of("participant")

    answer = http.post(REGISTER, json=body, headers=bearer(owner.api_key))

    problem = answer.get_json()
    assert (answer.status_code, problem["code"]) == (422, "VALIDATION_FAILED")
    assert [error["pointer"].replace("deviceId", "device_id") for error in problem["errors"]] == [pointer]
    assert count(services) == 1


def test_the_same_registration_twice_is_one_client(
    http: FlaskClient, services: Services, client_of: ClientOf
) -> None:
    """API.md, Common: Idempotency-Key; another body with the same key is refused."""
    headers = bearer(client_of("participant").api_key) | {"Idempotency-Key": "once"}

    first, again = (http.post(REGISTER, json={"name": "a"}, headers=headers) for _ in "ab")
    other = http.post(REGISTER, json={"name": "b"}, headers=headers)

    assert (first.status_code, again.status_code) == (201, 201)
    assert again.get_json() == first.get_json()
    assert (other.status_code, other.get_json()["code"]) == (422, "IDEMPOTENCY_KEY_REUSED")
    assert count(services) == 2


def test_the_same_registration_twice_at_once_is_one_client(
    app: Flask, services: Services, client_of: ClientOf
) -> None:
    """A retry that overtakes its first try: both get the one answer."""
    headers = bearer(client_of("participant").api_key) | {"Idempotency-Key": "once"}
    start, answers = threading.Barrier(4), []

    def register() -> None:
        start.wait()
        answers.append(app.test_client().post(REGISTER, json={"name": "a"}, headers=headers))

    threads = [threading.Thread(target=register) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

    assert {answer.status_code for answer in answers} == {201}
    assert len({answer.get_json()["client_id"] for answer in answers}) == 1
    assert count(services) == 2


def test_operators_see_the_clients_page_by_page(
    http: FlaskClient, client_of: ClientOf, token_for: Callable[..., str]
) -> None:
    """API.md, Common: page, per_page, links; no secret and no hash among the members."""
    for role in ("participant", "auditor"):
        client_of(role)
    headers = bearer(token_for("operator"))

    page = http.get(CLIENTS, query_string={"per_page": 2, "page": 2}, headers=headers).get_json()

    assert page["pagination"] == {"page": 2, "per_page": 2, "total_pages": 2, "total_items": 3}
    assert len(page["data"]) == 1
    assert set(page["data"][0]) == {
        "client_id",
        "subject_id",
        "name",
        "role",
        "status",
        "auth_method",
        "token_format",
        "redirect_uris",
        "platform",
        "registered_at",
        "last_seen_at",
    }


def test_an_operator_ends_a_client(
    http: FlaskClient, client_of: ClientOf, token_for: Callable[..., str], entries: Entries
) -> None:
    """DELETE revokes, again too; the record stays, and there is one entry."""
    doomed, headers = client_of("participant"), bearer(token_for("operator"))
    url = f"{CLIENTS}/{doomed.client_id}"

    answers = [http.delete(url, headers=headers) for _ in "ab"]

    assert [answer.status_code for answer in answers] == [204, 204]
    assert http.get(url, headers=headers).get_json()["status"] == "revoked"
    (entry,) = entries("client.revoked")
    assert entry["actor"]["role"] == "operator"
    assert entry["details"]["client_id"] == doomed.client_id


@pytest.mark.parametrize(
    "client_id",
    ["3f0c8b7e-2d1a-4c55-9b1e-5a7d20c4e9f1", "hospital-a", "0" * 36, "3F0C8B7E-2D1A-4C55-9B1E-5A7D20C4E9F1"],
)
def test_a_client_that_is_not_there_is_not_found(
    http: FlaskClient, token_for: Callable[..., str], client_id: str
) -> None:
    """Whatever is in the path."""
    headers = bearer(token_for("operator"))

    assert http.get(f"{CLIENTS}/{client_id}", headers=headers).status_code == 404
    assert http.delete(f"{CLIENTS}/{client_id}", headers=headers).status_code == 404


def test_a_name_that_several_have_names_none_of_them(services: Services) -> None:
    """The command asks for the id instead of guessing."""
    for _ in "ab":
        add_client(services, "twin", Role.PARTICIPANT)

    with pytest.raises(Conflict):
        client_id_of(services, "twin")
    with pytest.raises(NotFound):
        client_id_of(services, "nobody")


def test_a_registration_that_fails_leaves_no_row(services: Services, entries: Entries) -> None:
    """Promise 1: subject, client, token and entry commit together or not at all."""
    registration = new_registration(services, Device(name="a"))

    def fail(_conn: object) -> None:
        raise SubjectErasing(("x",))

    with pytest.raises(SubjectErasing):
        register_client(services, registration, beside=fail)

    assert count(services) == 0
    assert entries() == []
    with services.engine.connect() as conn:
        assert state_of(conn, registration.subject_id) is None


def test_an_erased_client_is_listed_without_its_name(services: Services) -> None:
    """Promise 5: with the keys destroyed the sealed columns open no more, and the list still works."""
    new = add_client(services, "canary", Role.PARTICIPANT)
    services.keystore.forbid(new.subject_id)
    services.keystore.destroy([row.key_id for row in services.keystore.keys_of(new.subject_id)])

    assert client_record(services, new.client_id).name is None
    with pytest.raises(SubjectErased):
        services.keystore.key_for(new.subject_id, "participation", services.clock())
