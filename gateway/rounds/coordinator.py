"""The life of a round as ONE pure function: what happened goes in, the new state and what is to be done come out.

Nothing here reads a clock, a row or a message. The worker looks at the rows, asks `decide`, and carries each effect
out in a transaction that asks again under the round's lock; an operator's order is judged here too. A report that no
longer fits changes nothing: with two workers, or after a crash, each report may come twice.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from enum import StrEnum
from typing import TypeAlias, assert_never

from gateway.rounds.record import Round, RoundStatus
from gateway.rounds.strategy import Strategy, selection_of


class Failure(StrEnum):
    """Why the coordinator ends a round without a model."""

    TOO_FEW_CLIENTS = "TOO_FEW_CLIENTS"
    TOO_FEW_UPDATES = "TOO_FEW_UPDATES"
    CLOSED_EARLY = "CLOSED_EARLY"


@dataclass(frozen=True, slots=True)
class State:
    """What the coordinator knows of a round. A closed round is never paused."""

    status: RoundStatus
    deadline: datetime
    planned_clients: int
    min_clients: int
    strategy: Strategy = Strategy.ALL
    closing: bool = False
    paused_at: datetime | None = None
    extension_s: int = 0
    extensions_left: int = 0

    @property
    def is_steerable(self) -> bool:
        """Whether an operator's order can still change its intake."""
        gathers = (RoundStatus.INITIALIZED, RoundStatus.SELECTING, RoundStatus.ACTIVE)
        return self.status in gathers and not self.closing

    @property
    def keeps_deadline(self) -> bool:
        """Whether its sample must not depend on who came: amplification is claimed for it (RULES 12)."""
        return self.strategy is Strategy.POISSON

    @property
    def fewest_updates(self) -> int:
        """The fewest that make a model; a sample is released whatever came of it: an empty one is pure noise."""
        return 0 if self.keeps_deadline else self.min_clients

    @property
    def may_be_extended(self) -> bool:
        """Whether the coordinator may put its deadline off by itself."""
        return self.extensions_left > 0 and self.extension_s > 0 and not self.keeps_deadline

    def is_over(self, now: datetime) -> bool:
        """Whether its time has run out; it stands still during a pause."""
        return self.paused_at is None and now >= self.deadline


# What happened


@dataclass(frozen=True, slots=True)
class Begun:
    """The round left its first state."""


@dataclass(frozen=True, slots=True)
class Looked:
    """The worker looked at the round: so many updates have been accepted."""

    now: datetime
    accepted: int


@dataclass(frozen=True, slots=True)
class Drawn:
    """The round has its clients, and they are invited."""


@dataclass(frozen=True, slots=True)
class Extended:
    """The deadline was put off because too few had come."""

    until: datetime


@dataclass(frozen=True, slots=True)
class Frozen:
    """The cohort is fixed."""


@dataclass(frozen=True, slots=True)
class Released:
    """The round's model is published."""


@dataclass(frozen=True, slots=True)
class Failed:
    """The round ended without a model, for whatever reason."""


@dataclass(frozen=True, slots=True)
class Paused:
    """The operator halts the intake."""

    now: datetime


@dataclass(frozen=True, slots=True)
class Resumed:
    """The operator lets it go on."""

    now: datetime


@dataclass(frozen=True, slots=True)
class PutOff:
    """The operator sets a later deadline."""

    now: datetime
    until: datetime


@dataclass(frozen=True, slots=True)
class Closed:
    """The operator ends the intake now."""

    now: datetime


Order: TypeAlias = Paused | Resumed | PutOff | Closed
Event: TypeAlias = Begun | Looked | Drawn | Extended | Frozen | Released | Failed | Order


# What is to be done


@dataclass(frozen=True, slots=True)
class Begin:
    """Leave the first state: the clients are to be drawn, or all may come."""

    to: RoundStatus


@dataclass(frozen=True, slots=True)
class Draw:
    """Choose the clients and invite them."""


@dataclass(frozen=True, slots=True)
class ReplaceDropouts:
    """Invite reserves in the place of clients that are gone."""


@dataclass(frozen=True, slots=True)
class Extend:
    """Put the deadline off."""

    until: datetime


@dataclass(frozen=True, slots=True)
class Freeze:
    """Fix the cohort."""


@dataclass(frozen=True, slots=True)
class Release:
    """Make the model and publish it."""


@dataclass(frozen=True, slots=True)
class Fail:
    """End the round without a model."""

    reason: Failure


Effect: TypeAlias = Begin | Draw | ReplaceDropouts | Extend | Freeze | Release | Fail
Decision: TypeAlias = tuple[State, tuple[Effect, ...]]


def decide(state: State, event: Event) -> Decision:
    """What a round becomes by an event, and what is to be done next."""
    match event:
        case Looked():
            return state, _due(state, event)
        case Begun():
            begun = _moved(state, RoundStatus.INITIALIZED, _first_move(state))
            return begun, (Draw(),) if begun.status is RoundStatus.SELECTING is not state.status else ()
        case Drawn():
            return _moved(state, RoundStatus.SELECTING, RoundStatus.ACTIVE), ()
        case Extended():
            return _extended(state, event), ()
        case Frozen():
            frozen = _moved(state, RoundStatus.ACTIVE, RoundStatus.AGGREGATING)
            return frozen, (Release(),) if frozen is not state else ()
        case Released():
            return _moved(state, RoundStatus.AGGREGATING, RoundStatus.COMPLETED), ()
        case Failed():
            return replace(state, status=RoundStatus.FAILED) if state.status.is_open else state, ()
        case Paused() | Resumed() | PutOff() | Closed():
            return _ordered(state, event) if state.is_steerable else state, ()
        case _:
            assert_never(event)


def state_of(found: Round) -> State:
    """What the coordinator knows of a round in the table."""
    return State(
        status=found.status,
        deadline=found.deadline,
        planned_clients=found.planned_clients,
        min_clients=found.min_clients,
        strategy=selection_of(found).strategy,
        closing=found.closing,
        paused_at=found.paused_at,
        extension_s=found.extension_s or 0,
        extensions_left=found.extensions_left or 0,
    )


def _first_move(state: State) -> RoundStatus:
    return RoundStatus.ACTIVE if state.strategy is Strategy.ALL else RoundStatus.SELECTING


def _due(state: State, look: Looked) -> tuple[Effect, ...]:
    match state.status:
        case RoundStatus.INITIALIZED:
            return _due_while_selecting(state, look.now, Begin(_first_move(state)))
        case RoundStatus.SELECTING:
            return _due_while_selecting(state, look.now, Draw())
        case RoundStatus.ACTIVE:
            return _due_while_active(state, look)
        case RoundStatus.AGGREGATING:
            return (Release(),)
        case RoundStatus.COMPLETED | RoundStatus.FAILED:
            return ()
        case _:
            assert_never(state.status)


def _due_while_selecting(state: State, now: datetime, next_step: Effect) -> tuple[Effect, ...]:
    if state.closing:
        return (Fail(Failure.CLOSED_EARLY),)
    if state.paused_at is not None:
        return ()
    if not state.is_over(now):
        return (next_step,)
    return (_extension(state, now) if state.may_be_extended else Fail(Failure.TOO_FEW_CLIENTS),)


def _due_while_active(state: State, look: Looked) -> tuple[Effect, ...]:
    if state.closing and state.keeps_deadline:
        return (Fail(Failure.CLOSED_EARLY),)
    if state.paused_at is not None and not state.closing:
        return ()
    is_full = look.accepted >= state.planned_clients and not state.keeps_deadline
    if not (state.closing or is_full or state.is_over(look.now)):
        replaces = state.strategy in (Strategy.RANDOM, Strategy.FAIR)
        return (ReplaceDropouts(),) if replaces else ()
    if look.accepted >= state.fewest_updates:
        return (Freeze(),)
    if state.may_be_extended and not state.closing:
        return (_extension(state, look.now),)
    return (Fail(Failure.TOO_FEW_UPDATES),)


def _extension(state: State, now: datetime) -> Extend:
    return Extend(now + timedelta(seconds=state.extension_s))  # from now: the worker may have been away


def _extended(state: State, event: Extended) -> State:
    if not (state.is_steerable and state.may_be_extended and event.until > state.deadline):
        return state
    return replace(state, deadline=event.until, extensions_left=state.extensions_left - 1)


def _ordered(state: State, order: Order) -> State:
    match order:
        case Paused(now):
            return state if state.paused_at else replace(state, paused_at=now)
        case Resumed(now):
            if state.paused_at is None:
                return state
            paused = max(now - state.paused_at, timedelta(0))  # this clock may be behind that of the pause
            return replace(state, paused_at=None, deadline=state.deadline + paused)
        case PutOff(now, until):
            fits = until > max(now, state.deadline) and not state.keeps_deadline
            return replace(state, deadline=until) if fits else state
        case Closed(now):
            return state if state.is_over(now) else replace(state, closing=True, paused_at=None)
        case _:
            assert_never(order)


def _moved(state: State, before: RoundStatus, after: RoundStatus) -> State:
    return replace(state, status=after) if state.status is before else state
