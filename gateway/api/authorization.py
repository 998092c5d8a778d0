"""`/oauth/authorize`: a person is asked whether a client may act for them (RFC 6749, section 3.1; RFC 9700).

What goes wrong before the redirect URI can be trusted is shown to the person; later on it goes back to the client, with
the name of who answers (RFC 9207).
"""

from __future__ import annotations

from collections.abc import Mapping
from urllib.parse import urlencode

from authlib.oauth2 import OAuth2Error
from flask import Blueprint, Response, redirect, request

from gateway.auth.discovery import settled_issuer
from gateway.auth.forms import check_form
from gateway.auth.grants.families import shared_scope
from gateway.auth.grants.wish import Wish, state_of
from gateway.auth.people import Person, check_csrf, signed_in
from gateway.auth.redirects import form_source, with_answer
from gateway.auth.roster import client_record
from gateway.auth.scopes import MEANINGS, Scope
from gateway.auth.server import record_oauth_refusal, server
from gateway.console.next_page import sign_in_page
from gateway.console.pages import refusal_page, render_page
from gateway.errors import BadRequest, GatewayError
from gateway.openapi import Media, operation
from gateway.services import current_services

authorization = Blueprint("authorization", __name__, url_prefix="/oauth")
authorization.before_request(check_form)
_ANSWERS = {200: Media.HTML, 303: None, 400: Media.HTML, 421: Media.HTML}
PARAMETERS = (
    "response_type",
    "client_id",
    "redirect_uri",
    "scope",
    "state",
    "response_mode",
    "code_challenge",
    "code_challenge_method",
)


class RequestNotTrusted(BadRequest):
    """An authorization request that no answer can be sent to."""

    code, title = (
        "AUTHORIZATION_REQUEST_REFUSED",
        "The application that sent you here asks in a way that is not taken",
    )


@authorization.before_request
def _know_who_answers() -> None:
    """Each answer names its issuer: where none is settled, nobody is asked in vain."""
    settled_issuer(current_services().config)


@authorization.get("/authorize")
@operation("Ask a person whether a client may act for them (RFC 6749, section 4.1)", answers=_ANSWERS)
def ask() -> Response:
    """Show what is wished, to who is signed in."""
    wish = server.get_consent_grant().wish
    person = signed_in()
    if person is None:
        return _to(sign_in_page(_again(request.args)))
    return _question(wish, person)


@authorization.post("/authorize")
@operation("Allow it, or not", body=Media.FORM, answers={**_ANSWERS, 403: Media.HTML})
def answer() -> Response:
    """Send the person's answer to the client."""
    check_csrf()
    grant, person = server.get_consent_grant(), signed_in()
    if person is None:  # the session ended while the question stood there
        return _to(sign_in_page(_again(request.form)))
    is_allowed = request.form.get("decision") == "allow"
    return _to(grant.create_authorization_response(grant.redirect_uri, person if is_allowed else None))


@authorization.errorhandler(OAuth2Error)
def _refuse(error: OAuth2Error) -> Response:
    """To the client if it can be trusted that this is one, else to the person.

    Who is not signed in is asked before the way leads on: a link to the gateway shall not lead strangers elsewhere by
    itself (RFC 9700, section 4.11.2).
    """
    told = RequestNotTrusted(error.description)
    if not error.redirect_uri:
        return _refuse_here(told)
    record_oauth_refusal(error.error.upper(), error.status_code)
    answered = with_answer(error.redirect_uri, _error_answer(error))
    if signed_in() is None:
        return refusal_page(told, goes_to=error.redirect_uri, way_back=answered)
    return _to(answered)


def _error_answer(error: OAuth2Error) -> dict[str, str]:
    state = state_of(request.values.to_dict(flat=False))
    return {
        "error": error.error,
        "error_description": error.description,
        **({"state": state} if state else {}),
        "iss": settled_issuer(current_services().config),
    }


@authorization.errorhandler(GatewayError)
def _refuse_here(error: GatewayError) -> Response:
    if error.status < 500:
        record_oauth_refusal(error.code, error.status)
    return refusal_page(error)


def _question(wish: Wish, person: Person) -> Response:
    services = current_services()
    scope = shared_scope(wish.scope, person)
    return render_page(
        "consent.html",
        form_targets=("'self'", form_source(wish.redirect_uri)),
        client=client_record(services, wish.client.client_id).name or "A tool without a name",
        client_id=wish.client.client_id,
        goes_to=wish.redirect_uri,
        person=person,
        meanings=[(word, MEANINGS[Scope(word)]) for word in scope.split()],
        parameters=_parameters(request.args),
    )


def _parameters(source: Mapping[str, str]) -> list[tuple[str, str]]:
    """The request's own parameters, to be sent again."""
    return [(name, source[name]) for name in PARAMETERS if source.get(name)]


def _again(source: Mapping[str, str]) -> str:
    """Where the same request is asked again."""
    return f"{request.path}?{urlencode(_parameters(source))}"


def _to(place: str) -> Response:
    """Go on by GET, whatever the method was (RFC 9700, section 4.12)."""
    response: Response = redirect(place, 303)  # type: ignore[assignment]
    response.headers["Referrer-Policy"] = "no-referrer"
    return response
