"""Access tokens as they are made: opaque, or signed (RFC 9068) for clients configured so; and how many may live."""

from __future__ import annotations

import base64
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Any, Protocol
from uuid import uuid4

from sqlalchemy import Connection, insert

from gateway.auth.discovery import settled_issuer
from gateway.auth.scopes import scope_text
from gateway.auth.secrets import SecretKind, digest, new_secret
from gateway.auth.tokens import (
    JWT_TYPE,
    TokenKind,
    end_family,
    end_tokens_of_client,
    end_tokens_of_user,
    hash_of_jwt,
    keep_cap,
    token_key,
)
from gateway.services import Services
from gateway.tables import tokens

__all__ = [
    "AccessToken",
    "end_family",
    "end_tokens_of_client",
    "end_tokens_of_user",
    "new_access_token",
    "store_access_token",
]

_SIGNED = "jwt"


class Holder(Protocol):
    """The client that gets a token."""

    @property
    def client_id(self) -> str:
        """Its id."""

    @property
    def token_format(self) -> str:
        """`opaque` or `jwt`."""


class Somebody(Protocol):
    """The person for whom it gets one."""

    @property
    def user_id(self) -> str:
        """Its id."""


@dataclass(frozen=True, slots=True)
class AccessToken:
    """A token that is made and not stored yet.

    Args:
        thumbprint: x5t#S256 of the certificate that it is bound to (RFC 8705).
    """

    text: str = field(repr=False)
    scopes: tuple[str, ...]
    ttl_s: int
    is_jwt: bool
    thumbprint: str | None
    issued_at: datetime


def new_access_token(
    services: Services,
    client: Holder,
    scopes: Sequence[str],
    *,
    user: Somebody | None = None,
    thumbprint: str | None = None,
) -> AccessToken:
    """Make a token for a client, for itself or for a person; nothing is stored.

    Raises:
        IssuerUnsettled: it is to be a JWT, and no setting names its issuer.
    """
    is_jwt, now = client.token_format == _SIGNED, services.clock()
    ttl_s = services.config.token_ttl_s
    if not is_jwt:
        text = new_secret(SecretKind.ACCESS_TOKEN)
        return AccessToken(text, tuple(scopes), ttl_s, is_jwt, thumbprint, now)
    issuer, whole = settled_issuer(services.config), now.replace(microsecond=0)
    claims: dict[str, Any] = {
        "iss": issuer,
        "aud": issuer,
        "sub": user.user_id if user else client.client_id,
        "client_id": client.client_id,
        "iat": int(whole.timestamp()),
        "exp": int(whole.timestamp()) + ttl_s,
        "jti": str(uuid4()),
        "scope": scope_text(scopes),
    }
    if thumbprint is not None:
        claims["cnf"] = {"x5t#S256": thumbprint}
    return AccessToken(_signed(services, claims), tuple(scopes), ttl_s, is_jwt, thumbprint, whole)


def store_access_token(
    conn: Connection,
    services: Services,
    token: AccessToken,
    *,
    client_id: str,
    user_id: str | None = None,
    family_id: str | None = None,
) -> None:
    """Store a token, in the transaction that also stages its entry; the oldest beyond the cap ends (decision 0126)."""
    token_hash = hash_of_jwt(token.text) if token.is_jwt else digest(token.text)
    conn.execute(
        insert(tokens).values(
            token_hash=token_hash,
            client_id=client_id,
            scope=scope_text(token.scopes),
            kind=TokenKind.ACCESS.value,
            issued_at=token.issued_at,
            expires_at=token.issued_at + timedelta(seconds=token.ttl_s),
            user_id=user_id,
            family_id=family_id,
            thumbprint=token.thumbprint,
            is_jwt=token.is_jwt or None,
        )
    )
    keep_cap(conn, token_hash, client_id, user_id, services.config.tokens_per_client)


def _signed(services: Services, claims: Mapping[str, Any]) -> str:
    """The claims as a compact JWS with the key that signs tokens now."""
    key = token_key(services)
    header = {"alg": "EdDSA", "typ": JWT_TYPE, "kid": key.kid}
    signed = f"{_part(header)}.{_part(claims)}"
    return f"{signed}.{_base64url(key.private.sign(signed.encode()))}"


def _part(members: Mapping[str, Any]) -> str:
    return _base64url(json.dumps(members, separators=(",", ":")).encode())


def _base64url(data: bytes) -> str:
    return base64.urlsafe_b64encode(data).rstrip(b"=").decode()
