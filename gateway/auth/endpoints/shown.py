"""The token that a request of revocation or introspection shows."""

from __future__ import annotations

from authlib.oauth2.rfc6749.errors import InvalidRequestError

from gateway.auth.forms import FormRequest
from gateway.auth.scopes import scope_text
from gateway.auth.tokens import BearerToken, find_own
from gateway.services import current_services


def shown_token(oauth_request: FormRequest) -> BearerToken | None:
    """The token of the parameter `token`, good or not, or None if we issued none.

    Raises:
        InvalidRequestError: the parameter is missing.
    """
    text: str | None = oauth_request.form.get("token")
    if not text:
        raise InvalidRequestError("The parameter token is missing")
    return find_own(current_services(), text)


def scope_of(token: BearerToken) -> str:
    """What it allows, as a scope parameter."""
    return scope_text(sorted(token.client.scopes))
