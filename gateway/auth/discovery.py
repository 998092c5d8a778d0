"""What clients can find out by themselves: RFC 8414, RFC 9728, public keys; only what is really offered."""

from __future__ import annotations

import base64
from collections.abc import Iterable
from typing import Any

from flask import request

from compliance.keys import PublicKeyRow, SigningUse
from gateway.auth.credentials import METHODS
from gateway.auth.scopes import Scope
from gateway.config import Config


def base_url(config: Config) -> str:
    """The gateway's absolute URL, without a slash at its end: `FLG_PUBLIC_URL`, or where the request came."""
    if config.public_url:
        return config.public_url.rstrip("/")
    came_by_tls = config.trusted_proxy and request.headers.get("X-Forwarded-Proto") == "https"
    scheme = "https" if came_by_tls else request.scheme
    return f"{scheme}://{request.host}"


def issuer(config: Config) -> str:
    """Who issues the tokens and signs the receipts."""
    return config.issuer or base_url(config)


def authorization_server(config: Config) -> dict[str, Any]:
    """The authorization server's metadata (RFC 8414)."""
    base = base_url(config)
    return {
        "issuer": issuer(config),
        "token_endpoint": f"{base}/oauth/token",
        "token_endpoint_auth_methods_supported": list(METHODS),
        "revocation_endpoint": f"{base}/oauth/revoke",
        "revocation_endpoint_auth_methods_supported": list(METHODS),
        "introspection_endpoint": f"{base}/oauth/introspect",
        "introspection_endpoint_auth_methods_supported": list(METHODS),
        "jwks_uri": f"{base}/.well-known/jwks.json",
        "grant_types_supported": ["client_credentials"],
        "response_types_supported": [],
        "scopes_supported": [scope.value for scope in Scope],
    }


def protected_resource(config: Config) -> dict[str, Any]:
    """The API's metadata (RFC 9728)."""
    base = base_url(config)
    return {
        "resource": base,
        "authorization_servers": [issuer(config)],
        "bearer_methods_supported": ["header"],
        "scopes_supported": [scope.value for scope in Scope],
        "jwks_uri": f"{base}/.well-known/jwks.json",
    }


def key_set(keys: Iterable[PublicKeyRow]) -> dict[str, Any]:
    """The keys that check receipts and packages (RFC 7517, RFC 8037).

    The log's key is not among them: it signs notes, never a JWS, and has a form of its own (`keys/log.vkey`).
    """
    return {"keys": [_jwk(row) for row in keys if row.use is not SigningUse.LOG]}


def _jwk(row: PublicKeyRow) -> dict[str, str]:
    x = base64.urlsafe_b64encode(row.public).rstrip(b"=").decode()
    return {"kty": "OKP", "crv": "Ed25519", "x": x, "kid": row.kid, "use": "sig", "alg": "EdDSA"}
