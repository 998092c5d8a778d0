"""The authorization server: which grants and endpoints there are, and how it refuses (RFC 6749, section 5.2).

Authlib is the frame; who the client is, what a token is and what an error says is decided here.
"""

from __future__ import annotations

from typing import Any

from authlib.integrations.flask_oauth2 import AuthorizationServer
from authlib.oauth2 import OAuth2Error
from authlib.oauth2.rfc6749.errors import InvalidRequestError, UnsupportedGrantTypeError
from flask import Request, Response, g, request

from audit.events import EventType
from gateway.auth.endpoints import Introspection, Revocation
from gateway.auth.forms import FormRequest, PageRequest
from gateway.auth.grants import AuthorizationCode, ClientCredentials, RefreshToken, S256Challenge
from gateway.auth.proof import OAuthClient, authenticate, find_client
from gateway.auth.refusals import record
from gateway.auth.roster import ClientStatus
from gateway.services import current_services

_PAGES = ("authorization.ask", "authorization.answer")


class GrantUnknown(OAuth2Error):  # type: ignore[misc]
    """A grant that is not offered; the answer does not repeat what was asked for."""

    error = "unsupported_grant_type"
    description = "This server offers client_credentials, authorization_code and refresh_token"


class TokenServer(AuthorizationServer):  # type: ignore[misc]
    """Authlib's server on our tables, with our client authentication and our record of refusals."""

    def create_oauth2_request(self, request: Request | None) -> FormRequest | PageRequest:
        """The current request, checked for its form."""
        source = _current() if request is None else request
        return PageRequest(source) if source.endpoint in _PAGES else FormRequest(source)

    def query_client(self, client_id: str) -> OAuthClient | None:
        """The client, without a proof, that asks a person: one that may come in and act for people."""
        g.claimed_client_id = client_id
        client = find_client(current_services(), client_id)
        if client is None or client.status is not ClientStatus.ACTIVE or not client.redirect_uris:
            return None
        return client

    def get_authorization_grant(self, request: PageRequest) -> AuthorizationCode:
        """The only one there is; it refuses other response types once the redirect URI is to be trusted."""
        return AuthorizationCode(request, self)

    def authenticate_client(
        self, request: FormRequest, _methods: list[str], _endpoint: str = "token"
    ) -> OAuthClient:
        """The client, proven by its secret, at every endpoint in the same way."""
        return authenticate(request)

    def get_token_grant(self, request: FormRequest) -> Any:
        """The grant that was asked for."""
        if not request.payload.grant_type:
            raise InvalidRequestError("The parameter grant_type is missing")
        try:
            return super().get_token_grant(request)
        except UnsupportedGrantTypeError:
            raise GrantUnknown from None

    def handle_error_response(self, request: FormRequest | None, error: OAuth2Error) -> Response:
        """The error as RFC 6749 says it, and its entry."""
        record_oauth_refusal(getattr(error, "reason", error.error.upper()), error.status_code)
        response: Response = super().handle_error_response(request, error)
        return response


def record_oauth_refusal(reason: str, status: int) -> None:
    """Write the entry of a refusal at an endpoint of this server."""
    is_token = request.endpoint == "oauth.issue_token"
    record(
        EventType.TOKEN_REFUSED if is_token else EventType.ACCESS_REFUSED,
        reason,
        status,
        client_id=g.get("claimed_client_id", ""),
    )


def _current() -> Request:
    return request._get_current_object()  # type: ignore[attr-defined,no-any-return]


def _make_server() -> TokenServer:
    made = TokenServer()
    made.register_grant(ClientCredentials)
    made.register_grant(AuthorizationCode, [S256Challenge()])
    made.register_grant(RefreshToken)
    made.register_endpoint(Revocation)
    made.register_endpoint(Introspection)
    return made


server = _make_server()
