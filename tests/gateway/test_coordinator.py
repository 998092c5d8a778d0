"""The life of a round as a pure function: what may follow what, whatever happens in whatever order."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import assume, example, given
from hypothesis import strategies as st

from gateway.rounds.coordinator import (
    Begin,
    Begun,
    Closed,
    Draw,
    Drawn,
    Effect,
    Event,
    Extend,
    Extended,
    Fail,
    Failed,
    Failure,
    Freeze,
    Frozen,
    Looked,
    Paused,
    PutOff,
    Release,
    Released,
    ReplaceDropouts,
    Resumed,
    State,
    decide,
)
from gateway.rounds.record import RoundStatus
from gateway.rounds.strategy import Strategy

NOON = datetime(2026, 11, 24, 12, tzinfo=UTC)
GATHERING = (RoundStatus.INITIALIZED, RoundStatus.SELECTING, RoundStatus.ACTIVE)
ENDED = (RoundStatus.COMPLETED, RoundStatus.FAILED)
ROUND = State(RoundStatus.ACTIVE, NOON + timedelta(hours=1), planned_clients=5, min_clients=3)
TIMES = st.integers(-7200, 7200).map(lambda s: NOON + timedelta(seconds=s))
COUNTS = st.integers(0, 8)


@st.composite
def states(draw: st.DrawFn, statuses: Sequence[RoundStatus] = tuple(RoundStatus)) -> State:
    """Every state that a round may be in; a closed round is not paused."""
    least = draw(st.integers(1, 5))
    closing = draw(st.booleans())
    return State(
        status=draw(st.sampled_from(statuses)),
        deadline=draw(TIMES),
        planned_clients=draw(st.integers(least, 7)),
        min_clients=least,
        strategy=draw(st.sampled_from(Strategy)),
        closing=closing,
        paused_at=None if closing else draw(st.none() | TIMES),
        extension_s=draw(st.integers(0, 600)),
        extensions_left=draw(st.integers(0, 3)),
    )


EVENTS: st.SearchStrategy[Event] = st.one_of(
    st.builds(Looked, TIMES, COUNTS),
    st.sampled_from([Begun(), Drawn(), Frozen(), Released(), Failed()]),
    st.builds(Extended, TIMES),
    st.builds(Paused, TIMES),
    st.builds(Resumed, TIMES),
    st.builds(PutOff, TIMES, TIMES),
    st.builds(Closed, TIMES),
)


@given(states(ENDED), EVENTS)
def test_nothing_leaves_a_final_state(state: State, event: Event) -> None:
    """DESIGN: completed and failed are the ends; nothing is done any more."""
    assert decide(state, event) == (state, ())


@given(states(), EVENTS)
def test_a_state_is_followed_by_itself_or_by_the_next_one(state: State, event: Event) -> None:
    """DESIGN: initialized, selecting, active, aggregating, completed or failed; no other way."""
    after, _ = decide(state, event)

    ways = {
        RoundStatus.INITIALIZED: {RoundStatus.SELECTING, RoundStatus.ACTIVE},
        RoundStatus.SELECTING: {RoundStatus.ACTIVE},
        RoundStatus.ACTIVE: {RoundStatus.AGGREGATING},
        RoundStatus.AGGREGATING: {RoundStatus.COMPLETED},
    }
    allowed = ways.get(state.status, set()) | {state.status}
    if isinstance(event, Failed):
        allowed |= {RoundStatus.FAILED}
    assert after.status in allowed


@given(states(), EVENTS)
def test_a_report_that_comes_twice_changes_nothing_more(state: State, event: Event) -> None:
    """With two workers, or after a crash, each report may come twice."""
    assume(not isinstance(event, Extended | Paused | Resumed | PutOff | Closed))
    once, _ = decide(state, event)

    assert decide(once, event)[0] == once


@given(states(), TIMES, COUNTS)
def test_a_cohort_is_never_frozen_below_the_minimum(state: State, now: datetime, accepted: int) -> None:
    """RULES 6: below `min_clients` no model is made; of a Poisson round that bounds whom it draws from."""
    effects = decide(state, Looked(now, accepted))[1]

    if Freeze() in effects:
        assert accepted >= state.min_clients or state.strategy is Strategy.POISSON
        assert state.status is RoundStatus.ACTIVE


@given(states(GATHERING), TIMES, TIMES, COUNTS)
def test_a_paused_round_waits_whatever_the_time(
    state: State, since: datetime, now: datetime, accepted: int
) -> None:
    """Required: while paused it is neither frozen nor failed nor put off, and nobody is drawn for it."""
    paused = replace(state, closing=False, paused_at=since)

    assert decide(paused, Looked(now, accepted)) == (paused, ())


@given(states(), TIMES, COUNTS)
@example(replace(ROUND, strategy=Strategy.POISSON), NOON, 5)
def test_a_poisson_round_keeps_its_deadline_and_its_sample(
    state: State, now: datetime, accepted: int
) -> None:
    """RULES 12: no early close, no reserves, no other deadline: nothing of the sample may depend on who came."""
    poisson = replace(state, strategy=Strategy.POISSON)
    effects = decide(poisson, Looked(now, accepted))[1]

    assert not any(isinstance(effect, ReplaceDropouts | Extend) for effect in effects)
    if Freeze() in effects:
        assert now >= poisson.deadline
        assert not poisson.closing
    assert decide(poisson, PutOff(now, NOON + timedelta(days=1)))[0].deadline == poisson.deadline


@given(states(), TIMES, COUNTS)
def test_a_due_round_always_has_something_done(state: State, now: datetime, accepted: int) -> None:
    """No round hangs: past its deadline, or closed, or aggregating, the next step is always known."""
    effects = decide(state, Looked(now, accepted))[1]

    is_due = state.status is RoundStatus.AGGREGATING or state.closing or state.is_over(now)
    if is_due and state.status not in ENDED and state.paused_at is None:
        assert len(effects) == 1
        assert not isinstance(effects[0], Draw | Begin | ReplaceDropouts)


@given(states(), TIMES, COUNTS)
def test_each_of_its_own_deadlines_is_later_and_costs_an_extension(
    state: State, now: datetime, accepted: int
) -> None:
    """Required: put off at most so often, only when too few have come, and never for an operator who closed it."""
    for effect in decide(state, Looked(now, accepted))[1]:
        if isinstance(effect, Extend):
            after, _ = decide(state, Extended(effect.until))
            assert not state.closing
            assert accepted < state.min_clients or state.status is not RoundStatus.ACTIVE
            assert effect.until > now
            assert (after.deadline, after.extensions_left) == (effect.until, state.extensions_left - 1)
            assert after.extensions_left >= 0


@given(states(), st.lists(st.tuples(st.integers(0, 900), COUNTS), max_size=40))
def test_an_unsteered_round_ends_after_its_extensions(state: State, looks: list[tuple[int, int]]) -> None:
    """Whatever comes and when, a round that nobody pauses ends, and is put off at most `extensions_left` times."""
    state = replace(state, paused_at=None)
    now, extended = state.deadline, 0
    for wait_s, accepted in [*looks, *[(900, 0)] * 8]:
        now += timedelta(seconds=wait_s)
        state, done = _carried_out(state, Looked(now, accepted))
        extended += sum(isinstance(effect, Extend) for effect in done)

    assert state.status in ENDED
    assert extended <= 3


def _carried_out(state: State, event: Event) -> tuple[State, list[Effect]]:
    """Do at once what is to be done, as a worker to whom nothing happens does."""
    state, effects = decide(state, event)
    done = list(effects)
    for outcome in filter(None, map(_outcome, effects)):
        state, more = _carried_out(state, outcome)
        done += more
    return state, done


def _outcome(effect: Effect) -> Event | None:
    if isinstance(effect, Extend):
        return Extended(effect.until)
    done: dict[type, Event] = {
        Begin: Begun(),
        Draw: Drawn(),
        Freeze: Frozen(),
        Release: Released(),
        Fail: Failed(),
    }
    return done.get(type(effect))


@given(states(GATHERING), st.integers(0, 5000))
def test_a_pause_moves_the_deadline_by_its_length(state: State, paused_s: int) -> None:
    """Required: on resume the deadline moves by the paused time."""
    state = replace(state, closing=False, paused_at=None)
    paused, _ = decide(state, Paused(NOON))
    resumed, _ = decide(paused, Resumed(NOON + timedelta(seconds=paused_s)))

    assert resumed == replace(state, deadline=state.deadline + timedelta(seconds=paused_s))


@pytest.mark.parametrize(
    ("state", "look", "wanted"),
    [
        (ROUND, Looked(NOON, 4), ()),
        (ROUND, Looked(NOON, 5), (Freeze(),)),
        (ROUND, Looked(ROUND.deadline, 3), (Freeze(),)),
        (ROUND, Looked(ROUND.deadline, 2), (Fail(Failure.TOO_FEW_UPDATES),)),
        (replace(ROUND, closing=True), Looked(NOON, 3), (Freeze(),)),
        (replace(ROUND, closing=True), Looked(NOON, 2), (Fail(Failure.TOO_FEW_UPDATES),)),
        (replace(ROUND, strategy=Strategy.FAIR), Looked(NOON, 4), (ReplaceDropouts(),)),
        (replace(ROUND, strategy=Strategy.POISSON), Looked(NOON, 9), ()),
        (
            replace(ROUND, strategy=Strategy.POISSON, closing=True),
            Looked(NOON, 9),
            (Fail(Failure.CLOSED_EARLY),),
        ),
        (
            replace(ROUND, extension_s=60, extensions_left=1),
            Looked(ROUND.deadline, 2),
            (Extend(ROUND.deadline + timedelta(minutes=1)),),
        ),
        (
            replace(ROUND, status=RoundStatus.INITIALIZED, strategy=Strategy.RANDOM),
            Looked(NOON, 0),
            (Begin(RoundStatus.SELECTING),),
        ),
        (replace(ROUND, status=RoundStatus.SELECTING), Looked(NOON, 0), (Draw(),)),
        (
            replace(ROUND, status=RoundStatus.SELECTING),
            Looked(ROUND.deadline, 0),
            (Fail(Failure.TOO_FEW_CLIENTS),),
        ),
        (replace(ROUND, status=RoundStatus.AGGREGATING), Looked(NOON, 0), (Release(),)),
    ],
    ids=[
        "too early and not full",
        "full",
        "enough at the deadline",
        "too few at the deadline",
        "closed with enough",
        "closed with too few",
        "reserves while it waits",
        "a Poisson round waits however many come",
        "a closed Poisson round",
        "put off while it may be",
        "the clients are drawn next",
        "drawn again while too few are there",
        "nobody to draw until the deadline",
        "the model is made",
    ],
)
def test_what_a_look_at_a_round_asks_for(state: State, look: Looked, wanted: tuple[Effect, ...]) -> None:
    """API.md: a round ends at planned_clients, deadline or close; below min_clients it is failed."""
    assert decide(state, look) == (state, wanted)


def test_one_report_leads_to_the_next_step() -> None:
    """DESIGN: the states in their order, each with what it asks for."""
    first = replace(ROUND, status=RoundStatus.INITIALIZED, strategy=Strategy.FAIR)
    begun, asks_to_draw = decide(first, Begun())
    drawn, asks_nothing = decide(begun, Drawn())
    frozen, asks_to_release = decide(drawn, Frozen())
    released, _ = decide(frozen, Released())

    statuses = [one.status for one in (first, begun, drawn, frozen, released)]
    assert statuses == [status for status in RoundStatus if status is not RoundStatus.FAILED]
    assert (asks_to_draw, asks_nothing, asks_to_release) == ((Draw(),), (), (Release(),))
    assert decide(replace(first, strategy=Strategy.ALL), Begun())[0].status is RoundStatus.ACTIVE


@given(states(GATHERING), st.integers(1, 7200))
def test_a_clock_that_is_behind_brings_no_deadline_forward(state: State, behind_s: int) -> None:
    """Another process, whose clock is behind, ends the pause: nobody has less time for it."""
    state = replace(state, closing=False, paused_at=None)
    paused, _ = decide(state, Paused(NOON))

    assert decide(paused, Resumed(NOON - timedelta(seconds=behind_s)))[0] == state
