"""Bearer tokens: opaque, stored as SHA-256, found by one indexed query, dead at once when their client is.

An API key is a bearer token too, which carries `client:register` alone.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime, timedelta
from enum import StrEnum

from sqlalchemy import Connection, bindparam, delete, insert, or_, select, update

from audit.reading import reading
from gateway.auth.scopes import API_KEY_SCOPES, Role, scope_text, scopes_of
from gateway.auth.secrets import SecretKind, digest
from gateway.services import Services
from gateway.tables import clients, tokens

PURGE_BATCH = 500
SEEN_EVERY = timedelta(minutes=1)
ACTIVE = "active"


class TokenKind(StrEnum):
    """Where a bearer token comes from."""

    ACCESS = "access"
    REGISTRATION = "registration"
    API_KEY = "api_key"


@dataclass(frozen=True, slots=True)
class AuthenticatedClient:
    """Who sent the request, proven by a bearer token."""

    client_id: str
    subject_id: str
    role: Role
    scopes: frozenset[str]


@dataclass(frozen=True, slots=True)
class BearerToken:
    """A token that is in the table, and the client it speaks for."""

    client: AuthenticatedClient
    kind: TokenKind
    status: str
    issued_at: datetime | None
    expires_at: datetime | None
    last_seen_at: datetime | None

    def is_good(self, now: datetime) -> bool:
        """Whether it opens doors at this moment."""
        return self.status == ACTIVE and (self.expires_at is None or now < self.expires_at)


_CLIENT = (
    clients.c.client_id,
    clients.c.subject_id,
    clients.c.role,
    clients.c.status,
    clients.c.last_seen_at,
)
_BY_TOKEN = (  # made once: each request asks it
    select(*_CLIENT, tokens.c.scope, tokens.c.kind, tokens.c.issued_at, tokens.c.expires_at)
    .join(tokens, tokens.c.client_id == clients.c.client_id)
    .where(tokens.c.token_hash == bindparam("digest"))
)


def find(services: Services, bearer: str) -> BearerToken | None:
    """The token of that text, good or not, or None if there is none."""
    if bearer.startswith(SecretKind.API_KEY):
        return _find_api_key(services, bearer)
    with reading(services.engine) as conn:
        row = conn.execute(_BY_TOKEN, {"digest": digest(bearer)}).one_or_none()
    if row is None:
        return None
    client = AuthenticatedClient(row.client_id, row.subject_id, Role(row.role), scopes_of(row.scope))
    return BearerToken(
        client, TokenKind(row.kind), row.status, row.issued_at, row.expires_at, row.last_seen_at
    )


def _find_api_key(services: Services, bearer: str) -> BearerToken | None:
    with reading(services.engine) as conn:
        row = conn.execute(select(*_CLIENT).where(clients.c.api_key_hash == digest(bearer))).one_or_none()
    if row is None:
        return None
    client = AuthenticatedClient(row.client_id, row.subject_id, Role(row.role), frozenset(API_KEY_SCOPES))
    return BearerToken(client, TokenKind.API_KEY, row.status, None, None, row.last_seen_at)


def insert_token(
    conn: Connection,
    bearer: str,
    *,
    client_id: str,
    scopes: tuple[str, ...],
    kind: TokenKind,
    now: datetime,
    ttl: timedelta,
) -> None:
    """Store a new token, in the transaction that also stages its entry."""
    conn.execute(
        insert(tokens).values(
            token_hash=digest(bearer),
            client_id=client_id,
            scope=scope_text(scopes),
            kind=kind.value,
            issued_at=now,
            expires_at=now + ttl,
        )
    )


def delete_token(conn: Connection, bearer: str) -> bool:
    """Revoke one token; says whether it was still there."""
    return conn.execute(delete(tokens).where(tokens.c.token_hash == digest(bearer))).rowcount > 0


def delete_tokens_of(conn: Connection, client_id: str) -> int:
    """Revoke every token of a client; says how many there were."""
    return conn.execute(delete(tokens).where(tokens.c.client_id == client_id)).rowcount


def purge_expired(services: Services) -> int:
    """Delete expired tokens, 500 a transaction, until none is left; says how many there were."""
    gone, batch = 0, PURGE_BATCH
    while batch == PURGE_BATCH:
        expired = (
            select(tokens.c.token_hash).where(tokens.c.expires_at <= services.clock()).limit(PURGE_BATCH)
        )
        with reading(services.engine) as conn:
            hashes = list(conn.execute(expired).scalars())
        batch = len(hashes)
        if hashes:
            with services.engine.begin() as conn:
                gone += conn.execute(delete(tokens).where(tokens.c.token_hash.in_(hashes))).rowcount
    return gone


def mark_seen(services: Services, token: BearerToken) -> None:
    """Remember that the client is there, at most once a minute."""
    now = services.clock()
    if token.last_seen_at is not None and now - token.last_seen_at < SEEN_EVERY:
        return
    stale = or_(clients.c.last_seen_at.is_(None), clients.c.last_seen_at <= now - SEEN_EVERY)
    with services.engine.begin() as conn:
        conn.execute(
            update(clients)
            .where(clients.c.client_id == token.client.client_id, stale)
            .values(last_seen_at=now)
        )
