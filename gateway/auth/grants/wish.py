"""An authorization request (RFC 6749, section 4.1.1), judged: what a client wishes a person to allow.

It is a value of plain parameters, wherever they came from: today the browser, one day a pushed request (RFC 9126).
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from authlib.oauth2 import OAuth2Error
from authlib.oauth2.rfc6749.errors import InvalidClientError, InvalidRequestError

from gateway.auth.proof import OAuthClient
from gateway.auth.redirects import is_registered

Parameters = Mapping[str, Sequence[str]]
_S256 = re.compile(r"[A-Za-z0-9_-]{43}")  # RFC 7636, section 4.2: 32 bytes in base64url
_STATE = re.compile(r"[\x20-\x7e]+")  # RFC 6749, appendix A.5


class ResponseTypeRefused(OAuth2Error):  # type: ignore[misc]
    """A response type that is not offered (RFC 9700, section 2.1.2: no implicit grant)."""

    error = "unsupported_response_type"
    description = "This server offers response_type=code"


@dataclass(frozen=True, slots=True)
class Wish:
    """What a client wishes a person to allow, and where the answer goes."""

    client: OAuthClient
    redirect_uri: str
    scope: str
    code_challenge: str
    state: str | None


def read_wish(parameters: Parameters, find: Callable[[str], OAuthClient | None]) -> Wish:
    """Judge an authorization request.

    Args:
        parameters: the request's, each with all its values.
        find: the client of an id, if it may ask people.

    Raises:
        OAuth2Error: it is refused; the error has a `redirect_uri` only once that is to be trusted.
    """
    client = find(_needed(parameters, "client_id"))
    if client is None:
        raise InvalidClientError("The client is unknown, or may not act for people")
    redirect_uri = _needed(parameters, "redirect_uri")
    if not is_registered(redirect_uri, client.redirect_uris):
        raise InvalidRequestError("The redirect_uri is not one that is registered for this client")
    try:
        return _read_rest(parameters, client, redirect_uri)
    except OAuth2Error as error:
        error.redirect_uri = redirect_uri
        raise


def state_of(parameters: Parameters) -> str | None:
    """The state to give back, or None if there is none that can be given back as it was."""
    values = parameters.get("state", ())
    return values[0] if len(values) == 1 and _STATE.fullmatch(values[0]) else None


def _read_rest(parameters: Parameters, client: OAuthClient, redirect_uri: str) -> Wish:
    if any(len(values) > 1 for values in parameters.values()):
        raise InvalidRequestError("A parameter is given twice")
    if _needed(parameters, "response_type") != "code":
        raise ResponseTypeRefused
    if _optional(parameters, "response_mode") not in (None, "query"):
        raise InvalidRequestError("This server offers response_mode=query")
    if _optional(parameters, "state") is not None and state_of(parameters) is None:
        raise InvalidRequestError("The state may have printable ASCII characters alone")
    challenge = _needed(parameters, "code_challenge")
    if _optional(parameters, "code_challenge_method") != "S256":  # RFC 7636 takes a missing one for plain
        raise InvalidRequestError("Send code_challenge_method=S256")
    if not _S256.fullmatch(challenge):
        raise InvalidRequestError("The code_challenge is no SHA-256 in base64url without padding")
    scope = client.get_allowed_scope(_optional(parameters, "scope"))
    return Wish(client, redirect_uri, scope, challenge, state_of(parameters))


def _optional(parameters: Parameters, name: str) -> str | None:
    values = parameters.get(name, ())
    if len(values) > 1:
        raise InvalidRequestError(f"The parameter {name} is given twice")
    return (values[0] or None) if values else None  # RFC 6749, section 3.1: an empty one counts as omitted


def _needed(parameters: Parameters, name: str) -> str:
    value = _optional(parameters, name)
    if value is None:
        raise InvalidRequestError(f"The parameter {name} is missing")
    return value
