"""When a client was last there, written down at most once a minute."""

from __future__ import annotations

from datetime import datetime, timedelta

from sqlalchemy import bindparam, or_, update

from gateway.auth.tokens.token import BearerToken
from gateway.services import Services
from gateway.tables import clients

SEEN_EVERY = timedelta(minutes=1)
_MARK = (
    update(clients)
    .where(
        clients.c.client_id == bindparam("id"),
        or_(clients.c.last_seen_at.is_(None), clients.c.last_seen_at <= bindparam("before")),
    )
    .values(last_seen_at=bindparam("now"))
)


def mark_seen(services: Services, token: BearerToken) -> None:
    """Remember that the client is there."""
    now, client_id = services.clock(), token.client.client_id
    if token.last_seen_at is not None and now - token.last_seen_at < SEEN_EVERY:
        return

    def write() -> datetime:
        with services.engine.begin() as conn:
            conn.execute(_MARK, {"id": client_id, "before": now - SEEN_EVERY, "now": now})
        return now

    minute = int(now.timestamp() / SEEN_EVERY.total_seconds())
    services.verdicts.find(f"{client_id} {minute}", write)  # the verdict on the token is older than this mark
