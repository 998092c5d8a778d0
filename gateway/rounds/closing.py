"""How an operator ends a round's intake before its time; the worker then freezes what came."""

from __future__ import annotations

from dataclasses import replace

from sqlalchemy import update

from audit.events import EventType
from gateway.errors import RoundExpired
from gateway.rounds.record import Round, RoundStatus, find_round, lock_round
from gateway.services import Services
from gateway.storage.database import reading
from gateway.tables import rounds


def close_round(services: Services, round_number: int) -> Round:
    """Let the round take no more updates.

    Raises:
        NotFound: there is no such round.
        RoundExpired: its intake is over already.
    """
    with reading(services.engine) as conn:
        found = find_round(conn, round_number)
    entry = services.trail.draft(
        EventType.ROUND_CLOSED,
        resource=f"round/{round_number}",
        details={"round_number": round_number},
    )
    with services.engine.begin() as conn:
        locked = lock_round(conn, found.round_id)
        if locked.status is not RoundStatus.ACTIVE or locked.closing:
            raise RoundExpired("The round's intake is over")
        conn.execute(update(rounds).where(rounds.c.round_id == found.round_id).values(closing=True))
        services.trail.write(conn, entry)
    return replace(locked, closing=True)
