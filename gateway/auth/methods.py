"""The ways in which a client may prove itself, by their registered names (RFC 8414, RFC 7591, RFC 8705)."""

from __future__ import annotations

from gateway.auth.fronts import Fronts, parse_fronts
from gateway.config import Config

BASIC, POST, SIGNED = "client_secret_basic", "client_secret_post", "private_key_jwt"
METHODS = (BASIC, POST, SIGNED, "tls_client_auth", "self_signed_tls_client_auth")


def methods_offered(config: Config) -> tuple[str, ...]:
    """The methods that can succeed here: certificates come through a TLS front alone."""
    return METHODS if binds_to_certificates(config) else (BASIC, POST, SIGNED)


def binds_to_certificates(config: Config) -> bool:
    """Whether a client's certificate can be seen here, so that its tokens are bound to it (RFC 8705, section 3)."""
    return parse_fronts(config.trusted_proxy) != Fronts(False, ())
