"""What each grant ends with: an access token, its entry, and what tells the client (RFC 6749, section 5.1)."""

from __future__ import annotations

from typing import Any

from audit.draft import Personal
from audit.entry import Draft
from audit.events import EventType
from gateway.auth.forms import FormRequest
from gateway.auth.issuing import AccessToken
from gateway.auth.people import Person
from gateway.auth.scopes import scope_text
from gateway.services import Services


def entry_of(
    services: Services, request: FormRequest, token: AccessToken, person: Person | None = None
) -> Draft:
    """The entry of a new token: how the client proved itself, and for whom it acts."""
    whose = {"user_id": Personal(person.subject_id, person.user_id)} if person else {}
    return services.trail.draft(
        EventType.TOKEN_ISSUED,
        resource="tokens",
        details={
            "scope": scope_text(token.scopes),
            "auth": request.auth_method,
            "lifetime_s": token.ttl_s,
            "grant": request.payload.grant_type,
            "format": "jwt" if token.is_jwt else "opaque",
            "bound": token.thumbprint is not None,
            **whose,
        },
    )


def answer_of(token: AccessToken, *, refresh_token: str | None = None) -> dict[str, Any]:
    """The token endpoint's answer."""
    answer = {
        "token_type": "Bearer",
        "access_token": token.text,
        "expires_in": token.ttl_s,
        "scope": scope_text(token.scopes),
    }
    return answer | ({"refresh_token": refresh_token} if refresh_token else {})
