"""The authorization server: client credentials (RFC 6749), revocation (RFC 7009), introspection (RFC 7662).

Authlib is the frame; who the client is, what a token is and what an error says is decided here.
"""

from __future__ import annotations

from collections import defaultdict
from datetime import timedelta
from typing import Any

from authlib.integrations.flask_oauth2 import AuthorizationServer
from authlib.oauth2 import OAuth2Error
from authlib.oauth2.rfc6749 import ClientCredentialsGrant, OAuth2Payload, OAuth2Request
from authlib.oauth2.rfc6749.errors import (
    InvalidGrantError,
    InvalidRequestError,
    UnsupportedGrantTypeError,
)
from authlib.oauth2.rfc6750 import BearerTokenGenerator
from authlib.oauth2.rfc7009 import RevocationEndpoint
from authlib.oauth2.rfc7662 import IntrospectionEndpoint
from flask import Request, Response, g, request

from audit.events import EventType
from compliance.errors import SubjectErased, SubjectErasing
from gateway.auth.admission import LONGEST_TOKEN_BYTES
from gateway.auth.credentials import METHODS, ClientRefused, OAuthClient, authenticate
from gateway.auth.refusals import record
from gateway.auth.scopes import Role, scope_text
from gateway.auth.secrets import SecretKind, new_secret
from gateway.auth.tokens import BearerToken, TokenKind, delete_token, find, insert_token
from gateway.auth.transport import check_transport
from gateway.services import current_services

_FORM = "application/x-www-form-urlencoded"
_SECRETS = ("client_secret", "client_id", "token")


class GrantUnknown(OAuth2Error):  # type: ignore[misc]
    """A grant that is not offered; the answer does not repeat what was asked for."""

    error = "unsupported_grant_type"
    description = "This server offers grant_type=client_credentials"


class KeyIsNoToken(OAuth2Error):  # type: ignore[misc]
    """An API key cannot be revoked by itself (RFC 7009, section 2.2.1)."""

    error = "unsupported_token_type"
    description = "An API key ends with its client: ask an operator to revoke the client"


class FormPayload(OAuth2Payload):  # type: ignore[misc]
    """The parameters of the form alone: what stands in the URL is in every access log."""

    def __init__(self, source: Request) -> None:
        self._source = source

    @property
    def data(self) -> Any:
        """The parameters."""
        return self._source.form

    @property
    def datalist(self) -> defaultdict[str, list[str]]:
        """The parameters with all their values."""
        return defaultdict(list, {name: list(values) for name, values in self._source.form.lists()})


class FormRequest(OAuth2Request):  # type: ignore[misc]
    """A request with form parameters, each given once (RFC 6749, section 3.2)."""

    def __init__(self, source: Request) -> None:
        check_transport()  # our rule, since Authlib's goes by the URL that is left behind nginx
        super().__init__(source.method, f"https://gateway{source.path}", headers=source.headers)
        if source.mimetype != _FORM:
            raise InvalidRequestError(f"Send the parameters as {_FORM}")
        if any(name in source.args for name in _SECRETS):
            raise InvalidRequestError("Send the parameters in the form, never in the URL")
        self._source = source
        self.payload = FormPayload(source)
        if any(len(values) > 1 for values in self.payload.datalist.values()):
            raise InvalidRequestError("A parameter is given twice")

    @property
    def form(self) -> Any:
        """The parameters."""
        return self._source.form

    @property
    def args(self) -> Any:
        """The URL's parameters."""
        return self._source.args


class ClientCredentials(ClientCredentialsGrant):  # type: ignore[misc]
    """The client credentials grant; unlike Authlib's it writes no token into the debug log."""

    TOKEN_ENDPOINT_AUTH_METHODS = METHODS

    def create_token_response(self) -> tuple[int, dict[str, Any], list[tuple[str, str]]]:
        """Issue a token."""
        token = self.generate_token(scope=self.request.payload.scope, include_refresh_token=False)
        self.save_token(token)
        return 200, token, self.TOKEN_RESPONSE_HEADER


class Revocation(RevocationEndpoint):  # type: ignore[misc]
    """A client ends a token of its own before its time."""

    CLIENT_AUTH_METHODS = METHODS

    def authenticate_token(self, request: FormRequest, client: OAuthClient) -> BearerToken | None:
        """The token to end, or None if it has ended already."""
        token = _shown_token(request)
        if token is None:
            return None
        if token.client.client_id != client.client_id:
            raise InvalidGrantError("The token was issued to another client")
        if token.kind is TokenKind.API_KEY:
            raise KeyIsNoToken
        return token

    def revoke_token(self, token: BearerToken, request: FormRequest) -> None:
        """Delete the token and stage the entry, in one transaction."""
        services = current_services()
        entry = services.trail.draft(
            EventType.TOKEN_REVOKED, resource="tokens", details={"scope": _scope_of(token)}
        )
        with services.engine.begin() as conn:
            if delete_token(conn, request.form["token"]):
                services.trail.write(conn, entry)


class Introspection(IntrospectionEndpoint):  # type: ignore[misc]
    """A client asks about a token of its own, an operator about any."""

    CLIENT_AUTH_METHODS = METHODS

    def authenticate_token(self, request: FormRequest, client: OAuthClient) -> BearerToken | None:
        """The token, if this client may know of it."""
        token = _shown_token(request)
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
            "token_type": "Bearer",
            "client_id": token.client.client_id,
            "sub": token.client.client_id,
            "scope": _scope_of(token),
            **{name: int(at.timestamp()) for name, at in times.items() if at is not None},
        }


class TokenServer(AuthorizationServer):  # type: ignore[misc]
    """Authlib's server on our tables, with our client authentication and our record of refusals."""

    def create_oauth2_request(self, request: Request | None) -> FormRequest:
        """The current request, checked for its form."""
        return FormRequest(_current() if request is None else request)

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

    def save_token(self, token: dict[str, Any], request: FormRequest) -> None:
        """Store the token and stage its entry, in one transaction."""
        services, client = current_services(), request.client
        ttl = timedelta(seconds=token["expires_in"])
        try:
            entry = services.trail.draft(
                EventType.TOKEN_ISSUED,
                resource="tokens",
                details={
                    "scope": token["scope"],
                    "auth": request.auth_method,
                    "lifetime_s": token["expires_in"],
                },
            )
            with services.engine.begin() as conn:
                insert_token(
                    conn,
                    token["access_token"],
                    client_id=client.client_id,
                    scopes=tuple(token["scope"].split()),
                    kind=TokenKind.ACCESS,
                    now=services.clock(),
                    ttl=ttl,
                )
                services.trail.write(conn, entry)
        except (SubjectErased, SubjectErasing) as error:
            raise ClientRefused from error

    def handle_error_response(self, request: FormRequest | None, error: OAuth2Error) -> Response:
        """The error as RFC 6749 says it, and its entry."""
        record_oauth_refusal(error.error.upper(), error.status_code)
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


def _shown_token(oauth_request: FormRequest) -> BearerToken | None:
    text: str | None = oauth_request.form.get("token")
    if not text:
        raise InvalidRequestError("The parameter token is missing")
    return find(current_services(), text) if len(text) <= LONGEST_TOKEN_BYTES else None


def _scope_of(token: BearerToken) -> str:
    return scope_text(sorted(token.client.scopes))


def _new_access_token(**_about: Any) -> str:
    return new_secret(SecretKind.ACCESS_TOKEN)


def _lifetime_s(_client: OAuthClient, _grant_type: str) -> int:
    return current_services().config.token_ttl_s


def _make_server() -> TokenServer:
    made = TokenServer()
    made.register_token_generator("default", BearerTokenGenerator(_new_access_token, None, _lifetime_s))
    made.register_grant(ClientCredentials)
    made.register_endpoint(Revocation)
    made.register_endpoint(Introspection)
    return made


server = _make_server()
