"""`/oauth/*` and `/.well-known/*`: tokens for clients; errors are JSON as in RFC 6749, section 5.2."""

from __future__ import annotations

from authlib.oauth2 import OAuth2Error
from flask import Blueprint, Response
from pydantic.dataclasses import dataclass
from werkzeug.exceptions import HTTPException

from gateway.auth import discovery
from gateway.auth.discovery import IssuerUnsettled
from gateway.auth.forms import check_form
from gateway.auth.server import record_oauth_refusal, server
from gateway.auth.tokens import published_keys
from gateway.errors import GatewayError, NotFound
from gateway.openapi import Media, operation
from gateway.problems import oauth_code, oauth_problem
from gateway.services import current_services
from gateway.wire import WIRE, json_response

oauth = Blueprint("oauth", __name__, url_prefix="/oauth")
oauth.before_request(check_form)
well_known = Blueprint("well_known", __name__, url_prefix="/.well-known")
_FRESH = {"Cache-Control": "public, max-age=300"}


@dataclass(frozen=True, slots=True, config=WIRE)
class TokenAnswer:
    """A new access token; with a refresh token where a person allowed it."""

    token_type: str
    access_token: str
    expires_in: int
    scope: str
    refresh_token: str | None = None


@dataclass(frozen=True, slots=True, config=WIRE)
class OAuthProblem:
    """A refusal of the authorization server."""

    error: str
    error_description: str


@oauth.post("/token")
@operation(
    "Get an access token for a proof of the client, a code or a refresh token (RFC 6749, section 5)",
    body=Media.FORM,
    answers={200: TokenAnswer, 400: OAuthProblem, 401: OAuthProblem, 429: OAuthProblem},
)
def issue_token() -> Response:
    """Issue a token."""
    response: Response = server.create_token_response()
    return response


@oauth.post("/revoke")
@operation(
    "End a token before its time (RFC 7009)",
    body=Media.FORM,
    answers={200: Media.JSON, 400: OAuthProblem, 401: OAuthProblem, 429: OAuthProblem},
)
def revoke_token() -> Response:
    """Revoke a token of the client's own."""
    response: Response = server.create_endpoint_response("revocation")
    return response


@oauth.post("/introspect")
@operation(
    "Ask what a token is: one's own, or any for an operator (RFC 7662)",
    body=Media.FORM,
    answers={200: Media.JSON, 400: OAuthProblem, 401: OAuthProblem, 429: OAuthProblem},
)
def introspect_token() -> Response:
    """Tell what a token is."""
    response: Response = server.create_endpoint_response("introspection")
    return response


@well_known.get("/oauth-authorization-server")
@operation(
    "The authorization server's metadata (RFC 8414)", answers={200: Media.JSON}, errors=(IssuerUnsettled,)
)
def show_authorization_server() -> Response:
    """What the authorization server offers."""
    return json_response(discovery.authorization_server(current_services().config), headers=_FRESH)


@well_known.get("/oauth-protected-resource")
@operation("The API's metadata (RFC 9728)", answers={200: Media.JSON}, errors=(IssuerUnsettled,))
def show_protected_resource() -> Response:
    """Where the tokens for this API come from."""
    return json_response(discovery.protected_resource(current_services().config), headers=_FRESH)


@well_known.get("/oauth-authorization-server/<path:suffix>")
@operation(
    "The same for an issuer that has a path (RFC 8414, section 3.1)",
    answers={200: Media.JSON},
    errors=(NotFound, IssuerUnsettled),
)
def show_authorization_server_of(suffix: str) -> Response:
    """What the authorization server offers, if the path is its own."""
    if not discovery.is_path_of(discovery.issuer(current_services().config), suffix):
        raise NotFound
    return show_authorization_server()


@well_known.get("/oauth-protected-resource/<path:suffix>")
@operation(
    "The same for a resource that has a path (RFC 9728, section 3.1)",
    answers={200: Media.JSON},
    errors=(NotFound, IssuerUnsettled),
)
def show_protected_resource_of(suffix: str) -> Response:
    """Where the tokens for this API come from, if the path is its own."""
    if not discovery.is_path_of(discovery.base_url(current_services().config), suffix):
        raise NotFound
    return show_protected_resource()


@well_known.get("/jwks.json")
@operation(
    "The public keys that check receipts, packages and access tokens (RFC 7517)", answers={200: Media.JSON}
)
def show_keys() -> Response:
    """The public keys."""
    return json_response(discovery.key_set(published_keys(current_services())), headers=_FRESH)


@oauth.errorhandler(OAuth2Error)
def _refuse(error: OAuth2Error) -> Response:
    return server.handle_error_response(None, error)


@oauth.errorhandler(GatewayError)
def _refuse_by_status(error: GatewayError) -> Response:
    if error.status < 500:
        record_oauth_refusal(error.code, error.status)
    return oauth_problem(error)


@oauth.errorhandler(HTTPException)
def _refuse_unreadable(error: HTTPException) -> Response:
    status = error.code or 500
    if status < 500:
        record_oauth_refusal(error.name.upper().replace(" ", "_"), status)
    return json_response({"error": oauth_code(status), "error_description": error.name}, status)
