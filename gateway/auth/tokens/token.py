"""What a bearer token is once it is found: whose, for what, until when, and bound to which certificate."""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import datetime
from enum import StrEnum

from gateway.auth.scopes import Role

ACTIVE = "active"


class TokenKind(StrEnum):
    """Where a token comes from, and what it is for."""

    ACCESS = "access"
    REFRESH = "refresh"
    REGISTRATION = "registration"
    API_KEY = "api_key"


@dataclass(frozen=True, slots=True)
class AuthenticatedClient:
    """Who sent the request, proven by a bearer token; for a person, subject and role are the person's.

    Args:
        user_id: the person for whom the client acts.
        issuer: who issued the token; None: we.
    """

    client_id: str
    subject_id: str
    role: Role
    scopes: frozenset[str]
    user_id: str | None = None
    issuer: str | None = None


@dataclass(frozen=True, slots=True)
class BearerToken:
    """A token that somebody issued, good or not, and the client it speaks for.

    Args:
        status: of its client, or else of its person; it is good only while both are active.
        thumbprint: x5t#S256 of the certificate that must come with it (RFC 8705).
        family_id: what began with the same consent and ends together.
        used_at: when a refresh token was exchanged.
    """

    client: AuthenticatedClient
    kind: TokenKind
    status: str
    issued_at: datetime | None
    expires_at: datetime | None
    last_seen_at: datetime | None
    thumbprint: str | None = None
    family_id: str | None = None
    used_at: datetime | None = None
    token_hash: str = field(default="", repr=False)
    is_jwt: bool = False

    def is_good(self, now: datetime) -> bool:
        """Whether it is what it was issued for at this moment."""
        is_over = self.expires_at is not None and now >= self.expires_at
        return self.status == ACTIVE and not is_over and self.used_at is None

    def opens_doors(self, now: datetime) -> bool:
        """Whether requests to the API may bear it: it is good, and no refresh token."""
        return self.kind is not TokenKind.REFRESH and self.is_good(now)
