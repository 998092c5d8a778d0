"""The door of every route: who sent the request, may they do this, and how often; before any body is read.

RFC 6750 on Authlib's frame (`ResourceProtector`), with a judge of our own and the gateway's own answers.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from functools import wraps
from typing import Any, TypeVar

from authlib.integrations.flask_oauth2 import ResourceProtector
from authlib.oauth2.rfc6750 import BearerTokenValidator
from flask import Flask, g, request

from gateway.auth.origin import proven
from gateway.auth.rate_limits import install_rate_limits, spend
from gateway.auth.refusals import install_refusals
from gateway.auth.scopes import scope_text
from gateway.auth.tokens import AuthenticatedClient, BearerToken, find, mark_seen
from gateway.auth.transport import check_transport
from gateway.errors import BadRequest, InsufficientScope, Unauthorized
from gateway.services import Services, current_services

View = TypeVar("View", bound=Callable[..., Any])
LONGEST_TOKEN_BYTES = 4096
_TOKEN = re.compile(r"[A-Za-z0-9._~+/-]+=*")  # b64token of RFC 6750, section 2.1


class MalformedAuthorization(BadRequest):
    """Two credentials, or a header that is none (RFC 6750: invalid_request)."""

    code, title = "INVALID_REQUEST", "The request's credentials cannot be read"

    @property
    def headers(self) -> dict[str, str]:
        """The challenge (RFC 6750, section 3.1)."""
        return {"WWW-Authenticate": 'Bearer realm="fl-gateway", error="invalid_request"'}


class OpaqueTokenValidator(BearerTokenValidator):  # type: ignore[misc]
    """Finds a token in the table and judges it; refusals are the gateway's own errors."""

    def authenticate_token(self, token_string: str) -> BearerToken | None:
        """The stored token of that text, or None."""
        if len(token_string) > LONGEST_TOKEN_BYTES or not _TOKEN.fullmatch(token_string):
            return None
        return find(current_services(), token_string)

    def validate_token(
        self,
        token: BearerToken | None,
        scopes: Sequence[str] | None,
        request: object,  # noqa: ARG002 - Authlib's signature
    ) -> None:
        """Let a good token with any of the scopes pass.

        Raises:
            Unauthorized: it is unknown, expired or revoked, or its client is suspended or revoked.
            InsufficientScope: it is good, but for something else.
        """
        if token is None or not token.is_good(current_services().clock()):
            raise Unauthorized(
                "The token is unknown, expired or revoked: get a new one", error="invalid_token"
            )
        g.client = token.client
        g.origin = proven(token.client, g.origin)
        if scopes and token.client.scopes.isdisjoint(scopes):
            raise InsufficientScope(scope=scope_text(scopes))


class Door(ResourceProtector):  # type: ignore[misc]
    """Reads the credentials: one bearer token, in the Authorization header, and nowhere else."""

    def parse_request_authorization(self, request: Any) -> tuple[BearerTokenValidator, str]:
        """The validator and the token's text.

        Raises:
            Unauthorized: there are no bearer credentials; the challenge has no error code.
            MalformedAuthorization: there are two.
        """
        header = request.headers.get("Authorization", "")
        scheme, _, text = header.partition(" ")
        if not header or scheme.lower() != BearerTokenValidator.TOKEN_TYPE:
            raise Unauthorized("Send a token in the header: Authorization: Bearer TOKEN")
        if "," in header or _in_query():
            raise MalformedAuthorization("Send one token, in one Authorization header, and none in the URL")
        return self.get_token_validator(BearerTokenValidator.TOKEN_TYPE), text.strip()


require_oauth = Door()
require_oauth.register_token_validator(OpaqueTokenValidator())


def install_auth(app: Flask, services: Services) -> None:
    """Give the application its rate limits and its memory of refusals."""
    install_rate_limits(app, services)
    install_refusals(app, services)


def admit(scopes: Sequence[str], limit: str | None = None) -> None:
    """Let the request in, or raise; sets `g.client` and makes the proven client the actor of its entries.

    Args:
        scopes: a token with any of these may pass; empty: the route is open, no token is looked at.
        limit: the class of `FLG_RATE_LIMITS` that counts.

    Raises:
        Unauthorized: no good token.
        InsufficientScope: a good token without any of the scopes.
        RateLimited: too many requests of this client.
        MalformedAuthorization, InsecureTransport: the credentials came in a way that is not taken.
    """
    if not scopes:
        return
    token: BearerToken = _presented(scopes)
    if limit:
        spend(token.client, limit)
    mark_seen(current_services(), token)


def still_admitted(scopes: Sequence[str]) -> Callable[[], bool]:
    """A look that goes on when the request's view has ended: whether its token still is good for any of the scopes."""
    services, header = current_services(), request.headers.get("Authorization", "")
    text = header.partition(" ")[2].strip()

    def look() -> bool:
        token = find(services, text)
        return (
            token is not None
            and token.is_good(services.clock())
            and not token.client.scopes.isdisjoint(scopes)
        )

    return look


def require(*scopes: str, limit: str | None = None) -> Callable[[View], View]:
    """Decorate a view outside of the API document: it needs a token with any of the scopes."""

    def mark(view: View) -> View:
        @wraps(view)
        def guarded(*args: Any, **kwargs: Any) -> Any:
            admit(scopes, limit)
            return view(*args, **kwargs)

        return guarded  # type: ignore[return-value]

    return mark


def current_client() -> AuthenticatedClient:
    """The client that sent this request.

    Raises:
        Unauthorized: the route asked for no token.
    """
    client: AuthenticatedClient | None = g.get("client")
    if client is None:
        raise Unauthorized
    return client


def _presented(scopes: Sequence[str]) -> BearerToken:
    if request.headers.get("Authorization"):
        check_transport()
    token: BearerToken = require_oauth.acquire_token(list(scopes))
    return token


def _in_query() -> bool:
    return "access_token" in request.args
