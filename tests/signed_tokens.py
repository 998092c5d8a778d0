"""Clients whose tokens are JWTs, and what such a token says."""

from __future__ import annotations

import base64
import json
from typing import Any

from flask.testing import FlaskClient
from sqlalchemy import update

from gateway.auth.clients import NewClient, add_client
from gateway.auth.scopes import Role
from gateway.services import Services
from gateway.tables import clients

CLIENTS = "/api/v1/clients"
GRANT = {"grant_type": "client_credentials"}
ISSUER = "https://fl.example.com"


def bearer(token: str) -> dict[str, str]:
    return {"Authorization": f"Bearer {token}"}


def signed_client(services: Services) -> NewClient:
    """An operator whose tokens are JWTs, as are those of every other client from now on."""
    new = add_client(services, "signed", Role.OPERATOR)
    with services.engine.begin() as conn:
        conn.execute(update(clients).values(token_format="jwt"))
    return new


def token_of(http: FlaskClient, client: NewClient) -> str:
    answer = http.post("/oauth/token", data=GRANT, auth=(client.client_id, client.client_secret))
    assert answer.status_code == 200, answer.text
    return str(answer.get_json()["access_token"])


def parts_of(token: str) -> tuple[dict[str, Any], dict[str, Any]]:
    header, claims, _ = token.split(".")
    return _decoded(header), _decoded(claims)


def _decoded(part: str) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(base64.urlsafe_b64decode(part + "=" * (-len(part) % 4)))
    return found
