"""The grants: what a client must show to get a token (RFC 6749, section 4)."""

from __future__ import annotations

from gateway.auth.grants.client_credentials import ClientCredentials
from gateway.auth.grants.code import AuthorizationCode, S256Challenge
from gateway.auth.grants.refresh import RefreshToken

__all__ = ["AuthorizationCode", "ClientCredentials", "RefreshToken", "S256Challenge"]
