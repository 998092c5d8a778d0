"""Ends tokens before their time: rows go, JWTs are written down as revoked, and caches hear of it after the commit.

Rows are locked in the order clients, users, codes, tokens, so that nobody waits in a ring.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime, timedelta
from typing import Any

from sqlalchemy import ColumnElement, Connection, delete, select
from sqlalchemy.dialects import postgresql, sqlite

from gateway.auth.tokens.token import BearerToken, TokenKind
from gateway.storage.ended import note_ended, note_every_ended
from gateway.tables import authorization_codes, revoked_tokens, tokens

KEPT_LONGER = timedelta(minutes=2)  # another replica's clock may be behind the one that purges
_MOST_AT_ONCE = 50


def end_token(conn: Connection, token: BearerToken) -> bool:
    """End one token; says whether it had not ended yet. A JWT is good without a row, after a restore for instance."""
    if _end(conn, tokens.c.token_hash == token.token_hash):
        return True
    if not token.is_jwt or token.expires_at is None:
        return False
    _revoke(conn, [_revocation(token.token_hash, token.client.client_id, token.expires_at)])
    note_ended(conn, [token.token_hash])
    return True


def end_family(conn: Connection, family_id: str) -> int:
    """End everything that began with the same consent, its code too; says how many tokens there were."""
    conn.execute(delete(authorization_codes).where(authorization_codes.c.family_id == family_id))
    return len(_end(conn, tokens.c.family_id == family_id))


def end_tokens_of_client(conn: Connection, client_id: str) -> int:
    """End every token of a client, also those that other people gave it; says how many there were."""
    note_every_ended(conn)  # API keys have no row here
    conn.execute(delete(authorization_codes).where(authorization_codes.c.client_id == client_id))
    return len(_end(conn, tokens.c.client_id == client_id))


def end_tokens_of_user(conn: Connection, user_id: str) -> int:
    """End every token with which a client acts for a person; says how many there were."""
    note_every_ended(conn)
    conn.execute(delete(authorization_codes).where(authorization_codes.c.user_id == user_id))
    return len(_end(conn, tokens.c.user_id == user_id))


def shut_out(conn: Connection) -> None:
    """Have every cached verdict looked up again once this transaction commits: somebody's status changed."""
    note_every_ended(conn)


def keep_cap(conn: Connection, newest: str, client_id: str, user_id: str | None, most: int) -> int:
    """End the oldest access tokens of a client, for itself or for one person, beyond so many; says how many.

    Args:
        conn: the transaction that stores the newest token.
        newest: its hash; it stays, however many were issued in the same moment.
        client_id: the client.
        user_id: the person, or None.
        most: how many may live.
    """
    of_person = tokens.c.user_id.is_(None) if user_id is None else tokens.c.user_id == user_id
    beyond = (
        select(tokens.c.token_hash)
        .where(tokens.c.client_id == client_id, of_person, tokens.c.kind == TokenKind.ACCESS.value)
        .where(tokens.c.token_hash != newest)
        .order_by(tokens.c.issued_at.desc(), tokens.c.token_hash)
        .offset(most - 1)
        .limit(_MOST_AT_ONCE)
    )
    if conn.dialect.name == "postgresql":
        beyond = beyond.with_for_update(skip_locked=True)  # two at once must not wait in a ring
    return len(_end(conn, tokens.c.token_hash.in_(beyond)))


def _end(conn: Connection, which: ColumnElement[bool]) -> Sequence[Any]:
    gone = conn.execute(
        delete(tokens)
        .where(which)
        .returning(tokens.c.token_hash, tokens.c.client_id, tokens.c.is_jwt, tokens.c.expires_at)
    ).all()
    signed = [_revocation(row.token_hash, row.client_id, row.expires_at) for row in gone if row.is_jwt]
    if signed:
        _revoke(conn, signed)
    if gone:
        note_ended(conn, (row.token_hash for row in gone))
    return gone


def _revoke(conn: Connection, signed: Sequence[Mapping[str, Any]]) -> None:
    insert = postgresql.insert if conn.dialect.name == "postgresql" else sqlite.insert
    conn.execute(insert(revoked_tokens).on_conflict_do_nothing(), signed)


def _revocation(token_hash: str, client_id: str, expires_at: datetime) -> dict[str, Any]:
    return {"token_hash": token_hash, "client_id": client_id, "expires_at": expires_at + KEPT_LONGER}
