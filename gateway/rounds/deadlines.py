"""A deadline that is put off: by the coordinator, when too few updates have come, or by the operator."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

from sqlalchemy import update

from audit.entry import time_text
from audit.events import EventType
from audit.reading import reading
from gateway.errors import ValidationFailed
from gateway.rounds.coordinator import Extend, Extended, PutOff, decide, state_of
from gateway.rounds.freezing import still_wanted
from gateway.rounds.orders import Told, carry_out
from gateway.rounds.record import Round, accepted_count
from gateway.services import Services
from gateway.tables import rounds

LONGEST = timedelta(days=3650)
END_OF_TIME = datetime(9999, 1, 1, tzinfo=UTC)  # beyond it a zone's offset leaves the calendar


def put_off(services: Services, round_number: int, until: datetime) -> Round:
    """Set a later deadline.

    Raises:
        NotFound: there is no such round.
        RoundExpired: its intake is over.
        Conflict: it is a Poisson round, whose sample must not depend on who came.
        ValidationFailed: it is not later, or later than ten years.
    """
    now = services.clock()
    if until > now + LONGEST:
        raise ValidationFailed([{"pointer": "/deadline", "detail": f"must lie within {LONGEST.days} days"}])
    return carry_out(services, round_number, PutOff(now, until), EventType.ROUND_EXTENDED, _told)


def extend(services: Services, found: Round, effect: Extend, now: datetime) -> bool:
    """Put the deadline off because too few have come; False if that is no longer so.

    Args:
        services: the stores.
        found: the round.
        effect: until when.
        now: the time at which this was decided.
    """
    before = state_of(found)
    after, _ = decide(before, Extended(effect.until))
    with reading(services.engine) as conn:
        accepted = accepted_count(conn, found.round_id)
    entry = services.trail.draft(
        EventType.ROUND_EXTENDED,
        resource=f"round/{found.round_number}",
        details={
            "round_number": found.round_number,
            "deadline": time_text(effect.until),
            "accepted": accepted,
            "min_clients": found.min_clients,
            "extensions_left": after.extensions_left,
        },
    )
    with services.engine.begin() as conn:
        locked = still_wanted(conn, found, effect, now)
        if locked is None or state_of(locked) != before or accepted_count(conn, found.round_id) != accepted:
            return False
        conn.execute(
            update(rounds)
            .where(rounds.c.round_id == found.round_id)
            .values(deadline=after.deadline, extensions_left=after.extensions_left)
        )
        services.trail.write(conn, entry)
    return True


def _told(_: Round, moved: Round) -> Told:
    return {
        "deadline": time_text(moved.deadline),
        "min_clients": moved.min_clients,
        "extensions_left": moved.extensions_left or 0,
    }
