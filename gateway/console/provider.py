"""The pages around a sign-in at an outside OpenID provider: the way there, and the way back."""

from __future__ import annotations

import logging

from flask import Blueprint, Response, redirect, request

from gateway.auth.people.cookies import Cookie, drop_cookie, read_cookie, set_cookie
from gateway.auth.people.csrf import own_origin
from gateway.auth.people.openid import (
    AGE_S,
    ProviderRefused,
    asking_of,
    authorization_url,
    new_asking,
    provider_subject,
)
from gateway.auth.people.openid_settings import ProviderSettings, read_provider
from gateway.auth.people.person import find_user, outside_person_index
from gateway.auth.people.signing_in import SignInRefused, sign_in_by_provider
from gateway.auth.transport import check_transport
from gateway.console.next_page import HOME, read_next
from gateway.console.sign_in import browser, counted, let_in, refused
from gateway.errors import NotFound
from gateway.openapi import Media, operation
from gateway.services import current_services
from gateway.tables import users

log = logging.getLogger(__name__)
provider = Blueprint("provider", __name__, url_prefix="/console/sign-in/openid")
_RETURN = "/console/sign-in/openid/return"


@provider.get("")
@operation("Go to the OpenID provider to sign in there", answers={303: None})
def show_provider() -> Response:
    """Send the browser there, with a cookie that its answer must go with."""
    settings = _settings()
    check_transport()
    asking = new_asking(read_next(request.args.get("next", "")))
    response: Response = redirect(authorization_url(settings, asking, _redirect_uri()), 303)  # type: ignore[assignment]
    set_cookie(response, Cookie.PROVIDER, asking.cookie, max_age_s=AGE_S)
    return response


@provider.get("/return")
@operation("Come back from the OpenID provider", answers={303: None, 403: Media.HTML})
def show_return() -> Response:
    """Begin a session for a person whom the provider vouches for, and who was added here before."""
    settings, services = _settings(), current_services()
    check_transport()
    asking = asking_of(read_cookie(Cookie.PROVIDER))
    after = read_next(asking.after) if asking else HOME
    try:
        subject = provider_subject(settings, asking, request.args, _redirect_uri(), services.clock())
        index = outside_person_index(services, settings.issuer, subject)
        new = sign_in_by_provider(services, find_user(services, users.c.outside_index == index), browser())
        response = let_in(new, after)
    except (ProviderRefused, SignInRefused) as error:
        if isinstance(error, ProviderRefused):
            log.warning("a sign-in at the OpenID provider was refused: %s", error.reason)
        response = refused(counted(error), after)
    drop_cookie(response, Cookie.PROVIDER)
    return response


def _settings() -> ProviderSettings:
    settings = read_provider(current_services().config)
    if settings is None:
        raise NotFound("This gateway has no OpenID provider: people sign in with passwords")
    return settings


def _redirect_uri() -> str:
    base = current_services().config.public_url.rstrip("/") or own_origin()
    return f"{base}{_RETURN}"
