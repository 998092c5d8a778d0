"""Changing what a client proves itself with ends what was issued on the old proof, and is an entry."""

from __future__ import annotations

from collections.abc import Callable
from datetime import timedelta
from typing import Any
from uuid import uuid4

import pytest
from flask.testing import FlaskClient
from proof_keys import jwk, key_set
from sqlalchemy import select, update

from audit.reading import reading
from gateway.auth.client_changes import ClientChange, NothingToChange, change_client
from gateway.auth.clients import Device, Move, add_client, move_client, new_registration, register_client
from gateway.auth.proof import find_client
from gateway.auth.roster import AuthMethod
from gateway.auth.scopes import Role, Scope
from gateway.auth.secrets import SecretKind, new_secret
from gateway.auth.tokens import TokenKind, insert_token
from gateway.errors import Conflict, NotFound
from gateway.services import Services
from gateway.tables import tokens

GRANT = {"grant_type": "client_credentials"}


def test_a_new_secret_ends_the_old_one_and_its_tokens(
    http: FlaskClient, services: Services, entries: Callable[..., Any]
) -> None:
    """From the commit on; the API key, which is another secret, stays; the entry names what was changed."""
    new = add_client(services, "an operator", Role.OPERATOR)
    auth = (new.client_id, new.client_secret)
    token = http.post("/oauth/token", data=GRANT, auth=auth).get_json()["access_token"]
    bearer = {"Authorization": f"Bearer {token}"}
    assert http.get("/api/v1/clients", headers=bearer).status_code == 200

    secret = change_client(services, new.client_id, ClientChange(rotates_secret=True))

    assert http.get("/api/v1/clients", headers=bearer).status_code == 401
    assert http.post("/oauth/token", data=GRANT, auth=auth).status_code == 401
    assert http.post("/oauth/token", data=GRANT, auth=(new.client_id, secret)).status_code == 200
    key = {"Authorization": f"Bearer {new.api_key}"}
    assert http.post("/api/v1/clients/register", json={}, headers=key).status_code == 201
    (entry,) = entries("client.changed")
    assert entry["details"] == {"client_id": new.client_id, "role": "operator", "changed": ["secret"]}
    assert entry["sealed"] == {"client_id"}


def test_new_keys_take_the_place_of_all_there_were(services: Services) -> None:
    """And what was not named stays as it is."""
    first, second = key_set(jwk("Ed25519", kid="a")), key_set(jwk("P-256", kid="b"))
    uris = ("https://tool.example/back",)
    new = add_client(
        services,
        "signing",
        Role.EDGE,
        auth=AuthMethod.PRIVATE_KEY_JWT,
        jwks=first,
        token_format="jwt",
        redirect_uris=uris,
    )

    assert change_client(services, new.client_id, ClientChange(jwks=second)) == ""

    found = find_client(services, new.client_id)
    assert found is not None
    assert (found.jwks, found.token_format, found.redirect_uris) == (second, "jwt", uris)


def test_other_redirect_uris_end_no_token(http: FlaskClient, services: Services) -> None:
    """They are no proof."""
    new = add_client(services, "an operator", Role.OPERATOR)
    answer = http.post("/oauth/token", data=GRANT, auth=(new.client_id, new.client_secret))
    bearer = {"Authorization": f"Bearer {answer.get_json()['access_token']}"}

    change_client(services, new.client_id, ClientChange(redirect_uris=["https://tool.example/back"]))

    assert http.get("/api/v1/clients", headers=bearer).status_code == 200


def test_who_acts_for_people_no_more_loses_what_it_has_of_them(services: Services) -> None:
    """Also the tokens, which would live on for their quarter of an hour; it gets one for itself with its own proof."""
    new = add_client(services, "a tool", Role.OPERATOR, redirect_uris=["https://tool.example/back"])
    token = new_secret(SecretKind.ACCESS_TOKEN)
    with services.engine.begin() as conn:
        insert_token(
            conn,
            token,
            client_id=new.client_id,
            scopes=(Scope.AUDIT_READ,),
            kind=TokenKind.ACCESS,
            now=services.clock(),
            ttl=timedelta(minutes=15),
        )
        conn.execute(update(tokens).values(user_id=str(uuid4())))

    change_client(services, new.client_id, ClientChange(redirect_uris=[]))

    with reading(services.engine) as conn:
        assert conn.execute(select(tokens)).all() == []


@pytest.mark.parametrize(
    ("change", "error"),
    [
        (ClientChange(), NothingToChange),
        (ClientChange(jwks=key_set(jwk("Ed25519"))), NothingToChange),
        (ClientChange(subject_dn="CN=a"), NothingToChange),
    ],
)
def test_a_client_changes_only_what_it_has(
    services: Services, entries: Callable[..., Any], change: ClientChange, error: type[Exception]
) -> None:
    """Another method is another client: its owner proves itself in a new way, and is looked at anew."""
    new = add_client(services, "by secret", Role.AUDITOR)

    with pytest.raises(error):
        change_client(services, new.client_id, change)

    assert entries("client.changed") == []


def test_who_is_gone_or_has_no_proof_cannot_be_changed(services: Services) -> None:
    """Unknown, revoked, registered by itself."""
    revoked = add_client(services, "revoked", Role.AUDITOR).client_id
    move_client(services, revoked, Move.REVOKE)
    device = new_registration(services, Device(name="a device"))
    register_client(services, device)
    rotation = ClientChange(rotates_secret=True)

    for client_id, error in ((revoked, Conflict), (device.client_id, Conflict), ("nobody", NotFound)):
        with pytest.raises(error):
            change_client(services, client_id, rotation)
