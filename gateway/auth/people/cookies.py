"""The cookies of the sign-in pages (RFC 6265bis): for this host alone, unreadable for scripts, over TLS only.

Plain http is taken from this machine alone (`gateway.auth.transport`); a browser would not keep a `Secure` cookie
there, so such a cookie has a name of its own and is never looked at over TLS.
"""

from __future__ import annotations

from enum import StrEnum
from typing import Literal

from flask import Response, request

from gateway.auth.peer import came_by_tls

_HOST_ONLY = "__Host-"
SameSite = Literal["Lax", "Strict"]


class Cookie(StrEnum):
    """What the pages keep in a browser."""

    SESSION = "flg_session"
    FORM = "flg_form"
    """Ties a form to the browser that got it before anybody has signed in."""
    BROWSER = "flg_browser"
    """Tells a browser from which somebody has signed in before."""
    PROVIDER = "flg_provider"
    """Ties what an OpenID provider answers to the browser that asked."""


_SAME_SITE: dict[Cookie, SameSite] = {
    Cookie.SESSION: "Lax",  # also when another site links here: a tool's /oauth/authorize, a provider's answer
    Cookie.PROVIDER: "Lax",
    Cookie.FORM: "Strict",
    Cookie.BROWSER: "Strict",
}


def read_cookie(cookie: Cookie) -> str:
    """Its value, or nothing."""
    return request.cookies.get(_name(cookie), "")


def set_cookie(response: Response, cookie: Cookie, value: str, *, max_age_s: int | None = None) -> None:
    """Give a cookie; without an age it lasts as long as the browser runs."""
    response.set_cookie(
        _name(cookie),
        value,
        max_age=max_age_s,
        path="/",
        secure=came_by_tls(),
        httponly=True,
        samesite=_SAME_SITE[cookie],
    )


def drop_cookie(response: Response, cookie: Cookie) -> None:
    """Take a cookie back."""
    set_cookie(response, cookie, "", max_age_s=0)


def _name(cookie: Cookie) -> str:
    return f"{_HOST_ONLY}{cookie.value}" if came_by_tls() else cookie.value
