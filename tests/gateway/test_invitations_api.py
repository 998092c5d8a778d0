"""Invitations over HTTP: a client's own, at once or by long poll, with bounded places and no connection held."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import replace
from datetime import timedelta
from typing import Any

import pytest
from federation import Federation, Silo, file_of, tensors
from flask import Flask
from flask.testing import FlaskClient
from services.clock import FixedClock
from sqlalchemy import select, update
from werkzeug.test import TestResponse

from audit.reading import reading
from gateway.api.invitations import poll_places
from gateway.app import create_app
from gateway.auth.clients import Move, move_client
from gateway.auth.refusals import close_refusals
from gateway.rounds.invitations import grant_time
from gateway.rounds.record import find_round
from gateway.rounds.selection import draw
from gateway.services import Services
from gateway.storage.bell import Channel
from gateway.tables import invitations, rounds

RANDOM: dict[str, Any] = {"selection": {"strategy": "random"}, "planned_clients": 1}


@pytest.fixture
def federation(services: Services, http: FlaskClient) -> Federation:
    """A federation with a model."""
    made = Federation(services, http)
    made.add_model()
    return made


def asked(federation: Federation, silo: Silo, query: str = "") -> list[dict[str, Any]]:
    """The client's invitations."""
    answer = federation.http.get(f"/api/v1/invitations{query}", headers=silo.headers)
    assert answer.status_code == 200, answer.text
    data: list[dict[str, Any]] = answer.json["data"]
    return data


def draw_one(federation: Federation, number: int = 1) -> str:
    """Draw the round's clients; the id of the one that was drawn."""
    services = federation.services
    with reading(services.engine) as conn:
        assert draw(services, find_round(conn, number))
        found = find_round(conn, number)
    with reading(services.engine) as conn:
        query = select(invitations.c.client_id).where(invitations.c.round_id == found.round_id)
        return str(conn.execute(query).scalar_one())


def test_a_client_sees_its_own_invitations_alone(federation: Federation) -> None:
    """DESIGN: `GET /api/v1/invitations` shows the client's own; the rest of it is what a client needs to begin."""
    silos = {silo.client_id: silo for silo in (federation.register("one"), federation.register("two"))}
    opened = federation.open_round(**RANDOM, training_config={"epochs": 3}).json
    before = [asked(federation, silo) for silo in silos.values()]
    chosen = silos.pop(draw_one(federation))
    (other,) = silos.values()

    (told,) = asked(federation, chosen)

    assert before == [[], []]
    assert asked(federation, other) == []
    assert (told["round_number"], told["status"]) == (1, "invited")
    assert told["policy_hash"] == opened["privacy"]["policy_hash"]
    assert told["global_model"] == opened["global_model"]
    assert (told["training_config"], told["deadline"]) == ({"epochs": 3}, opened["deadline"])
    assert told["invitation_id"] is not None
    assert told["invited_at"].startswith("2026-11-24T12:00")


def test_where_all_may_come_everybody_is_invited(federation: Federation) -> None:
    """A round of strategy all asks every client that has not answered, without a row."""
    silo, other = federation.register("one"), federation.register("two")
    federation.open_round(planned_clients=3)

    (told,) = asked(federation, silo)
    federation.submit(silo, file_of(tensors(1.0)))

    assert (told["invitation_id"], told["invited_at"], told["status"]) == (None, None, "invited")
    assert asked(federation, silo) == []
    assert len(asked(federation, other)) == 1


def test_an_invitation_ends_with_its_round(federation: Federation, clock: FixedClock) -> None:
    """Not while it is paused, not once it closes, not after its deadline."""
    silo = federation.register()
    federation.open_round()
    services = federation.services

    told = []
    for change in ({"paused_at": clock()}, {"paused_at": None}, {"closing": True}, {"closing": False}):
        with services.engine.begin() as conn:
            conn.execute(update(rounds).values(**change))
        told.append(len(asked(federation, silo)))
    clock.advance(timedelta(hours=2))

    assert told == [0, 1, 0, 1]
    assert asked(federation, silo) == []


def test_a_pause_costs_nobody_time(federation: Federation, clock: FixedClock) -> None:
    """The time to respond goes on after a pause: invitations move by as much as the deadline."""
    federation.register()
    federation.open_round(**RANDOM)
    draw_one(federation)

    with federation.services.engine.begin() as conn:
        grant_time(conn, find_round(conn, 1).round_id, timedelta(minutes=5))
        moved = conn.execute(select(invitations.c.invited_at)).scalar_one()

    assert moved == clock() + timedelta(minutes=5)


@pytest.mark.parametrize("query", ["wait=31", "wait=-1", "wait=1.5", "wait=x", "wait=", "wait=00000000020"])
def test_a_wrong_wait_is_refused(federation: Federation, query: str) -> None:
    """At most 30 whole seconds, else 422 that names the parameter."""
    answer = federation.http.get(f"/api/v1/invitations?{query}", headers=federation.register().headers)

    assert (answer.status_code, answer.json["errors"][0]["pointer"]) == (422, "?wait")


def test_only_participants_have_invitations(federation: Federation) -> None:
    """The scope is training:participate."""
    answer = federation.http.get("/api/v1/invitations", headers=federation.operator)

    assert answer.status_code == 403


def test_a_long_poll_without_an_invitation_ends_in_time(federation: Federation) -> None:
    """An empty list after `wait` seconds, and no sooner."""
    silo = federation.register()

    began = time.monotonic()
    told = asked(federation, silo, "?wait=1")
    took_s = time.monotonic() - began

    assert told == []
    assert 0.9 < took_s < 10


def test_a_long_poll_hears_of_an_invitation_at_once(federation: Federation) -> None:
    """The draw rings; the waiting client has its invitation well before the poll would end."""
    silo = federation.register()
    federation.open_round(**RANDOM)

    with polling(federation, silo) as answers:
        await_waiting(federation)
        drawn = time.monotonic()
        draw_one(federation)
        answer = answers()
        took_s = time.monotonic() - drawn

    assert len(answer.json["data"]) == 1
    assert took_s < 5


def test_a_long_poll_hears_of_a_round_for_all(federation: Federation) -> None:
    """A new round of strategy all wakes everybody."""
    silo = federation.register()

    with polling(federation, silo) as answers:
        await_waiting(federation)
        federation.open_round()
        answer = answers()

    assert len(answer.json["data"]) == 1


def test_a_round_for_all_rings_the_bell_of_invitations(federation: Federation) -> None:
    """No poll waits for its next look where every client may come."""
    bell = federation.services.bell
    bell.wait(Channel.INVITATIONS, 0.0)

    federation.open_round()

    assert bell.wait(Channel.INVITATIONS, 0.0)


def test_a_waiting_poll_holds_no_connection(federation: Federation, monkeypatch: pytest.MonkeyPatch) -> None:
    """A thousand silent clients must not empty the connection pool."""
    silo, bell, pool = federation.register(), federation.services.bell, federation.services.engine.pool
    wait, held = bell.wait, list[int]()

    def tell(channel: Channel, timeout_s: float) -> bool:
        held.append(pool.checkedout())  # type: ignore[attr-defined]
        return wait(channel, timeout_s)

    monkeypatch.setattr(bell, "wait", tell)
    asked(federation, silo, "?wait=2")

    assert set(held) == {0}


def test_polls_beyond_their_places_are_told_to_come_again(services: Services) -> None:
    """RULES 29: 503 with Retry-After; without `wait`, and for who has an invitation, no place is needed."""
    narrow = replace(services, config=replace(services.config, poll_threads=1))
    with application(narrow) as app:
        federation = Federation(narrow, app.test_client())
        federation.add_model()
        first, second = federation.register("one"), federation.register("two")

        with polling(federation, first, app=app) as answers:
            await_waiting(federation, app=app)
            refused = federation.http.get("/api/v1/invitations?wait=5", headers=second.headers)
            at_once = federation.http.get("/api/v1/invitations", headers=second.headers)
            federation.open_round()
            answers()
        served = federation.http.get("/api/v1/invitations?wait=5", headers=second.headers)

    assert (refused.status_code, refused.json["code"]) == (503, "INSUFFICIENT_RESOURCES")
    assert int(refused.headers["Retry-After"]) > 0
    assert (at_once.status_code, served.status_code) == (200, 200)


def test_a_client_s_newer_poll_ends_its_earlier_one(federation: Federation) -> None:
    """RULES 29: no client takes several places, and a poll whose client went away makes room when it comes again."""
    silo = federation.register()

    with polling(federation, silo) as first:
        await_waiting(federation)
        began = time.monotonic()
        newer = asked(federation, silo, "?wait=1")
        ended = first()
        took_s = time.monotonic() - began

    assert (newer, ended.json["data"]) == ([], [])
    assert took_s < 10


def test_who_is_suspended_during_a_poll_hears_of_no_round(federation: Federation) -> None:
    """A suspension holds at once, also for a request that was let in before."""
    silo = federation.register()

    with polling(federation, silo, wait_s=2) as answers:
        await_waiting(federation)
        move_client(federation.services, silo.client_id, Move.SUSPEND)
        federation.open_round()
        answer = answers()

    assert (answer.status_code, answer.json["data"]) == (200, [])


def test_polls_and_uploads_leave_a_thread_for_small_requests() -> None:
    """RULES 29: whatever is configured, the places of both together are fewer than the request threads."""
    places = poll_places(100, web_threads=16, upload_threads=8)

    taken = 0
    while places.acquire(blocking=False):
        taken += 1

    assert taken == 7


@contextmanager
def application(services: Services) -> Iterator[Flask]:
    """An application of its own on these services."""
    app = create_app(services)
    try:
        yield app
    finally:
        close_refusals(app)


@contextmanager
def polling(
    federation: Federation, silo: Silo, *, wait_s: int = 20, app: Flask | None = None
) -> Iterator[Callable[[], TestResponse]]:
    """A long poll in a thread of its own; the function given waits for its answer."""
    http = (app or federation.http.application).test_client()
    with ThreadPoolExecutor(1) as pool:
        url = f"/api/v1/invitations?wait={wait_s}"
        asking = pool.submit(http.get, url, headers=silo.headers)
        yield lambda: asking.result(30)


def await_waiting(federation: Federation, *, app: Flask | None = None) -> None:
    """Until a poll has taken its place."""
    places: threading.BoundedSemaphore = (app or federation.http.application).extensions[
        "fl_gateway_poll_places"
    ]
    whole = places._initial_value  # type: ignore[attr-defined]
    deadline = time.monotonic() + 10
    while places._value == whole:  # type: ignore[attr-defined]
        assert time.monotonic() < deadline
        time.sleep(0.01)
