"""Where a code may be sent: redirect URIs, registered whole and compared whole (RFC 9700, section 2.1).

The one exception is the port of a tool on the person's own machine (RFC 8252, section 7.3).
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from urllib.parse import quote, urlencode, urlsplit

LONGEST_URI = 2048
_URI = re.compile(r"[A-Za-z0-9\-._~:/?\[\]@!$&'()*+,;=%]+")  # RFC 3986 without the fragment's #
_HOST = re.compile(r"[a-z0-9]([a-z0-9.-]*[a-z0-9])?")
_LOOPBACK = re.compile(r"(http://(?:127\.0\.0\.1|\[::1\]))(?::[0-9]{1,5})?((?:[/?].*)?)")


class BadRedirectUri(ValueError):
    """A URI that no code may be sent to."""

    def __init__(self, why: str) -> None:
        super().__init__(f"this cannot be a redirect URI: {why}")


def check_registrable(uri: str) -> None:
    """Let a redirect URI be registered: https, or http to a loopback address; absolute, plain, without a fragment.

    Raises:
        BadRedirectUri: it is none.
    """
    if len(uri) > LONGEST_URI or not _URI.fullmatch(uri):
        raise BadRedirectUri("it is too long, or has a fragment or a character that no URI has in clear")
    try:
        parts = urlsplit(uri)
        port = parts.port
    except ValueError:
        raise BadRedirectUri("its host or port cannot be read") from None
    if parts.username is not None or parts.password is not None or port == 0:
        raise BadRedirectUri("it names a user, or port 0")
    if parts.scheme == "http":
        if not _LOOPBACK.fullmatch(uri):
            raise BadRedirectUri("http is for http://127.0.0.1 and http://[::1] alone (RFC 8252): take https")
    elif parts.scheme != "https" or not _HOST.fullmatch(parts.hostname or ""):
        raise BadRedirectUri("it must begin with https:// and a host's name")


def is_registered(asked: str, registered: Iterable[str]) -> bool:
    """Whether a code may be sent there: the very text was registered, but for the port on a loopback address."""
    return any(asked == known or _differ_in_port(asked, known) for known in registered)


def with_answer(redirect_uri: str, answer: Mapping[str, str]) -> str:
    """The redirect URI with the answer in its query; what stands there already stays as it is."""
    joint = "&" if "?" in redirect_uri else "?"
    return f"{redirect_uri}{joint}{urlencode(answer, quote_via=quote)}"


def form_source(redirect_uri: str) -> str:
    """The source that a page's `form-action` must allow for its form to lead there (CSP, section 6.4.1)."""
    parts = urlsplit(redirect_uri)
    return "http:" if parts.hostname == "::1" else f"{parts.scheme}://{parts.netloc}"  # CSP knows no IPv6


def _differ_in_port(asked: str, known: str) -> bool:
    left, right = _LOOPBACK.fullmatch(asked), _LOOPBACK.fullmatch(known)
    return left is not None and right is not None and left.groups() == right.groups()
