"""A client asks about a token of its own, an operator about any (RFC 7662)."""

from __future__ import annotations

from typing import Any

from authlib.oauth2.rfc7662 import IntrospectionEndpoint

from gateway.auth.endpoints.shown import scope_of, shown_token
from gateway.auth.forms import FormRequest
from gateway.auth.proof import METHODS, OAuthClient
from gateway.auth.scopes import Role
from gateway.auth.tokens import BearerToken, TokenKind
from gateway.services import current_services


class Introspection(IntrospectionEndpoint):  # type: ignore[misc]
    """A client asks about a token of its own, an operator about any."""

    CLIENT_AUTH_METHODS = METHODS

    def authenticate_token(self, request: FormRequest, client: OAuthClient) -> BearerToken | None:
        """The token, if this client may know of it."""
        token = shown_token(request)
        if token is None or (client.role is not Role.OPERATOR and token.client.client_id != client.client_id):
            return None
        return token

    def create_introspection_payload(self, token: BearerToken | None) -> dict[str, Any]:
        """What the token is; `active: false` alone for one that is not good, or not to be known of."""
        if token is None or not token.is_good(current_services().clock()):
            return {"active": False}
        times = {"iat": token.issued_at, "exp": token.expires_at}
        return {
            "active": True,
            **({} if token.kind is TokenKind.REFRESH else {"token_type": "Bearer"}),
            "client_id": token.client.client_id,
            "sub": token.client.user_id or token.client.client_id,
            "scope": scope_of(token),
            **{name: int(at.timestamp()) for name, at in times.items() if at is not None},
            **({"cnf": {"x5t#S256": token.thumbprint}} if token.thumbprint else {}),
        }
