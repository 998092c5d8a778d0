"""One switch for all intake, at the console and over HTTP: while it is off, nothing is taken."""

from __future__ import annotations

import io
from collections.abc import Callable
from dataclasses import replace
from datetime import timedelta
from hashlib import sha256
from threading import Event, Thread
from typing import Any

import pytest
from federation import Federation, file_of, tensors
from flask.testing import FlaskClient
from services.clock import FixedClock
from sqlalchemy import event

from gateway.auth.tokens import find
from gateway.errors import Busy, IntakeStopped
from gateway.rounds.intake import Wish, commit, open_for, prepare, receive
from gateway.rounds.intake_switch import resume_intake, stop_intake
from gateway.services import Services

Entries = Callable[..., list[dict[str, Any]]]
GOOD = file_of(tensors(0.5))


@pytest.fixture
def federation(services: Services, http: FlaskClient) -> Federation:
    """A federation with a model and no round."""
    made = Federation(services, http)
    assert made.add_model().status_code == 201
    return made


def turn(federation: Federation, what: str) -> dict[str, Any]:
    """Stop or resume the intake as the operator."""
    answer = federation.http.post(f"/api/v1/intake/{what}", headers=federation.operator)
    assert answer.status_code == 200, answer.text
    told: dict[str, Any] = answer.json
    return told


def shown(federation: Federation) -> dict[str, Any]:
    """The switch as the API shows it."""
    told: dict[str, Any] = federation.http.get("/api/v1/intake", headers=federation.operator).json
    return told


class WatchedBody(io.BytesIO):
    """A request body that remembers whether somebody read it."""

    was_read = False

    def read(self, size: int | None = -1, /) -> bytes:
        """The next bytes."""
        self.was_read = True
        return super().read(size)

    def readinto(self, buffer: Any, /) -> int:
        """The next bytes, into a buffer."""
        self.was_read = True
        return super().readinto(buffer)


def test_while_the_intake_is_stopped_nothing_is_taken(federation: Federation, entries: Entries) -> None:
    """Required: updates and new rounds get 503 INTAKE_STOPPED with Retry-After; nothing is left of them."""
    federation.open_round()
    silo = federation.register()
    turn(federation, "stop")
    before = federation.kept()

    answers = [federation.submit(silo, GOOD), federation.open_round()]

    assert {(one.status_code, one.json["code"]) for one in answers} == {(503, "INTAKE_STOPPED")}
    assert all(int(one.headers["Retry-After"]) > 0 for one in answers)
    assert federation.kept() == before
    assert shown(federation)["status"] == "stopped"
    assert [entry["details"] for entry in entries("intake.stopped")] == [{}]


def test_the_body_of_a_refused_update_is_not_read(federation: Federation) -> None:
    """Required: the switch is looked at before the body is."""
    federation.open_round()
    silo, body = federation.register(), WatchedBody(GOOD)
    turn(federation, "stop")

    answers = [
        federation.http.post(
            url,
            input_stream=body,
            content_length=len(GOOD),
            content_type="application/json",
            headers={**who, "X-Update-Checksum": sha256(GOOD).hexdigest()},
        )
        for url, who in (("/api/v1/rounds/1/updates", silo.headers), ("/api/v1/rounds", federation.operator))
    ]

    assert {one.json["code"] for one in answers} == {"INTAKE_STOPPED"}
    assert not body.was_read


def test_after_it_is_resumed_everything_is_taken_again(federation: Federation, entries: Entries) -> None:
    """The same update, sent again, is accepted; turning the switch twice is one entry."""
    federation.open_round(planned_clients=1)
    silo = federation.register()
    before = shown(federation)
    first, second = turn(federation, "stop"), turn(federation, "stop")
    federation.submit(silo, GOOD)

    turn(federation, "resume")
    accepted = federation.submit(silo, GOOD)
    federation.work()

    assert before == {"status": "open", "since": None}
    assert first == second
    assert accepted.status_code == 202
    assert federation.round()["status"] == "completed"
    assert (len(entries("intake.stopped")), len(entries("intake.resumed"))) == (1, 1)


def test_rounds_end_while_the_intake_is_stopped(federation: Federation) -> None:
    """What came before is aggregated: the switch is about taking, not about making."""
    federation.open_round(planned_clients=5)
    federation.submit(federation.register(), GOOD)
    turn(federation, "stop")

    federation.http.post("/api/v1/rounds/1/close", headers=federation.operator)
    federation.work()

    assert federation.round()["status"] == "completed"


def test_an_upload_that_began_before_the_stop_is_not_committed_after_it(
    federation: Federation, services: Services
) -> None:
    """Required: looked at again in the committing transaction; nothing of the body is left."""
    federation.open_round()
    token = find(services, federation.register().token)
    assert token is not None
    found, schema = open_for(services, token.client, 1)
    wish = Wish(sha256(GOOD).hexdigest(), None, {})
    arrived = receive(services, token.client, schema, iter([GOOD]), wish)
    accepted = prepare(services, token.client, found, arrived, wish)
    stop_intake(services)
    before = federation.kept()["client_updates"]

    with pytest.raises(IntakeStopped):
        commit(services, arrived, accepted, remember=lambda _: None)

    assert federation.kept()["client_updates"] == before
    assert arrived.blob_id not in set(services.blobs.names())


def test_an_update_whose_writer_was_halted_for_long_is_not_committed(
    federation: Federation, services: Services, clock: FixedClock
) -> None:
    """The janitor may have removed the blob, which no row named: a row and a receipt for nothing must not follow."""
    federation.open_round()
    token = find(services, federation.register().token)
    assert token is not None
    found, schema = open_for(services, token.client, 1)
    wish = Wish(sha256(GOOD).hexdigest(), None, {})
    arrived = receive(services, token.client, schema, iter([GOOD]), wish)
    accepted = prepare(services, token.client, found, arrived, wish)
    before = federation.kept()["client_updates"]
    settings = replace(services.config, blob_grace_s=60.0)

    def halt(_: str) -> None:
        clock.advance(timedelta(seconds=31))

    halted = replace(services, config=settings, crash=halt)

    with pytest.raises(Busy):
        commit(halted, arrived, accepted, remember=lambda _: None)

    assert federation.kept()["client_updates"] == before
    assert arrived.blob_id not in set(services.blobs.names())


def test_a_stop_waits_for_the_update_that_is_being_committed(
    federation: Federation, services: Services
) -> None:
    """Once `stop` has returned nothing is committed any more: it waits for the round that an update has locked."""
    federation.open_round()
    token = find(services, federation.register().token)
    assert token is not None
    wish = Wish(sha256(GOOD).hexdigest(), None, {})
    found, schema = open_for(services, token.client, 1)
    arrived = receive(services, token.client, schema, iter([GOOD]), wish)
    accepted = prepare(services, token.client, found, arrived, wish)
    inside, told = Event(), []

    def linger(_: object) -> None:
        inside.set()
        stopping.join(0.5)
        told.append("about to commit")

    def stop() -> None:
        assert inside.wait(10)
        stop_intake(services)
        told.append("stopped")

    stopping = Thread(target=stop)
    stopping.start()
    commit(services, arrived, accepted, remember=linger)
    stopping.join(10)

    assert told == ["about to commit", "stopped"]


def test_a_round_is_not_opened_at_the_moment_of_the_stop(federation: Federation, services: Services) -> None:
    """The opening looks again once it has locked its lineage."""
    stopped: list[str] = []

    def between(_conn: Any, _cursor: Any, statement: str, *_: Any) -> None:
        if not stopped and "max(rounds.round_number)" in statement:
            stopped.append(statement)
            other = replace(services)
            thread = Thread(target=stop_intake, args=(other,))
            thread.start()
            thread.join(10)

    event.listen(services.engine, "after_cursor_execute", between)
    answer = federation.open_round()

    assert stopped
    assert (answer.status_code, answer.json["code"]) == (503, "INTAKE_STOPPED")
    assert federation.kept()["rounds"] == 0


def test_turning_the_switch_from_several_sides_at_once_is_one_entry(
    federation: Federation, services: Services, entries: Entries
) -> None:
    """Whoever is second finds it turned."""
    threads = [Thread(target=stop_intake, args=(services,)) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

    assert len(entries("intake.stopped")) == 1
    assert resume_intake(services).is_open


def test_only_operators_turn_the_switch(federation: Federation) -> None:
    """The scope round:manage."""
    silo = federation.register()

    answers = [
        federation.http.post(f"/api/v1/intake/{what}", headers=silo.headers) for what in ("stop", "resume")
    ]

    assert {one.status_code for one in answers} == {403}
    assert shown(federation)["status"] == "open"


@pytest.mark.parametrize("database_url", ["postgresql"], indirect=True)
def test_a_stop_waits_for_an_update_of_a_round_that_was_opened_while_it_locked(
    federation: Federation, services: Services
) -> None:
    """A round that opens after the stop has locked the others, and before it has the lineages, is locked too."""
    token = find(services, federation.register().token)
    assert token is not None
    client, wish = token.client, Wish(sha256(GOOD).hexdigest(), None, {})
    inside, stopped = Event(), Event()
    told: list[str] = []
    threads: list[Thread] = []

    def linger(_: object) -> None:
        inside.set()
        stopped.wait(1)
        told.append("about to commit")

    def between(_conn: Any, _cursor: Any, statement: str, *_: Any) -> None:
        if threads or "FROM rounds" not in statement or "FOR UPDATE" not in statement:
            return
        threads.append(Thread(target=lambda: commit(services, arrived, accepted, remember=linger)))
        assert federation.open_round().status_code == 201
        found, schema = open_for(services, client, 1)
        arrived = receive(services, client, schema, iter([GOOD]), wish)
        accepted = prepare(services, client, found, arrived, wish)
        threads[0].start()
        assert inside.wait(10)

    event.listen(services.engine, "after_cursor_execute", between)
    stop_intake(services)
    told.append("stopped")
    stopped.set()
    threads[0].join(10)

    assert told == ["about to commit", "stopped"]
