"""A round that is paused takes no updates and is not frozen; when it goes on, its deadline has moved by the pause."""

from __future__ import annotations

from sqlalchemy import Connection

from audit.entry import time_text
from audit.events import EventType
from gateway.rounds.coordinator import Paused, Resumed
from gateway.rounds.invitations import grant_time
from gateway.rounds.orders import Told, carry_out
from gateway.rounds.record import Round
from gateway.services import Services


def pause(services: Services, round_number: int) -> Round:
    """Halt a round.

    Raises:
        NotFound: there is no such round.
        RoundPaused: it is paused already.
        RoundExpired: its intake is over.
    """
    return carry_out(services, round_number, Paused(services.clock()), EventType.ROUND_PAUSED)


def resume(services: Services, round_number: int) -> Round:
    """Let a paused round go on.

    Raises:
        NotFound: there is no such round.
        Conflict: it is not paused.
        RoundExpired: its intake is over.
    """
    resumed = Resumed(services.clock())
    return carry_out(services, round_number, resumed, EventType.ROUND_RESUMED, _told, _grant_time)


def _told(paused: Round, resumed: Round) -> Told:
    paused_s = int((resumed.deadline - paused.deadline).total_seconds())
    return {"deadline": time_text(resumed.deadline), "paused_s": paused_s}


def _grant_time(conn: Connection, paused: Round, resumed: Round) -> None:
    grant_time(conn, paused.round_id, resumed.deadline - paused.deadline)
