"""The refresh token grant (RFC 6749, section 6): each token once, and one that comes again ends its family.

RFC 9700, section 4.14.2. A refresh token ends when its consent does, however often it was exchanged.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, NoReturn

from authlib.oauth2.rfc6749 import RefreshTokenGrant
from authlib.oauth2.rfc6749.errors import (
    InvalidGrantError,
    InvalidRequestError,
    InvalidScopeError,
    UnauthorizedClientError,
)
from sqlalchemy import Connection, insert, select, update

from audit.reading import reading
from compliance.errors import SubjectErased, SubjectErasing
from gateway.auth.grants.families import (
    Family,
    FamilyEnded,
    Shown,
    ShownTwice,
    end,
    end_reused,
    hold_family,
    hold_parties,
    person_for,
)
from gateway.auth.grants.issue import answer_of, entry_of
from gateway.auth.issuing import AccessToken, new_access_token, store_access_token
from gateway.auth.methods import METHODS
from gateway.auth.people import Person
from gateway.auth.proof import OAuthClient
from gateway.auth.scopes import ScopeRefused, expanded, scope_text
from gateway.auth.secrets import SecretKind, digest, new_secret
from gateway.auth.tokens import TokenKind
from gateway.services import Services, current_services
from gateway.tables import tokens

LONGEST_TOKEN = 100


class RefreshRefused(InvalidGrantError):  # type: ignore[misc]
    """A refresh token that opens nothing; the answer does not say why."""

    description = "The refresh token is unknown, used, expired or revoked: ask the person again"


@dataclass(frozen=True, slots=True)
class StoredRefreshToken:
    """A refresh token as it is kept; Authlib asks it whose it is and what it allows."""

    token_hash: str = field(repr=False)
    family: Family
    is_used: bool

    def check_client(self, client: OAuthClient) -> bool:
        """Whether it was issued to this client."""
        return self.family.client_id == client.client_id

    def get_scope(self) -> str:
        """What the person allowed."""
        return self.family.scope


class RefreshToken(RefreshTokenGrant):  # type: ignore[misc]
    """Authlib's frame: exchanges a refresh token for an access token and the next refresh token."""

    TOKEN_ENDPOINT_AUTH_METHODS = METHODS

    def validate_token_request(self) -> None:
        """Find the token, and the scope that is wished of it.

        Raises:
            RefreshRefused: it is not good, or not this client's; one used before takes its family with it.
            InvalidScopeError: more is wished than the person allowed.
        """
        client = self.authenticate_token_endpoint_client()
        if not client.check_grant_type(self.GRANT_TYPE):
            raise UnauthorizedClientError("The client may not act for people")
        text = self.request.form.get("refresh_token")
        if not text:
            raise InvalidRequestError("The parameter refresh_token is missing")
        self.request.client, self.request.refresh_token = (
            client,
            _good_token(current_services(), text, client),
        )
        self.request.scope = _narrowed(self.request.refresh_token.family.scope, self.request.payload.scope)

    def create_token_response(self) -> tuple[int, dict[str, Any], list[tuple[str, str]]]:
        """Exchange the token; its end, the new tokens and their entry commit together."""
        services, old = current_services(), self.request.refresh_token
        try:
            person = person_for(services, old.family)
            if person is None:
                end(services, old.family)
                raise RefreshRefused
            answer = self._exchange(services, old, person)
        except ShownTwice:
            _end_reused(services, old, self.request.client)
        except (FamilyEnded, SubjectErased, SubjectErasing) as error:
            raise RefreshRefused from error
        return 200, answer, self.TOKEN_RESPONSE_HEADER

    def _exchange(self, services: Services, old: StoredRefreshToken, person: Person) -> dict[str, Any]:
        family, client, text = old.family, self.request.client, new_secret(SecretKind.REFRESH_TOKEN)
        scopes = tuple(self.request.scope.split())
        token = new_access_token(services, client, scopes, user=person, thumbprint=self.request.thumbprint)
        entry = entry_of(services, self.request, token, person)
        with services.engine.begin() as conn:
            hold_parties(conn, client, person)
            hold_family(conn, family)
            _use(conn, old, services.clock())
            store_pair(conn, services, token, text, family)
            services.trail.write(conn, entry)
        return answer_of(token, refresh_token=text)


def store_pair(
    conn: Connection, services: Services, token: AccessToken, refresh_token: str, family: Family
) -> None:
    """Store an access token of a consent and the refresh token beside it, in the transaction that stages the entry."""
    store_access_token(
        conn,
        services,
        token,
        client_id=family.client_id,
        user_id=family.user_id,
        family_id=family.family_id,
    )
    conn.execute(
        insert(tokens).values(
            token_hash=digest(refresh_token),
            client_id=family.client_id,
            user_id=family.user_id,
            family_id=family.family_id,
            scope=family.scope,
            kind=TokenKind.REFRESH.value,
            issued_at=services.clock(),
            expires_at=family.ends_at,
        )
    )


def _good_token(services: Services, text: str, client: OAuthClient) -> StoredRefreshToken:
    found = _find(services, text)
    if found is not None and found.is_used:
        _end_reused(services, found, client)
    if found is None or found.family.client_id != client.client_id:
        raise RefreshRefused
    if services.clock() >= found.family.ends_at:
        raise RefreshRefused
    return found


def _find(services: Services, text: str) -> StoredRefreshToken | None:
    if len(text) > LONGEST_TOKEN:
        return None
    query = select(tokens).where(
        tokens.c.token_hash == digest(text), tokens.c.kind == TokenKind.REFRESH.value
    )
    with reading(services.engine) as conn:
        row = conn.execute(query).one_or_none()
    if row is None:
        return None
    family = Family(row.family_id, row.client_id, row.user_id, row.scope, row.expires_at)
    return StoredRefreshToken(row.token_hash, family, row.used_at is not None)


def _narrowed(scope: str, wished: str | None) -> str:
    """The scope may shrink, never grow; the next refresh token keeps all of it (RFC 6749, section 6)."""
    try:
        asked = frozenset(expanded(wished) if wished else ())
    except ScopeRefused as error:
        raise InvalidScopeError("A scope is unknown") from error
    if not asked <= frozenset(scope.split()):
        raise InvalidScopeError("A scope is beyond what the person allowed")
    return scope_text(word for word in scope.split() if not asked or word in asked)


def _use(conn: Connection, token: StoredRefreshToken, now: datetime) -> None:
    """Mark it as used; it stays until its family ends, so that a second use is known for what it is.

    Raises:
        ShownTwice: it was used before.
        FamilyEnded: its family ended in this very moment.
    """
    unused = (tokens.c.token_hash == token.token_hash) & tokens.c.used_at.is_(None)
    if conn.execute(update(tokens).where(unused).values(used_at=now)).rowcount != 1:
        raise ShownTwice


def _end_reused(services: Services, token: StoredRefreshToken, client: OAuthClient) -> NoReturn:
    try:
        end_reused(services, token.family, client, Shown.REFRESH_TOKEN)
    except (FamilyEnded, SubjectErased, SubjectErasing) as error:
        raise RefreshRefused from error
    raise RefreshRefused
