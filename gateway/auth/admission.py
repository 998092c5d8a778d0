"""The door of every route: who sent the request, may they do this, and how often; before any body is read.

RFC 6750 on Authlib's frame (`ResourceProtector`), with a judge of our own and the gateway's own answers.
"""

from __future__ import annotations

import hmac
from collections.abc import Callable, Sequence
from io import BytesIO
from typing import Any

from authlib.integrations.flask_oauth2 import ResourceProtector
from authlib.oauth2.rfc6750 import BearerTokenValidator
from flask import Flask, g, request

from gateway.auth.credentials import are_several
from gateway.auth.issuers import IssuerAway, outside_issuers
from gateway.auth.origin import proven
from gateway.auth.peer import presented_certificate
from gateway.auth.people.admission import admit_person
from gateway.auth.rate_limits import install_rate_limits, spend
from gateway.auth.refusals import install_refusals
from gateway.auth.rules import Proof, Rule, install_rules, rule_in_force
from gateway.auth.scopes import Scope, sufficient
from gateway.auth.tokens import AuthenticatedClient, BearerToken, find, mark_seen
from gateway.auth.transport import check_transport
from gateway.errors import BadRequest, InsufficientScope, Unauthorized
from gateway.services import Services, current_services

_TOLD_ONCE = "Send one token, in one Authorization header, and none in the URL or in a form"
_FORM = "application/x-www-form-urlencoded"
_LONGEST_FORM_BYTES = 16_384


class MalformedAuthorization(BadRequest):
    """Two credentials, or a header that is none (RFC 6750: invalid_request)."""

    code, title = "INVALID_REQUEST", "The request's credentials cannot be read"
    is_about_credentials = True

    @property
    def headers(self) -> dict[str, str]:
        """The challenge (RFC 6750, section 3.1)."""
        return {"WWW-Authenticate": 'Bearer realm="fl-gateway", error="invalid_request"'}


class TokenJudge(BearerTokenValidator):  # type: ignore[misc]
    """Finds a token and judges it; refusals are the gateway's own errors."""

    def authenticate_token(self, token_string: str) -> BearerToken | None:
        """The token of that text, or None."""
        return find(current_services(), token_string)

    def validate_token(
        self,
        token: BearerToken | None,
        scopes: Sequence[Scope] | None,
        request: object,  # noqa: ARG002 - Authlib's signature
    ) -> None:
        """Let a good token with any of the scopes pass.

        Raises:
            Unauthorized: it is unknown, expired or revoked, its client or person is suspended or revoked, or the
                certificate that it is bound to did not come with it.
            InsufficientScope: it is good, but for something else.
        """
        if token is None or not token.opens_doors(current_services().clock()):
            raise Unauthorized(
                "The token is unknown, expired or revoked: get a new one", error="invalid_token"
            )
        if token.thumbprint is not None and not _came_with(token.thumbprint):
            raise Unauthorized(
                "The token is bound to a certificate: come with that certificate", error="invalid_token"
            )
        g.client = token.client
        g.origin = proven(token.client, g.origin)
        if scopes and token.client.scopes.isdisjoint(scopes):
            raise InsufficientScope(scope=sufficient(token.client.role, scopes))


class Door(ResourceProtector):  # type: ignore[misc]
    """Reads the credentials: one bearer token, in the Authorization header, and nowhere else."""

    def acquire_token(self, scopes: Sequence[Scope] | None = None, **_claims: Any) -> BearerToken:
        """The token of this request, judged; Authlib's own would parse the request a second time for it."""
        token: BearerToken = self.validate_request(scopes, request)
        return token

    def parse_request_authorization(self, request: Any) -> tuple[BearerTokenValidator, str]:
        """The validator and the token's text.

        Raises:
            Unauthorized: there are no bearer credentials; the challenge has no error code.
            MalformedAuthorization: there are two.
        """
        header = request.headers.get("Authorization", "")
        scheme, _, text = header.partition(" ")
        if are_several(header):
            raise MalformedAuthorization(_TOLD_ONCE)
        if scheme.lower() != BearerTokenValidator.TOKEN_TYPE:
            raise Unauthorized("Send a token in the header: Authorization: Bearer TOKEN")
        if _is_in_query():
            raise MalformedAuthorization(_TOLD_ONCE)
        return self.get_token_validator(BearerTokenValidator.TOKEN_TYPE), text.strip()


require_oauth = Door()
require_oauth.register_token_validator(TokenJudge())


def install_auth(app: Flask, services: Services) -> None:
    """Give the application its rules and the door that keeps them, its rate limits and its memory of refusals."""
    install_rules(app)
    app.before_request(_admit)
    install_rate_limits(app, services)
    install_refusals(app, services)
    outside_issuers(services.config.trusted_issuers)  # what cannot be read stops the start


def _admit() -> None:
    """The door, before every view: the request passes if the rule of its route lets it."""
    asks_for_methods = request.method == "OPTIONS" and getattr(
        request.url_rule, "provide_automatic_options", False
    )
    if request.url_rule is not None and not asks_for_methods:
        admit(rule_in_force())


def admit(rule: Rule) -> None:
    """Let the request in, or raise; sets `g.client` and makes the proven client the actor of its entries.

    Args:
        rule: what its route asks of the caller; one that needs no scope looks at no token and no session.

    Raises:
        Unauthorized: no good token.
        InsufficientScope: a good token without any of the scopes.
        RateLimited: too many requests of this client.
        SignInFirst, NotYourPart: a page's rule, and nobody is signed in, or somebody without any of the scopes.
        MalformedAuthorization, InsecureTransport: the credentials came in a way that is not taken.
    """
    scopes = rule.scopes_needed()
    if not scopes:
        return
    if rule.proof is Proof.PERSON:
        admit_person(rule)
        return
    token: BearerToken = _presented(scopes)
    if rule.limit:
        spend(token.client, rule.limit)
    mark_seen(current_services(), token)


def still_admitted() -> Callable[[], bool]:
    """A look that goes on when the request's view has ended: whether its token still is good for this route."""
    scopes = rule_in_force().scopes_needed()
    services, header = current_services(), request.headers.get("Authorization", "")
    text = header.partition(" ")[2].strip()

    def look() -> bool:
        try:
            token = find(services, text)
        except IssuerAway:
            return False
        return (
            token is not None
            and token.opens_doors(services.clock())
            and not token.client.scopes.isdisjoint(scopes)
        )

    return look


def current_client() -> AuthenticatedClient:
    """The client that sent this request.

    Raises:
        Unauthorized: the route asked for no token.
    """
    client: AuthenticatedClient | None = g.get("client")
    if client is None:
        raise Unauthorized
    return client


def _presented(scopes: Sequence[Scope]) -> BearerToken:
    if request.headers.get("Authorization"):
        check_transport()
    token = require_oauth.acquire_token(scopes)
    if _is_in_form():
        raise MalformedAuthorization(_TOLD_ONCE)
    return token


def _came_with(thumbprint: str) -> bool:
    """Whether the client showed that certificate in the TLS handshake (RFC 8705, section 3)."""
    shown = presented_certificate()
    return shown is not None and hmac.compare_digest(shown.thumbprint, thumbprint)


def _is_in_query() -> bool:
    return bool(request.query_string) and "access_token" in request.args


def _is_in_form() -> bool:
    """Whether a token is in a form as well (RFC 6750, section 2.2); the view finds the body as it came."""
    if request.mimetype != _FORM or not 0 < (request.content_length or 0) <= _LONGEST_FORM_BYTES:
        return False
    body = request.get_data()
    request.stream = BytesIO(body)
    return b"access_token=" in body
