"""Authorization codes: 256 random bits, kept as SHA-256 beside what they are bound to, good once and for a minute.

A used one stays as long as anything may follow from it, so that a second use is known for what it is
(`gateway.auth.tokens.purging`).
"""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import datetime, timedelta
from uuid import uuid4

from sqlalchemy import Connection, insert, select, update

from audit.reading import reading
from gateway.auth.grants.families import Family, ShownTwice
from gateway.auth.grants.wish import Wish
from gateway.auth.people import Person
from gateway.auth.secrets import digest
from gateway.services import Services
from gateway.tables import authorization_codes

CODE_TTL = timedelta(seconds=60)
LONGEST_CODE = 100
_CODES = authorization_codes.c


@dataclass(frozen=True, slots=True)
class StoredCode:
    """A code as it is kept; Authlib asks it what it is bound to."""

    code_hash: str = field(repr=False)
    family: Family
    redirect_uri: str
    code_challenge: str = field(repr=False)
    expires_at: datetime
    is_used: bool

    def get_redirect_uri(self) -> str:
        """Where it was sent."""
        return self.redirect_uri

    def get_scope(self) -> str:
        """What the person allowed."""
        return self.family.scope


def insert_code(conn: Connection, code: str, wish: Wish, person: Person, scope: str, now: datetime) -> None:
    """Store a new code, the first of a new family, in the transaction that also stages the consent's entry."""
    conn.execute(
        insert(authorization_codes).values(
            code_hash=digest(code),
            client_id=wish.client.client_id,
            user_id=person.user_id,
            family_id=str(uuid4()),
            redirect_uri=wish.redirect_uri,
            scope=scope,
            code_challenge=wish.code_challenge,
            issued_at=now,
            expires_at=now + CODE_TTL,
        )
    )


def find_code(services: Services, code: str) -> StoredCode | None:
    """The code of that text, whether it is good or not, or None if there is none."""
    if len(code) > LONGEST_CODE:
        return None
    with reading(services.engine) as conn:
        row = conn.execute(select(authorization_codes).where(_CODES.code_hash == digest(code))).one_or_none()
    if row is None:
        return None
    ends_at = row.issued_at + timedelta(seconds=services.config.refresh_ttl_s)
    return StoredCode(
        code_hash=row.code_hash,
        family=Family(row.family_id, row.client_id, row.user_id, row.scope, ends_at),
        redirect_uri=row.redirect_uri,
        code_challenge=row.code_challenge,
        expires_at=row.expires_at,
        is_used=row.used_at is not None,
    )


def use_code(conn: Connection, code: StoredCode, now: datetime) -> None:
    """Use the code up, in the transaction that stores its tokens: of two at once one succeeds.

    Raises:
        ShownTwice: it was used before.
    """
    unused = (_CODES.code_hash == code.code_hash) & _CODES.used_at.is_(None)
    if conn.execute(update(authorization_codes).where(unused).values(used_at=now)).rowcount != 1:
        raise ShownTwice
