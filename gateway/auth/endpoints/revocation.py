"""A client ends a token of its own before its time (RFC 7009)."""

from __future__ import annotations

from authlib.oauth2 import OAuth2Error
from authlib.oauth2.rfc6749.errors import InvalidGrantError
from authlib.oauth2.rfc7009 import RevocationEndpoint
from sqlalchemy import Connection

from audit.events import EventType
from gateway.auth.endpoints.shown import scope_of, shown_token
from gateway.auth.forms import FormRequest
from gateway.auth.proof import METHODS, OAuthClient
from gateway.auth.tokens import BearerToken, TokenKind, end_family, end_token
from gateway.services import current_services


class KeyIsNoToken(OAuth2Error):  # type: ignore[misc]
    """An API key cannot be revoked by itself (RFC 7009, section 2.2.1)."""

    error = "unsupported_token_type"
    description = "An API key ends with its client: ask an operator to revoke the client"


class Revocation(RevocationEndpoint):  # type: ignore[misc]
    """A client ends a token of its own before its time."""

    CLIENT_AUTH_METHODS = METHODS

    def authenticate_token(self, request: FormRequest, client: OAuthClient) -> BearerToken | None:
        """The token to end, or None if it has ended already."""
        token = shown_token(request)
        if token is None:
            return None
        if token.client.client_id != client.client_id:
            raise InvalidGrantError("The token was issued to another client")
        if token.kind is TokenKind.API_KEY:
            raise KeyIsNoToken
        return token

    def revoke_token(self, token: BearerToken, request: FormRequest) -> None:  # noqa: ARG002 - Authlib's signature
        """End the token and stage the entry, in one transaction; a refresh token takes its family with it."""
        services = current_services()
        entry = services.trail.draft(
            EventType.TOKEN_REVOKED, resource="tokens", details={"scope": scope_of(token)}
        )
        with services.engine.begin() as conn:
            if _end(conn, token):
                services.trail.write(conn, entry)


def _end(conn: Connection, token: BearerToken) -> bool:
    if token.kind is TokenKind.REFRESH and token.family_id:
        return end_family(conn, token.family_id) > 0
    return end_token(conn, token)
