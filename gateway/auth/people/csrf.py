"""Forms that only our own pages can send: a token tied to session and form, and the browser's word on their origin.

Before a session there is one too (`Cookie.FORM`): nobody can be signed in to a stranger's account unseen.
"""

from __future__ import annotations

import hmac
import secrets
from hashlib import sha256
from urllib.parse import urlsplit

from flask import Response, g, request
from markupsafe import Markup

from gateway.auth.peer import came_by_tls
from gateway.auth.people.cookies import Cookie, read_cookie, set_cookie
from gateway.errors import GatewayError
from gateway.services import current_services

FIELD = "form_token"
_LABEL = b"flg-form|"
_SECRET_BYTES = 32


class ForgedForm(GatewayError):
    """A form that no page of ours sent from this browser, or one that waited too long."""

    status, code, title = 403, "FORM_REFUSED", "The form was not sent from its own page, or is too old"

    def __init__(self) -> None:
        super().__init__(
            "Go back, load the page again, and send the form from there; cookies must be allowed"
        )


def csrf_field(action: str | None = None) -> Markup:
    """The hidden field of a form; `action` is the path that it is sent to, which is this page's own if not given."""
    token = _token(_secret(), action or request.path)
    return Markup('<input type="hidden" name="{}" value="{}">').format(FIELD, token)


def check_csrf() -> None:
    """Let a form in only if this browser got it from us for this very path.

    Raises:
        ForgedForm: it came from elsewhere.
    """
    secret = _known_secret()
    shown = request.form.get(FIELD, "")
    right = hmac.compare_digest(_token(secret, request.path).encode(), shown.encode())
    if not secret or not right or not _comes_from_here():
        raise ForgedForm


def keep_form_cookie(response: Response) -> Response:
    """Give the browser the cookie that a form on this page was tied to, if the page made a new one."""
    if made := g.get("form_secret"):
        set_cookie(response, Cookie.FORM, made)
    return response


def own_origin() -> str:
    """Scheme and host of this gateway as browsers write them."""
    public = urlsplit(current_services().config.public_url)
    if public.netloc:
        return f"{public.scheme}://{public.netloc}".lower()
    return f"{'https' if came_by_tls() else 'http'}://{request.host}".lower()


def _secret() -> str:
    """What the form is tied to: the session, or before there is one, a cookie of its own."""
    known = _known_secret()
    if known:
        return known
    if "form_secret" not in g:
        g.form_secret = secrets.token_urlsafe(_SECRET_BYTES)
    made: str = g.form_secret
    return made


def _known_secret() -> str:
    return read_cookie(Cookie.SESSION) or read_cookie(Cookie.FORM)


def _token(secret: str, action: str) -> str:
    return hmac.new(secret.encode(), _LABEL + action.encode(), sha256).hexdigest()


def _comes_from_here() -> bool:
    """The browser's word; where it gives none, the token alone decides."""
    site = request.headers.get("Sec-Fetch-Site")
    if site is not None:
        return site == "same-origin"
    origin = request.headers.get("Origin")
    return origin is None or origin.lower() == own_origin()
