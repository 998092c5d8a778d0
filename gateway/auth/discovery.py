"""What clients can find out by themselves: RFC 8414, RFC 9728, public keys; only what is really offered."""

from __future__ import annotations

import base64
from collections.abc import Iterable
from ipaddress import ip_address
from typing import Any
from urllib.parse import urlsplit

from compliance.keyring.keys import PublicKeyRow, SigningUse
from gateway.auth.jwk import ALGORITHMS
from gateway.auth.methods import binds_to_certificates, methods_offered
from gateway.auth.scopes import Scope
from gateway.config import Config
from gateway.errors import ConfigError

DOCUMENTATION = "https://github.com/fl-gateway/fl-gateway/tree/main/docs"


class IssuerUnsettled(ConfigError):
    """The gateway's name is wanted, in a JWT or an answer, and nobody has said what it is."""

    status, code = 421, "ISSUER_UNSETTLED"  # RFC 9110, section 15.5.20: anybody may choose the Host header
    title = "The gateway is not known by this name"

    def __init__(self) -> None:
        super().__init__(
            "Its operator sets FLG_PUBLIC_URL or FLG_ISSUER: tokens and answers say who gives them"
        )


def base_url(config: Config) -> str:
    """The gateway's absolute URL, without a slash at its end: `FLG_PUBLIC_URL`, or where the request came."""
    if config.public_url:
        return config.public_url.rstrip("/")
    from gateway.auth.peer import asked_url  # commands know issuers too, and need no web framework

    return asked_url()


def issuer(config: Config) -> str:
    """Who issues the tokens and signs the receipts."""
    return config.issuer or base_url(config)


def fixed_issuer(config: Config) -> str:
    """The issuer that the settings name; empty if they name none."""
    return config.issuer or config.public_url.rstrip("/")


def settled_issuer(config: Config) -> str:
    """The issuer as the operator has set it; the request's host only where it is this very machine.

    Anybody may choose the Host header: what is signed or checked against it must not follow it.

    Raises:
        IssuerUnsettled: neither `FLG_ISSUER` nor `FLG_PUBLIC_URL` is set, and the request came by another name.
    """
    settled = fixed_issuer(config) or base_url(config)
    if not is_own_issuer(config, settled):
        raise IssuerUnsettled
    return settled


def _settled_base(config: Config) -> str:
    """The URL that endpoints are told under: clients send secrets there, so that it follows no Host of a stranger's.

    Raises:
        IssuerUnsettled: `FLG_PUBLIC_URL` is not set, and the request's host is neither the issuer's nor this machine.
    """
    base, issuer_host = base_url(config), urlsplit(config.issuer).netloc
    if not (config.public_url or _is_here(base) or urlsplit(base).netloc == issuer_host):
        raise IssuerUnsettled
    return base


def is_own_issuer(config: Config, issuer: str) -> bool:
    """Whether own JWTs may name this issuer; where none is settled, each name of this very machine counts."""
    settled = fixed_issuer(config)
    return issuer == settled if settled else _is_here(issuer)


def authorization_server(config: Config) -> dict[str, Any]:
    """The authorization server's metadata (RFC 8414, section 2; RFC 8705, section 3.3; RFC 9207, section 3).

    Raises:
        IssuerUnsettled: nobody has said who issues the tokens, and the request came by a name that anybody may choose.
    """
    base = _settled_base(config)
    return {
        "issuer": settled_issuer(config),
        "authorization_endpoint": f"{base}/oauth/authorize",
        "token_endpoint": f"{base}/oauth/token",
        **_proofs("token_endpoint", config),
        "revocation_endpoint": f"{base}/oauth/revoke",
        **_proofs("revocation_endpoint", config),
        "introspection_endpoint": f"{base}/oauth/introspect",
        **_proofs("introspection_endpoint", config),
        "jwks_uri": f"{base}/.well-known/jwks.json",
        "scopes_supported": [scope.value for scope in Scope],
        "response_types_supported": ["code"],
        "response_modes_supported": ["query"],
        "grant_types_supported": ["client_credentials", "authorization_code", "refresh_token"],
        "code_challenge_methods_supported": ["S256"],
        "authorization_response_iss_parameter_supported": True,
        "tls_client_certificate_bound_access_tokens": binds_to_certificates(config),
        "service_documentation": DOCUMENTATION,
    }


def protected_resource(config: Config) -> dict[str, Any]:
    """The API's metadata (RFC 9728, section 2).

    Raises:
        IssuerUnsettled: as above.
    """
    from gateway.auth.issuers import outside_issuers  # it needs the tokens, which need this module

    base = _settled_base(config)
    return {
        "resource": base,
        "resource_name": "fl-gateway",
        "authorization_servers": [settled_issuer(config), *outside_issuers(config.trusted_issuers)],
        "bearer_methods_supported": ["header"],
        "scopes_supported": [scope.value for scope in Scope],
        "jwks_uri": f"{base}/.well-known/jwks.json",
        "tls_client_certificate_bound_access_tokens": binds_to_certificates(config),
        "resource_documentation": DOCUMENTATION,
    }


def is_path_of(identifier: str, path: str) -> bool:
    """Whether a well-known URI with this path behind it is that issuer's or resource's (RFC 8414, section 3.1)."""
    return urlsplit(identifier).path.strip("/") == path


def key_set(keys: Iterable[PublicKeyRow]) -> dict[str, Any]:
    """The keys that check receipts and packages (RFC 7517, RFC 8037).

    The log's key is not among them: it signs notes, never a JWS, and has a form of its own (`keys/log.vkey`).
    """
    return {"keys": [_jwk(row) for row in keys if row.use is not SigningUse.LOG]}


def _proofs(endpoint: str, config: Config) -> dict[str, list[str]]:
    """How a client may prove itself at an endpoint, and what it may sign an assertion with."""
    return {
        f"{endpoint}_auth_methods_supported": list(methods_offered(config)),
        f"{endpoint}_auth_signing_alg_values_supported": list(ALGORITHMS),
    }


def _is_here(url: str) -> bool:
    try:
        host = urlsplit(url).hostname or ""
        return host == "localhost" or ip_address(host).is_loopback
    except ValueError:
        return False


def _jwk(row: PublicKeyRow) -> dict[str, str]:
    x = base64.urlsafe_b64encode(row.public).rstrip(b"=").decode()
    return {"kty": "OKP", "crv": "Ed25519", "x": x, "kid": row.kid, "use": "sig", "alg": "EdDSA"}
