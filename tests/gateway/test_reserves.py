"""After the draw: reserves for those who do not answer, and who is let in with an update."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta
from hashlib import sha256
from io import BytesIO
from typing import Any

import pytest
from federation import Federation, file_of, tensors
from flask.testing import FlaskClient
from selecting import RANDOM, Entries, found, invited, open_selecting, people, subject_of
from services.clock import FixedClock
from sqlalchemy import select, update

from audit.reading import reading
from gateway.auth.clients import Move, move_client
from gateway.places import ClientsPlace
from gateway.rounds.invitations import InvitationStatus
from gateway.rounds.selection import draw, replace_dropouts
from gateway.services import Services
from gateway.tables import clients, invitations, rounds


@pytest.fixture
def federation(services: Services, http: FlaskClient) -> Federation:
    """A federation with a model."""
    made = Federation(services, http)
    made.add_model()
    return made


def test_a_reserve_takes_the_place_of_one_who_does_not_answer(
    federation: Federation, services: Services, clock: FixedClock, entries: Entries
) -> None:
    """After `respond_within_s` without an update a reserve is asked; who is replaced may still come."""
    silos = {silo.client_id: silo for silo in people(federation, 4)}
    selection = RANDOM | {"reserves": 1, "respond_within_s": 60}
    draw(services, open_selecting(federation, selection))
    answering, silent = sorted(invited(services))
    (reserve,) = invited(services, "reserve")
    sent = federation.submit(silos[answering], file_of(tensors(1.0)))

    early = replace_dropouts(services, found(services))
    clock.advance(timedelta(seconds=61))
    replaced = replace_dropouts(services, found(services))
    again = replace_dropouts(services, found(services))

    assert sent.status_code == 202
    assert (early, replaced, again) == (0, 1, 0)
    assert invited(services) == {answering, reserve}
    assert invited(services, "replaced") == {silent}
    assert entries("round.selected")[-1]["details"]["reason"] == "dropouts"
    assert federation.submit(silos[silent], file_of(tensors(1.0))).status_code == 202


def test_without_enough_reserves_nobody_loses_the_place(
    federation: Federation, services: Services, clock: FixedClock
) -> None:
    """Only as many are replaced as reserves come: the first in the order of the draw."""
    people(federation, 4)
    draw(
        services,
        open_selecting(federation, RANDOM | {"reserves": 1, "respond_within_s": 60}, planned_clients=3),
    )

    clock.advance(timedelta(seconds=61))
    asked = replace_dropouts(services, found(services))

    assert asked == 1
    assert (len(invited(services)), len(invited(services, "replaced"))) == (3, 1)


def test_a_suspended_or_erased_client_makes_room_at_once(federation: Federation, services: Services) -> None:
    """Who went away will not answer: a reserve is asked, and a suspended reserve is passed over."""
    people(federation, 7)
    draw(services, open_selecting(federation, RANDOM | {"reserves": 3}, planned_clients=4))
    suspended, erased = sorted(invited(services))[:2]
    away = sorted(invited(services, "reserve"))[0]
    for client_id in (suspended, away):
        move_client(services, client_id, Move.SUSPEND)
    with reading(services.engine) as conn:
        subject = conn.execute(select(clients.c.subject_id).where(clients.c.client_id == erased)).scalar_one()
    ClientsPlace(services).erase(subject)

    asked = replace_dropouts(services, found(services))

    assert asked == 2
    assert len(invited(services)) == 4
    assert invited(services, "withdrawn") == {suspended, away}
    assert erased not in invited(services, *InvitationStatus)


def test_one_who_is_late_and_gone_makes_room_once(
    federation: Federation, services: Services, clock: FixedClock
) -> None:
    """A suspended client whose time is over too is one dropout, not two."""
    people(federation, 3)
    selection = RANDOM | {"reserves": 2, "respond_within_s": 60}
    draw(services, open_selecting(federation, selection, planned_clients=1))
    (asked_first,) = invited(services)
    move_client(services, asked_first, Move.SUSPEND)
    clock.advance(timedelta(seconds=61))

    asked = replace_dropouts(services, found(services))

    assert asked == 1
    assert len(invited(services)) == 1
    assert invited(services, "withdrawn") == {asked_first}


def test_two_workers_ask_a_reserve_once(
    federation: Federation, services: Services, clock: FixedClock
) -> None:
    """The plan is made again under the round's lock."""
    people(federation, 5)
    draw(services, open_selecting(federation, RANDOM | {"reserves": 3, "respond_within_s": 60}))
    clock.advance(timedelta(seconds=61))
    seen = found(services)

    with ThreadPoolExecutor(2) as pool:
        asked = sum(pool.map(lambda _: replace_dropouts(services, seen), range(2)))

    assert asked == 2
    assert (len(invited(services)), len(invited(services, "reserve"))) == (2, 1)


def test_a_paused_or_closed_round_asks_no_reserve(
    federation: Federation, services: Services, clock: FixedClock
) -> None:
    """Nobody can answer a round that takes nothing."""
    people(federation, 4)
    draw(services, open_selecting(federation, RANDOM | {"reserves": 2, "respond_within_s": 60}))
    clock.advance(timedelta(seconds=61))
    with services.engine.begin() as conn:
        conn.execute(update(rounds).values(paused_at=services.clock()))

    asked = replace_dropouts(services, found(services))

    assert asked == 0


def test_a_round_that_is_over_asks_no_reserve(
    federation: Federation, services: Services, clock: FixedClock
) -> None:
    """Nor does one whose deadline passed while the plan was made."""
    people(federation, 4)
    draw(services, open_selecting(federation, RANDOM | {"reserves": 2, "respond_within_s": 60}))
    clock.advance(timedelta(hours=2))

    asked = replace_dropouts(services, found(services))

    assert asked == 0


def test_who_was_not_invited_is_refused(federation: Federation, services: Services) -> None:
    """409 NOT_INVITED before the body is looked at; nothing is left of it."""
    silos = {silo.client_id: silo for silo in people(federation, 3)}
    draw(services, open_selecting(federation, RANDOM | {"reserves": 1}, planned_clients=1, min_clients=1))
    (asked,), (reserve,) = invited(services), invited(services, "reserve")
    (stranger,) = set(silos) - {asked, reserve}
    before = federation.kept()

    refused = [federation.submit(silos[one], b"no model: nobody reads it") for one in (stranger, reserve)]
    kept = federation.kept()
    accepted = federation.submit(silos[asked], file_of(tensors(1.0)))

    assert {(answer.status_code, answer.json["code"]) for answer in refused} == {(409, "NOT_INVITED")}
    assert kept == before
    assert accepted.status_code == 202


def test_an_invitation_withdrawn_during_the_upload_is_refused(
    federation: Federation, services: Services
) -> None:
    """The committing transaction looks again under the round's lock."""
    (silo,) = people(federation, 1)
    draw(services, open_selecting(federation, RANDOM, planned_clients=1))
    body = file_of(tensors(1.0))
    before = federation.kept()

    class Withdrawing(BytesIO):
        """A body during which the client loses its invitation."""

        def readinto(self, buffer: Any) -> int:
            with services.engine.begin() as conn:
                conn.execute(update(invitations).values(status=InvitationStatus.WITHDRAWN.value))
            return super().readinto(buffer)

        def read(self, size: int | None = -1, /) -> bytes:
            chunk = super().read(size)
            with services.engine.begin() as conn:
                conn.execute(update(invitations).values(status=InvitationStatus.WITHDRAWN.value))
            return chunk

    answer = federation.http.post(
        "/api/v1/rounds/1/updates",
        input_stream=Withdrawing(body),
        content_length=len(body),
        headers={"X-Update-Checksum": sha256(body).hexdigest(), **silo.headers},
    )

    assert (answer.status_code, answer.json["code"]) == (409, "NOT_INVITED")
    assert federation.kept() == before


def test_an_export_shows_the_invitations(federation: Federation, services: Services) -> None:
    """Art. 15: which rounds chose a person's clients, and when."""
    (silo,) = people(federation, 1)
    draw(services, open_selecting(federation, RANDOM, planned_clients=1))

    files = {part.category: part for part in ClientsPlace(services).export(subject_of(services, silo))}

    (row,) = list(files["invitations"].rows)
    assert (row["client_id"], row["round_number"], row["status"]) == (silo.client_id, 1, "invited")
    assert row["invited_at"].startswith("2026-11-24")
