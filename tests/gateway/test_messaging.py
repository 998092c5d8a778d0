"""Messages, whoever carries them: the embedded queue and RabbitMQ keep the same promises (RULES 4)."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from uuid import uuid4

import pytest
from federation import Federation, file_of, tensors
from services.clock import FixedClock
from sqlalchemy import Engine, delete, func, select

import compliance.keyring.tables
import gateway.messaging.rabbitmq
from gateway.app import create_app
from gateway.auth.refusals import close_refusals
from gateway.config import Config
from gateway.messaging.outbox import Body, QueueName, post
from gateway.messaging.queue import Message, MessageQueue, QueueState, open_queue
from gateway.services import open_services
from gateway.storage.database import open_engine
from gateway.tables import model_versions, outbox

OpenQueue = Callable[[], MessageQueue]
UPDATES, INVITATIONS = QueueName.MODEL_UPDATES, QueueName.TRAINING_INVITATIONS
SOON_S = 30.0


@pytest.fixture(params=["embedded", "rabbitmq"])
def queue_url(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    """Who carries the messages: the test runs once with the outbox alone and once with RabbitMQ."""
    if request.param == "embedded":
        return ""
    # The first use waits for the connection; on a busy machine that may take more than the gateway's second.
    monkeypatch.setattr(gateway.messaging.rabbitmq, "_FIRST_LOOK_S", SOON_S)
    url: str = request.getfixturevalue("broker").url
    return url


@pytest.fixture
def engine(database_url: str) -> Iterator[Engine]:
    """The main database."""
    opened = open_engine(database_url)
    yield opened
    opened.dispose()


@pytest.fixture
def open_one(engine: Engine, queue_url: str, clock: FixedClock) -> Iterator[OpenQueue]:
    """Opens a queue, as each process has one."""
    opened: list[MessageQueue] = []

    def make() -> MessageQueue:
        opened.append(open_queue(Config(queue_url=queue_url), engine, clock))
        return opened[-1]

    yield make
    for queue in opened:
        queue.close()


def body_of(queue: QueueName = UPDATES) -> Body:
    """A hint of the queue's kind."""
    return {"update_id" if queue is UPDATES else "invitation_id": str(uuid4()), "round_number": 1}


def send(engine: Engine, queue: MessageQueue, *bodies: Body, to: QueueName = UPDATES) -> None:
    """Post messages, and have them carried to the broker if there is one."""
    with engine.begin() as conn:
        for body in bodies:
            post(conn, to, body, FixedClock()())
    while queue.relay():
        pass


def take(queue: MessageQueue, count: int, of: QueueName = UPDATES) -> list[Message]:
    """Receive so many messages, which must come soon."""
    taken: list[Message] = []
    until = time.monotonic() + SOON_S
    while len(taken) < count and time.monotonic() < until:
        taken += queue.receive(of, limit=count - len(taken), wait_s=0.2)
    assert len(taken) == count
    return taken


def test_a_posted_message_is_received_once_and_gone_when_acknowledged(
    engine: Engine, open_one: OpenQueue
) -> None:
    """Manual acknowledgement: what is done with comes to nobody again, not even after the process ended."""
    first, body = open_one(), body_of()
    send(engine, first, body)

    (message,) = take(first, 1)
    first.ack([message])
    first.close()

    assert (message.queue, message.body) == (UPDATES, body)
    assert open_one().receive(UPDATES, limit=10, wait_s=0.5) == []
    with engine.connect() as conn:
        assert conn.execute(select(func.count()).select_from(outbox)).scalar_one() == 0


def test_a_message_does_not_outlive_the_transaction_of_its_effect(
    engine: Engine, open_one: OpenQueue
) -> None:
    """The outbox: what is rolled back was never said."""
    queue = open_one()

    with engine.begin() as conn:
        post(conn, UPDATES, body_of(), FixedClock()())
        conn.rollback()

    assert queue.relay() == 0
    assert queue.receive(UPDATES, limit=10, wait_s=0.3) == []


def test_what_a_receiver_left_when_it_ended_comes_to_the_next_one(
    engine: Engine, open_one: OpenQueue
) -> None:
    """A process that dies between receiving and acknowledging loses no message, and holds none back."""
    first = open_one()
    send(engine, first, body_of())
    (message,) = take(first, 1)
    assert first.receive(UPDATES, limit=10, wait_s=0.3) == []  # it is lent

    first.close()

    (again,) = take(open_one(), 1)
    assert (again.message_id, again.body) == (message.message_id, message.body)


def test_a_rejected_message_comes_to_nobody_again(engine: Engine, open_one: OpenQueue) -> None:
    """Dead letters are set apart, and hold up no others."""
    first = open_one()
    send(engine, first, body_of(), body_of())
    poison, good = take(first, 2)

    first.reject([poison])
    first.close()

    (left,) = take(second := open_one(), 1)
    assert left.message_id == good.message_id
    assert second.receive(UPDATES, limit=10, wait_s=0.3) == []


def test_no_more_come_than_were_asked_for_and_each_queue_has_its_own(
    engine: Engine, open_one: OpenQueue
) -> None:
    """`limit` bounds an answer; the messages of one queue do not come out of the other."""
    queue = open_one()
    send(engine, queue, *(body_of() for _ in range(7)))
    send(engine, queue, body_of(INVITATIONS), to=INVITATIONS)

    some = take(queue, 3)
    rest = take(queue, 4)
    invitation = take(queue, 1, INVITATIONS)

    assert len({message.message_id for message in [*some, *rest, *invitation]}) == 8
    assert "invitation_id" in invitation[0].body
    assert queue.receive(UPDATES, limit=10) == []


def test_waiting_for_a_message_ends_in_time(open_one: OpenQueue) -> None:
    """A receiver waits no longer than it said, whether or not anything comes."""
    queue = open_one()
    queue.receive(UPDATES, limit=1, wait_s=0.0)
    began = time.monotonic()

    found = queue.receive(UPDATES, limit=1, wait_s=0.4)

    assert found == []
    assert 0.3 < time.monotonic() - began < 5


def test_a_queue_that_works_is_healthy(open_one: OpenQueue) -> None:
    """/health tells how the queue is."""
    assert open_one().state() is QueueState.HEALTHY


@contextmanager
def federation_on(config: Config, clock: FixedClock) -> Iterator[Federation]:
    """A federation whose messages go the configured way."""
    services = open_services(config, part="console", clock=clock)
    compliance.keyring.tables.metadata.create_all(services.keystore_engine)
    app = create_app(services)
    try:
        yield Federation(services, app.test_client())
    finally:
        close_refusals(app)
        services.close()


@pytest.mark.parametrize("fate", ["lost", "doubled", "reordered"])
def test_a_round_completes_once_whatever_becomes_of_its_messages(
    fate: str, config: Config, queue_url: str, clock: FixedClock, tmp_path: Path
) -> None:
    """RULES 4: losing, doubling or shuffling any message changes no result."""
    with federation_on(replace(config, queue_url=queue_url), clock) as federation:
        services = federation.services
        federation.add_model()
        federation.open_round(planned_clients=3)
        for number in range(3):
            silo = federation.register(f"silo {number}")
            assert federation.submit(silo, file_of(tensors(number))).status_code == 202

        _befall(services.engine, services.queue, fate)
        for _ in range(5):
            federation.work()

        assert (federation.round()["status"], federation.round()["num_updates"]) == ("completed", 3)
        with services.engine.connect() as conn:
            versions = conn.execute(select(func.count()).select_from(model_versions)).scalar_one()
            left = conn.execute(select(func.count()).select_from(outbox)).scalar_one()
        assert (versions, left) == (2, 0)


def _befall(engine: Engine, queue: MessageQueue, fate: str) -> None:
    with engine.connect() as conn:
        bodies = list(conn.execute(select(outbox.c.body).order_by(outbox.c.created_at)).scalars())
    assert len(bodies) == 3
    match fate:
        case "lost":
            with engine.begin() as conn:
                conn.execute(delete(outbox))
        case "doubled":
            send(engine, queue, *bodies)
        case "reordered":
            with engine.begin() as conn:
                conn.execute(delete(outbox))
            send(engine, queue, *reversed(bodies))
