"""A federation whose messages go over RabbitMQ: rounds complete, and the broker learns nothing of anybody."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
from federation import Federation, file_of, tensors
from flask.testing import FlaskClient
from living.driver import BARE, Json, Person, await_that
from living.home import Home, home_in
from living.processes import Gateway, gateway_in
from services.rabbitmq import RabbitMQ
from sqlalchemy import event, func, select
from sqlalchemy.exc import OperationalError

from audit.reading import reading
from gateway.config import Config
from gateway.messaging.outbox import QueueName
from gateway.privacy import privacy_desk
from gateway.rounds.worker import Worker
from gateway.services import Services
from gateway.tables import client_updates, clients, invitations, outbox


@pytest.fixture
def config(config: Config, broker: RabbitMQ) -> Config:
    """Settings with RabbitMQ."""
    return replace(config, queue_url=broker.url)


@pytest.fixture
def federation(services: Services, http: FlaskClient) -> Federation:
    """A federation with a model."""
    made = Federation(services, http)
    made.add_model()
    return made


def test_an_erased_person_is_in_no_byte_of_the_broker(
    federation: Federation, services: Services, broker: RabbitMQ
) -> None:
    """Promise 5: bodies carry random ids alone, whose rows are gone; no queue ever held a name."""
    silo = federation.register(marker := "canary-of-the-broker")
    federation.open_round(planned_clients=1, selection={"strategy": "random"})
    federation.work()
    assert federation.submit(silo, file_of(tensors())).status_code == 202
    while services.queue.relay():
        pass
    with reading(services.engine) as conn:
        update_id = conn.execute(select(client_updates.c.update_id)).scalar_one()
        invitation_id = conn.execute(select(invitations.c.invitation_id)).scalar_one()
        subject = conn.execute(
            select(clients.c.subject_id).where(clients.c.client_id == silo.client_id)
        ).scalar_one()
    kept = broker.bytes_kept()
    assert update_id.encode() in kept  # so the search below can find something
    assert invitation_id.encode() in kept
    federation.work()
    dpo = federation.staff("dpo")
    wish = {"type": "erasure", "subject": {"client_id": silo.client_id}}

    erased = federation.http.post("/api/v1/privacy/requests", json=wish, headers=dpo)

    assert erased.json["status"] == "completed", erased.text
    kept = broker.bytes_kept()
    for personal in (silo.client_id, subject, marker):
        assert personal.encode() not in kept
    with reading(services.engine) as conn:
        for table in (client_updates, invitations):
            assert conn.execute(select(func.count()).select_from(table)).scalar_one() == 0


def test_health_stays_good_while_the_broker_is_away(federation: Federation, services: Services) -> None:
    """A broker that is away delays hints and loses nothing: a probe must not take the gateway down."""
    good = federation.http.get("/health")
    services.queue.close()

    away = federation.http.get("/health")

    assert (good.status_code, good.json["services"]["queue"]) == (200, "healthy")
    assert (away.status_code, away.json["services"]["queue"]) == (200, "degraded")


def test_a_round_completes_on_the_process_tree_also_while_the_broker_is_frozen(
    broker: RabbitMQ, tmp_path: Path
) -> None:
    """The whole way of an update: outbox, courier, broker, worker; a broker that answers nothing delays no round."""
    with home_in(tmp_path / "home", queue_url=broker.url) as home, gateway_in(home) as gateway:
        gateway.add_model()
        people = [gateway.register() for _ in range(2)]

        first = _play(gateway, people)
        await_that("the outbox is carried away", lambda: waiting(home) == 0)
        broker.freeze()
        try:
            second = _play(gateway, people)
            left = waiting(home)
        finally:
            broker.thaw()

        assert (first["status"], second["status"]) == ("completed", "completed")
        assert left == 2
        await_that("the outbox is carried away", lambda: waiting(home) == 0)


def _play(gateway: Gateway, people: list[Person]) -> Json:
    number = gateway.open_round(BARE)
    for person in people:
        gateway.submit(person, number)
    return gateway.await_end(number)


def waiting(home: Home) -> int:
    """How many messages are in the outbox."""
    with home.stores() as services, reading(services.engine) as conn:
        return int(conn.execute(select(func.count()).select_from(outbox)).scalar_one())


def test_a_hint_taken_while_the_database_fails_is_acknowledged_later(
    federation: Federation, services: Services, broker: RabbitMQ
) -> None:
    """An outage in the middle of a look must not keep the broker's messages, nor fill this process's share of them."""
    federation.open_round(planned_clients=2)
    assert federation.submit(federation.register(), file_of(tensors())).status_code == 202
    assert services.queue.relay() == 1
    services.queue.receive(QueueName.MODEL_UPDATES, limit=0, wait_s=10)  # now it lies in this process
    worker = Worker(services, privacy_desk(services))

    def fail(*_: object) -> None:
        raise OperationalError("", {}, Exception())

    event.listen(services.engine, "before_cursor_execute", fail)
    with pytest.raises(OperationalError):
        worker.run_once()
    event.remove(services.engine, "before_cursor_execute", fail)
    worker.run_once()
    services.queue.close()

    assert broker.drain("model_updates") == []
