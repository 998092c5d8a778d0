"""What an operator orders of a running round: pause, resume, a later deadline, an early end; over HTTP."""

from __future__ import annotations

from collections.abc import Callable
from datetime import datetime, timedelta
from hashlib import sha256
from typing import Any

import pytest
from federation import Federation, file_of, tensors
from flask.testing import FlaskClient
from services.clock import FixedClock
from sqlalchemy import update
from werkzeug.test import TestResponse

from audit.reading import reading
from gateway.auth.tokens import find
from gateway.errors import RoundPaused
from gateway.rounds.freezing import freeze
from gateway.rounds.intake import Wish, commit, open_for, prepare, receive
from gateway.rounds.pausing import pause
from gateway.rounds.record import find_round
from gateway.services import Services
from gateway.tables import rounds

Entries = Callable[..., list[dict[str, Any]]]
GOOD = file_of(tensors(0.5))
HOUR = timedelta(hours=1)


@pytest.fixture
def federation(services: Services, http: FlaskClient) -> Federation:
    """A federation with a model and no round."""
    made = Federation(services, http)
    assert made.add_model().status_code == 201
    return made


def order(federation: Federation, what: str, number: int = 1, **body: Any) -> TestResponse:
    """Give an order as the operator."""
    url = f"/api/v1/rounds/{number}/{what}"
    return federation.http.post(url, headers=federation.operator, **({"json": body} if body else {}))


def deadline_of(federation: Federation) -> datetime:
    """The round's deadline as the API shows it."""
    return datetime.fromisoformat(federation.round()["deadline"])


def pass_time(federation: Federation, clock: FixedClock, time: timedelta) -> None:
    """Let time pass and the worker look; the operator's token is renewed."""
    clock.advance(time)
    federation.work()
    federation.operator = federation.staff("operator")


# Pause and resume


def test_a_paused_round_takes_no_update_and_is_not_frozen(
    federation: Federation, clock: FixedClock, entries: Entries
) -> None:
    """Required: while paused 409 ROUND_PAUSED, neither frozen nor failed, full or past its deadline or not."""
    federation.open_round(planned_clients=2, min_clients=2)
    federation.submit(federation.register(), GOOD)
    late = federation.register()

    paused = order(federation, "pause")
    refused = federation.submit(late, GOOD)
    pass_time(federation, clock, 3 * HOUR)

    assert (paused.status_code, paused.json["paused"], paused.json["status"]) == (200, True, "active")
    assert (refused.status_code, refused.json["code"]) == (409, "ROUND_PAUSED")
    assert (federation.round()["status"], federation.round()["paused"]) == ("active", True)
    assert [entry["details"] for entry in entries("round.paused")] == [{"round_number": 1}]


def test_a_resumed_round_has_the_time_that_it_was_paused(
    federation: Federation, clock: FixedClock, entries: Entries
) -> None:
    """Required: on resume the deadline moves by the paused time; the round goes on as if nothing had been."""
    federation.open_round(planned_clients=2, min_clients=2)
    federation.submit(federation.register(), GOOD)
    other, before = federation.register(), deadline_of(federation)
    order(federation, "pause")
    pass_time(federation, clock, 3 * HOUR)

    resumed = order(federation, "resume")
    accepted = federation.submit(other, GOOD)
    federation.work()

    assert (resumed.status_code, resumed.json["paused"]) == (200, False)
    assert deadline_of(federation) == before + 3 * HOUR
    assert accepted.status_code == 202
    assert federation.round()["status"] == "completed"
    (entry,) = entries("round.resumed")
    assert entry["details"]["paused_s"] == 3 * 3600
    assert datetime.fromisoformat(entry["details"]["deadline"]) == before + 3 * HOUR
    assert entry["sealed"] == set()


def test_a_round_that_is_paused_during_an_upload_does_not_take_it(
    federation: Federation, services: Services
) -> None:
    """Accepting looks again under the round's lock; what is refused leaves nothing."""
    federation.open_round()
    silo = federation.register()
    client = _client(services, silo.token)
    found, schema = open_for(services, client, 1)
    wish = Wish(_checksum(GOOD), None, {})
    arrived = receive(services, client, schema, iter([GOOD]), wish)
    accepted = prepare(services, client, found, arrived, wish)
    before = federation.kept()["client_updates"]
    pause(services, 1)

    with pytest.raises(RoundPaused):
        commit(services, arrived, accepted, remember=lambda _: None)

    assert federation.kept()["client_updates"] == before
    assert arrived.blob_id not in set(services.blobs.names())


def test_a_round_that_is_paused_between_the_look_and_the_freeze_is_not_frozen(
    federation: Federation, services: Services
) -> None:
    """The freeze asks again under the lock: the worker's look may be older than the order."""
    federation.open_round(planned_clients=1)
    federation.submit(federation.register(), GOOD)
    with reading(services.engine) as conn:
        seen_before = find_round(conn, 1)
    order(federation, "pause")

    assert not freeze(services, seen_before)
    assert federation.round()["status"] == "active"


def test_orders_that_do_not_fit_are_refused(federation: Federation, clock: FixedClock) -> None:
    """409 with the reason; nothing changes."""
    federation.open_round()

    not_paused = order(federation, "resume")
    order(federation, "pause")
    twice = order(federation, "pause")
    order(federation, "close")
    after_close = [order(federation, what) for what in ("pause", "resume", "close")]

    assert (not_paused.status_code, not_paused.json["code"]) == (409, "CONFLICT")
    assert (twice.status_code, twice.json["code"]) == (409, "ROUND_PAUSED")
    assert {(one.status_code, one.json["code"]) for one in after_close} == {(409, "ROUND_EXPIRED")}
    assert order(federation, "pause", 7).status_code == 404
    assert order(federation, "pause", 1 << 40).status_code == 404


def test_a_paused_round_can_be_closed(federation: Federation, clock: FixedClock) -> None:
    """The operator's last word: its pause ends with it, and what came is aggregated."""
    federation.open_round(planned_clients=5, min_clients=1)
    federation.submit(federation.register(), GOOD)
    order(federation, "pause")
    pass_time(federation, clock, 2 * HOUR)

    closed = order(federation, "close")
    federation.work()

    assert (closed.status_code, closed.json["paused"]) == (202, False)
    assert federation.round()["status"] == "completed"


def test_only_operators_give_orders(federation: Federation) -> None:
    """The scope round:manage; a participant is refused."""
    federation.open_round()
    silo = federation.register()

    answers = [
        federation.http.post(f"/api/v1/rounds/1/{what}", json={}, headers=silo.headers)
        for what in ("pause", "resume", "extend", "close")
    ]

    assert {(one.status_code, one.json["code"]) for one in answers} == {(403, "INSUFFICIENT_SCOPE")}


# Deadlines


def test_an_update_after_the_deadline_is_refused(federation: Federation, clock: FixedClock) -> None:
    """Required: late updates 409 ROUND_EXPIRED, also before the worker looked."""
    federation.open_round()
    silo = federation.register()
    clock.advance(HOUR)

    answer = federation.submit(silo, GOOD)

    assert (answer.status_code, answer.json["code"]) == (409, "ROUND_EXPIRED")


def test_a_round_with_too_few_updates_is_put_off_so_often_and_then_fails(
    federation: Federation, clock: FixedClock, entries: Entries
) -> None:
    """Required: at the deadline below min_clients it is extended, at most `times` times, each with an entry."""
    federation.open_round(min_clients=2, extension={"seconds": 600, "times": 2})
    federation.submit(federation.register(), GOOD)
    first = deadline_of(federation)

    pass_time(federation, clock, HOUR)
    second, left = deadline_of(federation), federation.round()["extension"]["times_left"]
    pass_time(federation, clock, timedelta(minutes=10))
    pass_time(federation, clock, timedelta(minutes=10))

    assert (second, left) == (first + timedelta(minutes=10), 1)
    assert (federation.round()["status"], federation.round()["failure"]) == ("failed", "TOO_FEW_UPDATES")
    told = [entry["details"] for entry in entries("round.extended")]
    assert [(one["accepted"], one["min_clients"], one["extensions_left"]) for one in told] == [
        (1, 2, 1),
        (1, 2, 0),
    ]


def test_an_extended_round_that_gets_enough_is_completed(federation: Federation, clock: FixedClock) -> None:
    """What an extension is for."""
    federation.open_round(min_clients=2, extension={"seconds": 600, "times": 1})
    federation.submit(federation.register(), GOOD)
    other = federation.register()
    pass_time(federation, clock, HOUR)

    accepted = federation.submit(other, GOOD)
    federation.work()

    assert accepted.status_code == 202
    assert federation.round()["status"] == "completed"


def test_the_operator_sets_a_later_deadline(
    federation: Federation, clock: FixedClock, entries: Entries
) -> None:
    """Required: also by the operator; entry round.extended, and clients see it."""
    federation.open_round()
    later = clock.now + 5 * HOUR

    extended = order(federation, "extend", deadline=later.isoformat())
    pass_time(federation, clock, 2 * HOUR)

    assert extended.status_code == 200
    assert deadline_of(federation) == later
    assert federation.round()["status"] == "active"
    (entry,) = entries("round.extended")
    assert datetime.fromisoformat(entry["details"]["deadline"]) == later


@pytest.mark.parametrize(
    "deadline",
    ["2026-11-24T12:30:00Z", "2026-11-24T11:00:00Z", "2046-11-24T12:00:00Z", "2026-11-24T18:00:00", "soon"],
    ids=["earlier than now planned", "in the past", "in twenty years", "without a zone", "no time"],
)
def test_a_deadline_that_is_none_is_refused(federation: Federation, deadline: str) -> None:
    """422 that names the member; the deadline stays."""
    federation.open_round()
    before = deadline_of(federation)

    answer = order(federation, "extend", deadline=deadline)

    assert (answer.status_code, answer.json["code"]) == (422, "VALIDATION_FAILED")
    assert answer.json["errors"][0]["pointer"] == "/deadline"
    assert deadline_of(federation) == before


def test_a_poisson_round_has_no_other_deadline_and_no_early_end(
    federation: Federation, services: Services, clock: FixedClock
) -> None:
    """RULES 12: its sample must not depend on who came: no later deadline, and closed early it makes no model."""
    federation.add_model(privacy_budget={"epsilon": 8.0, "delta": 1e-5})
    noised = {"mechanism": "gaussian", "clip_norm": 1.0, "noise_multiplier": 4.0}
    for _ in range(3):
        federation.register()
    sampling = {"strategy": "poisson", "sampling_rate": 0.5}
    opened = federation.open_round(privacy=noised, selection=sampling, min_clients=1)
    assert opened.status_code == 201, opened.text
    federation.work()

    extended = order(federation, "extend", deadline=(clock.now + 9 * HOUR).isoformat())
    closed = order(federation, "close")
    federation.work()

    assert (extended.status_code, extended.json["code"]) == (409, "CONFLICT")
    assert closed.status_code == 202
    assert (federation.round()["status"], federation.round()["failure"]) == ("failed", "CLOSED_EARLY")
    assert services.state.spends() == []


def test_a_round_without_clients_to_draw_fails_at_its_deadline(
    federation: Federation, clock: FixedClock
) -> None:
    """No round hangs: nobody eligible came until the deadline."""
    federation.open_round(selection={"strategy": "random"}, min_clients=2)
    federation.work()
    waiting = federation.round()["status"]

    pass_time(federation, clock, HOUR)

    assert waiting == "selecting"
    assert (federation.round()["status"], federation.round()["failure"]) == ("failed", "TOO_FEW_CLIENTS")


def test_a_round_of_drawn_clients_goes_through_all_states(federation: Federation, services: Services) -> None:
    """DESIGN: initialized, selecting, active, aggregating, completed; the worker drives it from the first on."""
    silos = [federation.register() for _ in range(3)]
    federation.open_round(selection={"strategy": "fair"}, planned_clients=3, min_clients=3)
    with services.engine.begin() as conn:
        conn.execute(update(rounds).values(status="initialized"))
    federation.work()
    drawn = federation.round()["status"]
    for silo in silos:
        assert federation.submit(silo, GOOD).status_code == 202

    federation.work()

    assert (drawn, federation.round()["status"]) == ("active", "completed")


def test_a_round_that_waits_in_its_first_state_can_be_ended(
    federation: Federation, services: Services
) -> None:
    """An order fits a round that has not begun: closed, it fails without a model, whatever its strategy."""
    federation.open_round()
    with services.engine.begin() as conn:
        conn.execute(update(rounds).values(status="initialized"))

    closed = order(federation, "close")
    federation.work()

    assert closed.status_code == 202
    assert (federation.round()["status"], federation.round()["failure"]) == ("failed", "CLOSED_EARLY")


def _client(services: Services, token: str) -> Any:
    found = find(services, token)
    assert found is not None
    return found.client


def _checksum(body: bytes) -> str:
    return sha256(body).hexdigest()
