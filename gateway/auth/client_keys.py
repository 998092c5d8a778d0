"""The two keys of a client that are no proof for a token: the one that signs its updates, and its API key.

Whoever holds a stolen token cannot put another signing key in the place of a registered one: the old key signs the
change. Decision 0140.
"""

from __future__ import annotations

import base64
import binascii
from hashlib import sha256
from typing import Any

from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey
from sqlalchemy import Connection, Row, select, update

from audit.draft import Personal
from audit.entry import Draft
from audit.events import EventType, Retention
from gateway.auth.jwk import proves_nothing
from gateway.auth.roster import ClientStatus, find_row
from gateway.auth.scopes import API_KEY_ROLES, Role
from gateway.auth.secrets import SecretKind, digest, new_secret
from gateway.auth.tokens import AuthenticatedClient
from gateway.errors import Conflict, NotFound, SignatureInvalid, ValidationFailed
from gateway.services import Services
from gateway.storage.ended import note_ended
from gateway.tables import clients


def checked_public_key(text: str) -> str:
    """The Ed25519 key in canonical base64.

    Raises:
        ValidationFailed: it is no key.
    """
    try:
        raw = base64.b64decode(text, validate=True)
        Ed25519PublicKey.from_public_bytes(raw)
    except (binascii.Error, ValueError, UnsupportedAlgorithm):
        raise _refused("must be a raw Ed25519 key, 32 bytes in base64") from None
    if proves_nothing(raw):
        raise _refused("is of small order, so that its signatures prove nothing: generate another one")
    return base64.b64encode(raw).decode()


def _refused(why: str) -> ValidationFailed:
    return ValidationFailed([{"pointer": "/public_key", "detail": why}])


def check_signature(public_key: str, body_digest: bytes, signature: str | None) -> None:
    """Check `X-Client-Signature`: the Ed25519 signature of a body's SHA-256, in base64.

    Raises:
        SignatureInvalid: it is missing or wrong.
    """
    try:
        Ed25519PublicKey.from_public_bytes(base64.b64decode(public_key)).verify(
            base64.b64decode(signature or "", validate=True), body_digest
        )
    except (InvalidSignature, ValueError):
        raise SignatureInvalid(
            "X-Client-Signature must be the base64 Ed25519 signature of the body's 32-byte SHA-256"
        ) from None


def set_public_key(
    services: Services, client: AuthenticatedClient, wished: str, *, body: bytes, signature: str | None
) -> None:
    """Register the key that must sign the client's updates from the commit on, or put it in the place of the old one.

    Args:
        services: the stores.
        client: whose key it is.
        wished: the new key.
        body: the request as sent.
        signature: the old key's signature of the body's SHA-256; nothing where there is no old key.

    Raises:
        ValidationFailed: it is no key.
        SignatureInvalid: the old key did not sign this.
        Conflict: the key became another, or the client was revoked, at this very moment; or the token is a person's.
    """
    public_key, found = checked_public_key(wished), find_row(services, client.client_id)
    if found.subject_id != client.subject_id:
        raise Conflict("This token acts for a person: a client registers its key with a token of its own")
    if found.public_key is not None:
        old = services.sealer.open_column(found.public_key, "clients", "public_key", client.client_id)
        check_signature(str(old), sha256(body).digest(), signature)
    sealed = services.sealer.seal_column(
        found.subject_id,
        Retention.PARTICIPATION,
        "clients",
        "public_key",
        client.client_id,
        public_key,
        services.clock(),
    )
    entry = _entry(services, found, "public_key")
    with services.engine.begin() as conn:
        if _locked(conn, client.client_id).public_key != found.public_key:
            raise Conflict("The key has just become another: sign with that one")
        _change(conn, client.client_id, "public_key", sealed)
        services.trail.write(conn, entry)


def rotate_api_key(services: Services, client_id: str) -> str:
    """Give a client a new API key, which is shown this once; the old one ends at the commit.

    Raises:
        NotFound: there is no such client.
        Conflict: its role registers no devices, or it was revoked.
    """
    found = find_row(services, client_id)
    if Role(found.role) not in API_KEY_ROLES or not found.api_key_hash:
        raise Conflict("This client has no API key: it registers no devices")
    api_key = new_secret(SecretKind.API_KEY)
    entry = _entry(services, found, "api_key")
    with services.engine.begin() as conn:
        note_ended(conn, [_locked(conn, client_id).api_key_hash])  # whoever remembers the old one looks again
        _change(conn, client_id, "api_key_hash", digest(api_key))
        services.trail.write(conn, entry)
    return api_key


def _entry(services: Services, found: Row[Any], changed: str) -> Draft:
    return services.trail.draft(
        EventType.CLIENT_CHANGED,
        resource="clients",
        details={
            "client_id": Personal(found.subject_id, found.client_id),
            "role": found.role,
            "changed": [changed],
        },
    )


def _locked(conn: Connection, client_id: str) -> Any:
    """The client's row, which nobody else changes until the commit."""
    chosen = select(clients).where(clients.c.client_id == client_id)
    row = conn.execute(chosen.with_for_update()).one_or_none()
    if row is None:
        raise NotFound("There is no such client")
    if row.status == ClientStatus.REVOKED:
        raise Conflict("A client that is revoked cannot be changed: add a new one")
    return row


def _change(conn: Connection, client_id: str, column: str, value: object) -> None:
    conn.execute(update(clients).where(clients.c.client_id == client_id).values({column: value}))
