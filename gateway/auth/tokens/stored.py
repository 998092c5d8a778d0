"""Opaque tokens: 256 random bits, kept as SHA-256, found by one indexed query with all that judges them."""

from __future__ import annotations

import re
from datetime import datetime, timedelta
from typing import Any

from sqlalchemy import Connection, bindparam, insert, select

from gateway.auth.scopes import API_KEY_SCOPES, Role, scope_text, scopes_of
from gateway.auth.secrets import SecretKind, digest
from gateway.auth.tokens.token import ACTIVE, AuthenticatedClient, BearerToken, TokenKind
from gateway.services import Services
from gateway.storage.lookup import LookUp
from gateway.tables import clients, tokens, users

_FORM = re.compile(r"flg_(?:token|refresh|reg|key)_[A-Za-z0-9_-]{43}")
_CLIENT = (
    clients.c.client_id,
    clients.c.subject_id,
    clients.c.role,
    clients.c.status,
    clients.c.last_seen_at,
)
_TOKEN = (
    tokens.c.scope,
    tokens.c.kind,
    tokens.c.issued_at,
    tokens.c.expires_at,
    tokens.c.user_id,
    tokens.c.family_id,
    tokens.c.thumbprint,
    tokens.c.used_at,
)
_PERSON = (
    users.c.subject_id.label("person_subject_id"),
    users.c.role.label("person_role"),
    users.c.status.label("person_status"),
)
_BY_TOKEN = LookUp(  # asked of each token, twice a second at most
    select(*_CLIENT, *_TOKEN, *_PERSON)
    .select_from(
        tokens.join(clients, clients.c.client_id == tokens.c.client_id).outerjoin(
            users, users.c.user_id == tokens.c.user_id
        )
    )
    .where(tokens.c.token_hash == bindparam("digest")),
    "digest",
)
_BY_API_KEY = LookUp(select(*_CLIENT).where(clients.c.api_key_hash == bindparam("digest")), "digest")


def has_stored_form(bearer: str) -> bool:
    """Whether it could be a token of ours: what cannot be is not looked up anywhere."""
    return _FORM.fullmatch(bearer) is not None


def find_stored(services: Services, bearer: str, token_hash: str) -> BearerToken | None:
    """The opaque token or API key of that text, good or not; None if there is none."""
    is_key = bearer.startswith(SecretKind.API_KEY)
    row = (_BY_API_KEY if is_key else _BY_TOKEN).one(services.engine, token_hash)
    if row is None:
        return None
    return _api_key(row, token_hash) if is_key else _token(row, token_hash)


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
    """Store a new opaque token of a client itself, in the transaction that also stages its entry."""
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


def _token(row: Any, token_hash: str) -> BearerToken:
    scopes = scopes_of(row.scope)
    client = AuthenticatedClient(row.client_id, row.subject_id, Role(row.role), scopes)
    status = row.status
    if row.user_id is not None:
        status = row.status if row.status != ACTIVE else row.person_status or "unknown"
        subject, role = row.person_subject_id or row.subject_id, Role(row.person_role or row.role)
        client = AuthenticatedClient(row.client_id, subject, role, scopes, row.user_id)
    return BearerToken(
        client,
        TokenKind(row.kind),
        status,
        row.issued_at,
        row.expires_at,
        row.last_seen_at,
        row.thumbprint,
        row.family_id,
        row.used_at,
        token_hash,
    )


def _api_key(row: Any, token_hash: str) -> BearerToken:
    client = AuthenticatedClient(row.client_id, row.subject_id, Role(row.role), frozenset(API_KEY_SCOPES))
    return BearerToken(
        client, TokenKind.API_KEY, row.status, None, None, row.last_seen_at, token_hash=token_hash
    )
