"""An assertion is taken once (RFC 7523, section 3, point 7), by whichever process and replica sees it first.

A row is written only for a signature that was right: nobody but a client can fill the table, and only for a while
(`gateway.auth.tokens.purging`).
"""

from __future__ import annotations

from datetime import timedelta
from hashlib import sha256

from sqlalchemy import Connection, bindparam, select
from sqlalchemy.dialects import postgresql, sqlite

from gateway.auth.proof.assertion import Assertion
from gateway.auth.proof.refused import ClientRefused
from gateway.services import Services
from gateway.tables import clients, used_assertions

KEPT_LONGER = timedelta(minutes=2)  # another replica's clock may be behind the one that purges
_LOCKED = (
    select(clients.c.client_id)
    .where(clients.c.client_id == bindparam("id"))
    .with_for_update(read=True, key_share=True)
)


def take_once(services: Services, assertion: Assertion) -> None:
    """Remember the assertion, which is good; of two that come at the same moment, one is refused.

    Raises:
        ClientRefused: it was shown before, or the client has just been erased.
    """
    row = {
        "jti_hash": sha256(f"{assertion.client_id} {assertion.jti}".encode()).hexdigest(),
        "client_id": assertion.client_id,
        "expires_at": assertion.ends_at + KEPT_LONGER,
    }
    with services.engine.begin() as conn:
        is_there = conn.execute(_LOCKED, {"id": assertion.client_id}).one_or_none() is not None
        is_first = is_there and _insert(conn, row)
    if not is_first:
        raise ClientRefused(reason="ASSERTION_REPLAYED" if is_there else "INVALID_CLIENT")


def _insert(conn: Connection, row: dict[str, object]) -> bool:
    insert = postgresql.insert if conn.dialect.name == "postgresql" else sqlite.insert
    once = insert(used_assertions).values(row).on_conflict_do_nothing().returning(used_assertions.c.jti_hash)
    return conn.execute(once).one_or_none() is not None
