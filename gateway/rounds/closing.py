"""How an operator ends a round's intake before its time; the worker then freezes what came, or fails the round."""

from __future__ import annotations

from audit.events import EventType
from gateway.rounds.coordinator import Closed
from gateway.rounds.orders import carry_out
from gateway.rounds.record import Round
from gateway.services import Services


def close_round(services: Services, round_number: int) -> Round:
    """Let the round take no more updates; a pause ends with it.

    A round that is still drawing its clients, and a Poisson round, whose sample must not depend on who came, end
    without a model.

    Raises:
        NotFound: there is no such round.
        RoundExpired: its intake is over already.
    """
    return carry_out(services, round_number, Closed(services.clock()), EventType.ROUND_CLOSED)
