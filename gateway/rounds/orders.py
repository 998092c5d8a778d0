"""What an operator orders of a round: judged by the coordinator, written with its entry under the round's lock."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import assert_never

from sqlalchemy import Connection, update

from audit.canonical import JsonValue
from audit.events import EventType
from audit.reading import reading
from audit.writing import writing
from gateway.errors import Conflict, GatewayError, RoundExpired, RoundPaused, ValidationFailed
from gateway.rounds.coordinator import Closed, Order, Paused, PutOff, Resumed, State, decide, state_of
from gateway.rounds.record import Round, find_round, lock_round
from gateway.services import Services
from gateway.tables import rounds

Told = Mapping[str, JsonValue]


def carry_out(
    services: Services,
    round_number: int,
    order: Order,
    event_type: EventType,
    tell: Callable[[Round, Round], Told] = lambda *_: {},
    also: Callable[[Connection, Round, Round], None] = lambda *_: None,
) -> Round:
    """Carry an order out; the round as it is afterwards.

    Args:
        services: the stores.
        round_number: which round.
        order: what is ordered.
        event_type: the entry that says so.
        tell: makes the entry's details from the round before and after.
        also: what the same transaction writes besides, given the round before and after.

    Raises:
        NotFound: there is no such round.
        RoundExpired: its intake is over.
        Conflict: the order does not fit, or the round changed at this very moment.
        ValidationFailed: a deadline is none.
    """
    with reading(services.engine) as conn:
        found = find_round(conn, round_number)
    ordered = _ordered(found, order)
    entry = services.trail.draft(
        event_type,
        resource=f"round/{round_number}",
        details={"round_number": round_number, **tell(found, ordered)},
    )

    def write(conn: Connection) -> None:
        locked = lock_round(conn, found.round_id)
        if state_of(_ordered(locked, order)) != state_of(ordered):
            raise Conflict("The round changed at this very moment: look at it and try again")
        changed = {"closing": ordered.closing, "paused_at": ordered.paused_at, "deadline": ordered.deadline}
        conn.execute(update(rounds).where(rounds.c.round_id == found.round_id).values(**changed))
        also(conn, locked, ordered)
        services.trail.write(conn, entry)

    writing(services.engine, write)
    return ordered


def _ordered(found: Round, order: Order) -> Round:
    before = state_of(found)
    after, _ = decide(before, order)
    if after == before:
        raise _refusal(before, order)
    return replace(found, closing=after.closing, paused_at=after.paused_at, deadline=after.deadline)


def _refusal(state: State, order: Order) -> GatewayError:
    """Why an order changes nothing."""
    if not state.is_steerable:
        return RoundExpired("The round's intake is over")
    match order:
        case Closed():
            return RoundExpired("The round's intake is over")
        case Paused():
            return RoundPaused("The round is paused already")
        case Resumed():
            return Conflict("The round is not paused")
        case PutOff() if state.keeps_deadline:
            return Conflict("A Poisson round keeps its deadline: its sample must not depend on who came")
        case PutOff():
            detail = "must lie in the future, and after the present deadline"
            return ValidationFailed([{"pointer": "/deadline", "detail": detail}])
        case _:
            assert_never(order)
