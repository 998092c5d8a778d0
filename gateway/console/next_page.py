"""Where a person goes after signing in: a page of this gateway, never another's (RFC 9700, section 4.11.2)."""

from __future__ import annotations

from urllib.parse import unquote, urlencode, urlsplit

HOME = "/console/"
SIGN_IN = "/console/sign-in"
LONGEST = 2900  # in base64 it fits into the cookie that goes with a sign-in at the OpenID provider
_PLACES = ("/console/", "/oauth/authorize")


def read_next(text: str) -> str:
    """The place that was asked for, if it is one of ours to go to; else the console."""
    if not text.isascii() or not text.isprintable() or "\\" in text or len(text) > LONGEST:
        return HOME
    try:
        parts = urlsplit(text)
    except ValueError:
        return HOME
    is_local = not parts.scheme and not parts.netloc and text.startswith("/") and not text.startswith("//")
    is_ours = parts.path == _PLACES[1] or (parts.path.startswith(HOME) and ".." not in unquote(parts.path))
    return text if is_local and is_ours and not parts.path.startswith(SIGN_IN) else HOME


def sign_in_page(after: str) -> str:
    """The sign-in page that leads on to a place."""
    return SIGN_IN if after == HOME else f"{SIGN_IN}?{urlencode({'next': after})}"
