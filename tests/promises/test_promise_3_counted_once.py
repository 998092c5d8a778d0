"""Promise 3: an acknowledged update is counted once, or its round failed and an entry says so (RULES 4, 5, 6)."""

from __future__ import annotations

from hashlib import sha256
from threading import Thread
from uuid import uuid4

import numpy as np
import pytest
from living.driver import BARE, BUDGET, Driver, Json, Person, await_that, good, tensors
from living.home import Home
from living.interruption import Interruption
from living.threads import local_gateway_in
from sqlalchemy import delete, select

from aggregation.wire import write_safetensors
from audit.reading import reading
from gateway.auth.tokens import AuthenticatedClient, find
from gateway.errors import RoundExpired
from gateway.messaging.outbox import QueueName, post
from gateway.rounds.freezing import freeze
from gateway.rounds.intake import Wish, commit, open_for, prepare, receive
from gateway.rounds.record import Round, find_round
from gateway.services import Services
from gateway.tables import client_updates, outbox, rounds


def test_a_broker_that_loses_and_doubles_messages_changes_nothing(home: Home) -> None:
    """Messages are hints: rows count, whatever the queue says of them (RULES 4)."""
    with local_gateway_in(home, "sequencer") as gateway:
        gateway.add_model()
        people = [gateway.register() for _ in range(3)]
        number = gateway.open_round(BARE, planned_clients=3, min_clients=3)
        ids = {gateway.submit(person, number)["update_id"] for person in people}
    with home.stores() as services, services.engine.begin() as conn:
        conn.execute(delete(outbox))
        for update_id in [*list(ids)[:1] * 3, str(uuid4())]:
            body = {"update_id": update_id, "round_number": number}
            post(conn, QueueName.MODEL_UPDATES, body, services.clock())

    with local_gateway_in(home) as gateway:
        ended = gateway.await_end(number)

    assert (ended["status"], ended["num_updates"]) == ("completed", 3)
    assert cohort(home, number) == sorted(ids)


def test_a_model_is_its_base_and_the_mean_of_exactly_the_acknowledged_updates(home: Home) -> None:
    """None left out, none twice: the numbers of the published model say so, also with six senders at once."""
    with local_gateway_in(home) as gateway:
        gateway.add_model()
        people = [gateway.register() for _ in range(6)]
        number = gateway.open_round(BARE, planned_clients=6, min_clients=6)
        answers: list[Json] = []
        senders = [
            Thread(target=lambda p=p, i=i: answers.append(gateway.submit(p, number, _ones(2.0**i))))
            for i, p in enumerate(people)
        ]
        for sender in senders:
            sender.start()
        for sender in senders:
            sender.join()

        model = gateway.await_end(number)["result_model"]

        got = gateway.http.get(model["download_url"], headers=people[0].headers).content
    assert len({answer["update_id"] for answer in answers}) == 6
    moved = np.frombuffer(got[-16:], np.float32) - np.frombuffer(tensors(0)[-16:], np.float32)
    np.testing.assert_allclose(moved, (2.0**6 - 1) / 6, rtol=1e-5)


def test_a_round_below_its_minimum_fails_and_says_so(home: Home) -> None:
    """The one update is dropped, not lost: its sender and the log are told; the reservation is given back."""
    with local_gateway_in(home) as gateway:
        gateway.add_model(budget=BUDGET)
        person = gateway.register()
        number = gateway.open_round(planned_clients=3, min_clients=2)
        update_id = gateway.submit(person, number)["update_id"]
        closed = gateway.http.post(f"/api/v1/rounds/{number}/close", headers=gateway.as_role("operator"))

        ended = gateway.await_end(number)

        shown = good(gateway.http.get(f"/api/v1/updates/{update_id}", headers=person.headers), 200)
        (entry,) = await_that("the entry", lambda: gateway.entries("round.failed"))
        (line,) = good(gateway.http.get("/api/v1/privacy/budget", headers=gateway.as_role("dpo")), 200)[
            "data"
        ]
    assert closed.status_code == 202
    assert (ended["status"], ended["failure"], shown["status"]) == ("failed", "TOO_FEW_UPDATES", "dropped")
    assert (entry["details"]["reason"], entry["details"]["spend_stays"]) == ("TOO_FEW_UPDATES", False)
    assert float(line["epsilon_spent"]) == 0


def test_updates_that_race_with_the_close_are_counted_or_refused(home: Home) -> None:
    """Every 202 is in the cohort, every refusal is not, whoever wins the race for the round's row (RULES 5)."""
    with local_gateway_in(home) as gateway:
        gateway.add_model()
        people = [gateway.register() for _ in range(10)]
        number = gateway.open_round(BARE, planned_clients=20, min_clients=1)
        accepted, refused = [gateway.submit(people[0], number)["update_id"]], []
        senders = [
            Thread(target=_send_some, args=(gateway, some, number, accepted, refused))
            for some in (people[1::2], people[2::2])
        ]
        for sender in senders:
            sender.start()
        await_that("some are in", lambda: len(accepted) > 3)
        gateway.http.post(f"/api/v1/rounds/{number}/close", headers=gateway.as_role("operator"))
        for sender in senders:
            sender.join()

        assert gateway.await_end(number)["status"] == "completed"

    assert cohort(home, number) == sorted(accepted)
    assert len(accepted) + len(refused) == 10
    assert set(refused) <= {"ROUND_EXPIRED"}
    with home.stores() as services, reading(services.engine) as conn:
        assert sorted(conn.execute(select(client_updates.c.update_id)).scalars()) == sorted(accepted)


def test_an_update_that_comes_between_the_look_and_the_freeze_is_in_the_cohort(home: Home) -> None:
    """The freeze looks again under the lock, and begins anew if an update came or went meanwhile (RULES 5)."""
    clock = Interruption()
    with local_gateway_in(home, "sequencer") as gateway, home.stores(clock=clock) as services:
        gateway.add_model()
        people = [gateway.register(), gateway.register()]
        number = gateway.open_round(BARE, planned_clients=1, min_clients=1)
        ids = [gateway.submit(people[0], number)["update_id"]]
        clock.arm(2, lambda: ids.append(gateway.submit(people[1], number)["update_id"]))

        frozen = [freeze(services, _round(services, number)) for _ in range(2)]

    assert clock.happened
    assert frozen == [False, True]
    assert cohort(home, number) == sorted(ids)


def test_an_update_whose_round_freezes_between_its_check_and_its_commit_is_refused(home: Home) -> None:
    """Accepting looks at the round again, under the lock; what is refused leaves no blob and no entry."""
    with local_gateway_in(home, "sequencer") as gateway, home.stores() as services:
        gateway.add_model()
        people = [gateway.register(), gateway.register()]
        number = gateway.open_round(BARE, planned_clients=1, min_clients=1)
        late, wish = _client(services, people[1]), Wish(sha256(tensors(1)).hexdigest(), None, {})
        found, schema = open_for(services, late, number)
        arrived = receive(services, late, schema, iter([tensors(1)]), wish)
        accepted = prepare(services, late, found, arrived, wish)
        counted = gateway.submit(people[0], number)["update_id"]
        freeze(services, _round(services, number))

        with pytest.raises(RoundExpired):
            commit(services, arrived, accepted, remember=lambda _: None)

        orphans = home.orphan_blobs()
        await_that("the log is at rest", lambda: gateway.entries("round.frozen"))
        told = gateway.entries("update.accepted")
    assert cohort(home, number) == [counted]
    assert not orphans
    assert len(told) == 1


@pytest.mark.parametrize("home", ["embedded"], indirect=True)
def test_the_same_request_sent_many_times_at_once_is_one_update(home: Home) -> None:
    """A client that repeats itself in a panic gets one answer, again and again, and counts once."""
    with local_gateway_in(home) as gateway:
        gateway.add_model()
        person, other = gateway.register(), gateway.register()
        number = gateway.open_round(BARE)
        answers: list[Json] = []
        senders = [
            Thread(target=lambda: answers.append(gateway.submit(person, number, Idempotency_Key="one")))
            for _ in range(6)
        ]
        for sender in senders:
            sender.start()
        for sender in senders:
            sender.join()
        gateway.submit(other, number)

        ended = gateway.await_end(number)

    assert len(answers) == 6
    assert len({answer["receipt"] for answer in answers}) == 1
    assert ended["num_updates"] == 2


def cohort(home: Home, number: int) -> list[str]:
    """The frozen cohort of a round."""
    with home.stores() as services, reading(services.engine) as conn:
        query = select(rounds.c.cohort).where(rounds.c.round_number == number)
        found: list[str] = conn.execute(query).scalar_one()
        return found


def _round(services: Services, number: int) -> Round:
    with reading(services.engine) as conn:
        return find_round(conn, number)


def _client(services: Services, person: Person) -> AuthenticatedClient:
    token = find(services, person.token)
    assert token is not None
    return token.client


def _ones(value: float) -> bytes:
    shapes = {"b": (4,), "w": (8, 4)}
    made = {name: np.full(shape, value, np.float32) for name, shape in shapes.items()}
    return b"".join(write_safetensors(made))


def _send_some(
    gateway: Driver, people: list[Person], number: int, accepted: list[str], refused: list[str]
) -> None:
    for person in people:
        answer = gateway.send(person, number, tensors(1))
        if answer.status_code == 202:
            accepted.append(answer.json()["update_id"])
        else:
            refused.append(answer.json()["code"])
