"""The page where people sign in with name, password and one-time code, and the way out."""

from __future__ import annotations

from urllib.parse import urlencode

from flask import Blueprint, Response, g, redirect, request

from audit.events import EventType
from gateway.auth.forms import check_form
from gateway.auth.origin import address_of
from gateway.auth.people.attempts import BROWSER_AGE_S, SignInWaits
from gateway.auth.people.cookies import Cookie, drop_cookie, read_cookie, set_cookie
from gateway.auth.people.csrf import ForgedForm, check_csrf
from gateway.auth.people.openid_settings import read_provider
from gateway.auth.people.sessions import signed_in
from gateway.auth.people.signing_in import Browser, Credentials, NewSession, SignInRefused, sign_in, sign_out
from gateway.auth.rate_limits import count_address_failure
from gateway.auth.refusals import record
from gateway.auth.transport import check_transport
from gateway.console.next_page import HOME, SIGN_IN, read_next, sign_in_page
from gateway.console.pages import render_page
from gateway.errors import GatewayError, RateLimited
from gateway.openapi import Media, operation
from gateway.services import current_services

console = Blueprint("console", __name__, url_prefix="/console")
console.before_request(check_form)
_PAGE = {200: Media.HTML}


@console.get("/sign-in")
@operation("The page where people sign in", answers={**_PAGE, 303: None})
def show_sign_in() -> Response:
    """The form; who is signed in already goes on."""
    after = read_next(request.args.get("next", ""))
    if signed_in() is not None:
        return _to(after)
    return _form(after)


@console.post("/sign-in")
@operation(
    "Sign in with name, password and one-time code", body=Media.FORM, answers={303: None, 403: Media.HTML}
)
def send_sign_in() -> Response:
    """Begin a session, or say that something was wrong and not what."""
    after = read_next(request.form.get("next", ""))
    check_transport()
    try:
        check_csrf()
        typed = Credentials(*(request.form.get(name, "") for name in ("name", "password", "code")))
        new = sign_in(current_services(), typed, browser())
    except (SignInRefused, SignInWaits, ForgedForm) as error:
        return refused(counted(error), after)
    return let_in(new, after)


@console.post("/sign-out")
@operation("Sign out: the session is over", body=Media.FORM, answers={303: None})
def send_sign_out() -> Response:
    """End the session."""
    person = signed_in()
    check_csrf()
    if person is not None:
        sign_out(current_services(), person, read_cookie(Cookie.SESSION))
    g.person = None
    response = _to(sign_in_page(HOME))
    drop_cookie(response, Cookie.SESSION)
    return response


def browser() -> Browser:
    """The cookies that tell of earlier sign-ins."""
    return Browser(read_cookie(Cookie.SESSION), read_cookie(Cookie.BROWSER))


def let_in(new: NewSession, after: str) -> Response:
    """Go on to where the person wished to go, with the cookies of the new session."""
    response = _to(after)
    set_cookie(response, Cookie.SESSION, new.cookie)
    set_cookie(response, Cookie.BROWSER, new.browser, max_age_s=BROWSER_AGE_S)
    drop_cookie(response, Cookie.FORM)
    return response


def refused(error: GatewayError, after: str) -> Response:
    """The form again, with what was wrong as far as it is told; the refusal is an entry."""
    user_id = error.user_id if isinstance(error, SignInRefused) else ""
    record(EventType.USER_REFUSED, error.code, error.status, user_id=user_id)
    return _form(after, error)


def counted(error: GatewayError) -> GatewayError:
    """The refusal, or what it becomes when this address has failed too often: a right answer is never refused so."""
    try:
        count_address_failure(address_of(g.origin))
    except RateLimited as limited:
        return limited
    return error


def _form(after: str, error: GatewayError | None = None) -> Response:
    response = render_page(
        "sign_in.html", error.status if error else 200, after=after, provider=_provider(after), error=error
    )
    response.headers.update(error.headers if error else {})
    return response


def _provider(after: str) -> dict[str, str] | None:
    """The way to the OpenID provider, if there is one."""
    settings = read_provider(current_services().config)
    if settings is None:
        return None
    return {"name": settings.name, "href": f"{SIGN_IN}/openid?{urlencode({'next': after})}"}


def _to(place: str) -> Response:
    response: Response = redirect(place, 303)  # type: ignore[assignment]
    return response
