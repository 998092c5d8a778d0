"""RabbitMQ as it is on bad days: away, frozen, killed, full, or holding other queues and messages than ours."""

from __future__ import annotations

import gc
import json
import logging
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from urllib.parse import quote
from uuid import uuid4

import pika
import pytest
from services import rabbitmq
from services.clock import FixedClock
from services.rabbitmq import RabbitMQ
from sqlalchemy import Engine, func, select

import gateway.messaging.link
import gateway.messaging.rabbitmq as relaying
from gateway.messaging.broker_url import parameters_of
from gateway.messaging.errors import QueueUrlInvalid
from gateway.messaging.outbox import QueueName, post
from gateway.messaging.outbox import waiting as posted
from gateway.messaging.queue import Message, MessageQueue, QueueState
from gateway.messaging.rabbitmq import RabbitQueue, open_rabbitmq
from gateway.messaging.session import Batch, Session
from gateway.messaging.topology import DELIVERY_LIMIT, Topology
from gateway.storage.database import open_engine
from gateway.tables import metadata, outbox

UPDATES, INVITATIONS = QueueName.MODEL_UPDATES, QueueName.TRAINING_INVITATIONS
OpenAt = Callable[[str], RabbitQueue]
SOON_S = 60.0


@pytest.fixture
def engine(database_url: str) -> Iterator[Engine]:
    """The main database."""
    opened = open_engine(database_url)
    yield opened
    opened.dispose()


@pytest.fixture
def database_url(tmp_path: Path) -> str:
    """SQLite alone: what differs here is the broker."""
    url = f"sqlite:///{tmp_path / 'fl-gateway.db'}"
    opened = open_engine(url)
    metadata.create_all(opened)
    opened.dispose()
    return url


@pytest.fixture(autouse=True)
def patience(monkeypatch: pytest.MonkeyPatch) -> None:
    """The first use waits for the connection; on a busy machine that one may take more than the gateway's second."""
    monkeypatch.setattr(relaying, "_FIRST_LOOK_S", SOON_S)


@pytest.fixture
def open_at(engine: Engine) -> Iterator[OpenAt]:
    """Opens a queue on a broker."""
    opened: list[RabbitQueue] = []

    def make(url: str) -> RabbitQueue:
        opened.append(open_rabbitmq(url, engine))
        return opened[-1]

    yield make
    for queue in opened:
        queue.close()


@pytest.fixture(scope="module")
def own_broker() -> Iterator[RabbitMQ]:
    """A broker that the tests of this file may kill."""
    with rabbitmq.running(tls=True) as server:
        yield server


def write(engine: Engine, count: int = 1, queue: QueueName = UPDATES) -> list[str]:
    """Post so many messages; their update ids."""
    ids = [str(uuid4()) for _ in range(count)]
    member = "update_id" if queue is UPDATES else "invitation_id"
    with engine.begin() as conn:
        for one in ids:
            post(conn, queue, {member: one, "round_number": 1}, FixedClock()())
    return ids


def waiting(engine: Engine) -> int:
    """How many messages are in the outbox."""
    with engine.connect() as conn:
        return conn.execute(select(func.count()).select_from(outbox)).scalar_one()


def soon(fact: Callable[[], object], within_s: float = SOON_S) -> None:
    """Wait until it is so."""
    until = time.monotonic() + within_s
    while not fact():
        assert time.monotonic() < until, "it did not come about"
        time.sleep(0.05)


def take(queue: MessageQueue, count: int) -> list[Message]:
    """Receive so many messages, which must come soon."""
    taken: list[Message] = []
    soon(lambda: len(taken) >= count or taken.extend(queue.receive(UPDATES, limit=count, wait_s=0.2)))
    return taken


def test_a_message_is_persistent_and_named_after_its_row(
    broker: RabbitMQ, engine: Engine, open_at: OpenAt
) -> None:
    """Delivery mode 2, the outbox row's id, the kind and the time stand in its properties."""
    (update_id,) = write(engine)
    with engine.connect() as conn:
        row_id = conn.execute(select(outbox.c.message_id)).scalar_one()

    assert open_at(broker.url).relay() == 1

    ((properties, body),) = broker.drain("model_updates")
    assert json.loads(body) == {"update_id": update_id, "round_number": 1}
    assert (properties.message_id, properties.delivery_mode) == (row_id, 2)
    assert (properties.content_type, properties.type) == ("application/json", "model_updates")
    assert properties.timestamp == int(FixedClock()().timestamp())


def test_queues_are_durable_quorum_queues_with_dead_letters(broker: RabbitMQ, open_at: OpenAt) -> None:
    """Declared so that a broker keeps them over a restart, and counts redeliveries."""
    assert open_at(broker.url).state() is QueueState.HEALTHY

    for name in ("model_updates", "training_invitations"):
        with broker.channel() as channel:
            same = {
                "x-queue-type": "quorum",
                "x-delivery-limit": DELIVERY_LIMIT,
                "x-dead-letter-exchange": "",
                "x-dead-letter-routing-key": f"{name}.dead",
            }
            channel.queue_declare(name, durable=True, arguments=same)  # others would be refused


def test_rows_stay_until_a_frozen_broker_confirms_and_nothing_hangs(
    broker: RabbitMQ, engine: Engine, open_at: OpenAt, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Publisher confirms: sent is not arrived. A halted broker costs bounded waits, and no message."""
    monkeypatch.setattr(relaying, "CONFIRM_S", 0.5)
    queue = open_at(broker.url)
    assert queue.state() is QueueState.HEALTHY
    write(engine, 3)
    broker.freeze()
    try:
        began = time.monotonic()
        carried = [queue.relay() for _ in range(3)]
        took_s, state, left = time.monotonic() - began, queue.state(), waiting(engine)
        received = queue.receive(UPDATES, limit=5, wait_s=0.2)
    finally:
        broker.thaw()

    assert (carried, state, left, received) == ([0, 0, 0], QueueState.DEGRADED, 3, [])
    assert took_s < 8.0
    soon(lambda: queue.relay() == 3)
    assert (waiting(engine), queue.state()) == (0, QueueState.HEALTHY)
    queue.ack(take(queue, 3))
    assert queue.receive(UPDATES, limit=5, wait_s=0.5) == []  # the waiting batch was not sent again meanwhile


def test_what_the_broker_refuses_stays_in_the_outbox(
    broker: RabbitMQ, engine: Engine, open_at: OpenAt
) -> None:
    """A negative confirm (a full queue that refuses) leaves exactly the refused rows."""
    with broker.channel() as channel:
        full = {"x-max-length": 1, "x-overflow": "reject-publish"}
        channel.queue_declare("model_updates", durable=True, arguments=full)
    queue = open_at(broker.url)
    write(engine, 5)

    carried = queue.relay()

    assert 0 < carried < 5
    assert waiting(engine) == 5 - carried
    soon(lambda: broker.drain("model_updates") is not None and queue.relay() >= 0 and waiting(engine) == 0)


def test_what_no_queue_took_stays_and_the_queue_is_made_again(
    broker: RabbitMQ, engine: Engine, open_at: OpenAt
) -> None:
    """The mandatory flag: a message that is returned has not arrived, though the broker confirms it."""
    queue = open_at(broker.url)
    assert queue.state() is QueueState.HEALTHY
    broker.clear()
    ids = write(engine, 2)

    assert queue.relay() == 0

    assert waiting(engine) == 2
    soon(lambda: queue.relay() == 2)
    assert sorted(json.loads(body)["update_id"] for _, body in broker.drain("model_updates")) == sorted(ids)


def test_a_consumer_goes_on_when_its_queue_was_deleted(
    broker: RabbitMQ, engine: Engine, open_at: OpenAt
) -> None:
    """An operator who deletes a queue costs its messages, not the gateway's work."""
    queue = open_at(broker.url)
    queue.receive(UPDATES, limit=1, wait_s=0.5)
    broker.clear()
    write(engine)

    soon(lambda: queue.relay() == 1)

    assert len(take(queue, 1)) == 1


def test_a_broker_killed_between_publish_and_confirm_loses_nothing(
    own_broker: RabbitMQ, engine: Engine, open_at: OpenAt, monkeypatch: pytest.MonkeyPatch
) -> None:
    """kill -9 while a batch is on its way: its rows are still there, and go out when the broker is back."""
    monkeypatch.setattr(relaying, "CONFIRM_S", 0.5)
    queue = open_at(own_broker.url)
    assert queue.state() is QueueState.HEALTHY
    ids = write(engine, 4)
    own_broker.freeze()
    sent_unanswered = queue.relay()
    own_broker.kill()
    soon(lambda: queue.state() is QueueState.DEGRADED)
    away = [queue.relay() for _ in range(3)]

    own_broker.start()

    soon(lambda: queue.relay() == 4)
    assert (sent_unanswered, away, waiting(engine)) == (0, [0, 0, 0], 0)
    assert {json.loads(body)["update_id"] for _, body in own_broker.drain("model_updates")} == set(ids)


@pytest.mark.parametrize("way", ["stop", "kill"])
def test_a_restarted_broker_still_has_the_messages_and_their_receiver(
    way: str, own_broker: RabbitMQ, engine: Engine, open_at: OpenAt
) -> None:
    """Durable queues, persistent messages, and a consumer that connects again by itself."""
    giving, taking = open_at(own_broker.url), open_at(own_broker.url)
    assert giving.state() is QueueState.HEALTHY
    own_broker.drain("model_updates")
    write(engine)
    giving.relay()
    (lent,) = take(taking, 1)
    write(engine, 3)
    giving.relay()

    getattr(own_broker, way)()
    own_broker.start()
    again = take(taking, 4)
    taking.ack([lent])  # of a connection that is gone: its tag must count for nothing on this one
    taking.close()

    left = take(open_at(own_broker.url), 4)
    assert lent.message_id in {message.message_id for message in again}
    assert {message.message_id for message in left} == {message.message_id for message in again}
    assert len({message.message_id for message in left}) == 4


def test_malformed_and_foreign_messages_are_set_apart_and_hold_up_nothing(
    broker: RabbitMQ, engine: Engine, open_at: OpenAt
) -> None:
    """Whatever another program puts into a queue of ours ends as a dead letter, never as a crash."""
    queue = open_at(broker.url)
    assert queue.state() is QueueState.HEALTHY
    good_id = str(uuid4())
    named = pika.BasicProperties(message_id=good_id)
    foreign = [
        (b"", named),
        (b"\xff\xfe not JSON", named),
        (b"[" * 4000, named),
        (b'{"round_number": ' + b"9" * 3000 + b"}", named),
        (b"{" + b" " * 5000 + b"}", named),
        (b'"a string"', named),
        (b'{"round_number": 1}', named),
        (json.dumps({"update_id": str(uuid4()), "round_number": "1"}).encode(), named),
        (json.dumps({"update_id": str(uuid4()), "round_number": True}).encode(), named),
        (json.dumps({"update_id": ["x"], "round_number": 1}).encode(), named),
        (json.dumps({"update_id": str(uuid4()), "round_number": 1}).encode(), pika.BasicProperties()),
        (b"{}", pika.BasicProperties(message_id="x" * 200, headers={"deep": {"a": [1, {"b": b"\xff"}]}})),
    ]
    with broker.channel() as channel:
        for body, properties in foreign:
            channel.basic_publish("", "model_updates", body, properties)
    write(engine)
    queue.relay()

    (message,) = take(queue, 1)
    queue.ack([message])

    dead: list[object] = []
    soon(lambda: dead.extend(broker.drain("model_updates.dead")) or len(dead) == len(foreign))
    assert queue.state() is QueueState.HEALTHY


def test_a_rejected_message_is_a_dead_letter(broker: RabbitMQ, engine: Engine, open_at: OpenAt) -> None:
    """What a receiver cannot use is kept apart, for the operator to look at."""
    queue = open_at(broker.url)
    ids = write(engine)
    queue.relay()

    queue.reject(take(queue, 1))

    dead: list[tuple[pika.BasicProperties, bytes]] = []
    soon(lambda: dead.extend(broker.drain("model_updates.dead")) or dead)
    assert [json.loads(body)["update_id"] for _, body in dead] == ids


@pytest.mark.parametrize("kind", ["quorum", "classic"])
def test_a_message_that_comes_back_too_often_is_a_dead_letter(
    kind: str, broker: RabbitMQ, engine: Engine, open_at: OpenAt, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A hint that ends its receiver each time must not go round for ever; classic queues do not count themselves."""
    monkeypatch.setattr(gateway.messaging.link, "_SOUND_S", 0.0)  # to connect again without a growing pause
    if kind == "classic":
        with broker.channel() as channel:
            dead = {"x-dead-letter-exchange": "", "x-dead-letter-routing-key": "model_updates.dead"}
            channel.queue_declare("model_updates", durable=True, arguments=dead)
    queue = open_at(broker.url)
    write(engine)
    queue.relay()
    comings = 0

    while comings <= DELIVERY_LIMIT + 5 and not broker.drain("model_updates.dead"):
        comings += len(queue.receive(UPDATES, limit=1, wait_s=3.0))
        session = queue._link.session
        if session:
            session.call(session.end)  # as when the process dies with the message in its hands
        soon(lambda gone=session: queue._link.session not in (None, gone))

    assert comings == DELIVERY_LIMIT + 1


@pytest.mark.parametrize(
    "existing",
    [{}, {"x-queue-type": "quorum"}, {"x-max-length": 100_000}],
    ids=["classic", "quorum", "bounded"],
)
def test_a_queue_of_another_form_is_taken_as_it_is(
    existing: dict[str, object], broker: RabbitMQ, engine: Engine, open_at: OpenAt
) -> None:
    """PRECONDITION_FAILED (another type, other arguments) does not stop the gateway."""
    with broker.channel() as channel:
        channel.queue_declare("model_updates", durable=True, arguments=existing)
        channel.queue_declare("training_invitations.dead", durable=True)
    queue = open_at(broker.url)
    ids = write(engine, 3)

    soon(lambda: queue.relay() == 3)

    assert {str(message.body["update_id"]) for message in take(queue, 3)} == set(ids)


def test_a_wrong_password_names_the_setting_and_tells_no_secret(
    broker: RabbitMQ, open_at: OpenAt, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    """RULES 30: the log says what to mend, and repeats nothing of the URL."""
    monkeypatch.setattr(relaying, "_FIRST_LOOK_S", 0.1)
    caplog.set_level(logging.DEBUG)
    queue = open_at(broker.url.replace("guest:guest", "guest:pass-phrase-7"))

    soon(lambda: queue.state() and "FLG_QUEUE_URL" in caplog.text)

    assert "refuses the user or the password" in caplog.text
    assert queue.state() is QueueState.DEGRADED
    assert "pass-phrase-7" not in caplog.text + repr(queue._link._parameters)


def test_a_vhost_that_is_not_there_is_named(
    broker: RabbitMQ, open_at: OpenAt, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Another setting, another sentence."""
    monkeypatch.setattr(relaying, "_FIRST_LOOK_S", 0.1)
    queue = open_at(broker.url.replace("%2F", "nowhere"))

    soon(lambda: queue.state() and "refuses the vhost" in caplog.text)

    assert "nowhere" not in caplog.text


def test_a_broker_that_is_away_holds_up_nobody(
    engine: Engine, open_at: OpenAt, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nothing listens: each call ends soon, and the rows stay."""
    monkeypatch.setattr(relaying, "_FIRST_LOOK_S", 0.1)
    queue = open_at("amqp://guest:guest@127.0.0.1:1/")
    write(engine)
    queue.state()  # the first use waits a moment for the connection
    monkeypatch.setattr(relaying, "_FIRST_LOOK_S", 30.0)  # whichever call waited now would be seen
    monkeypatch.setattr(relaying, "CONFIRM_S", 30.0)
    began = time.monotonic()

    found = (queue.relay(), queue.receive(UPDATES, limit=5), queue.state())
    queue.ack([])

    assert found == (0, [], QueueState.DEGRADED)
    assert time.monotonic() - began < 5
    assert waiting(engine) == 1


def test_closing_beside_a_frozen_broker_ends_in_time(
    broker: RabbitMQ, engine: Engine, open_at: OpenAt
) -> None:
    """A process ends although its broker answers nothing."""
    queue = open_at(broker.url)
    assert queue.state() is QueueState.HEALTHY
    broker.freeze()
    try:
        began = time.monotonic()
        queue.close()
        took_s = time.monotonic() - began
    finally:
        broker.thaw()

    assert took_s < 10


@pytest.mark.parametrize(
    "url",
    [
        "redis://user:s3cret@host/",
        "amqp://",
        "amqp://user:s3cret@host:port/",
        "amqp://user:s3cret@host/?heartbeat=0",
        "amqp://user:s3cret@host/?cafile=/etc/hosts",
        "amqps://user:s3cret@host/?cafile=/no/such/file",
        "amqps://user:s3cret@host/?ssl_options={}",
        "amqp://[::1/",
    ],
)
def test_an_unusable_url_is_refused_and_not_repeated(url: str) -> None:
    """A wrong setting is told at the start, without what is in it."""
    with pytest.raises(QueueUrlInvalid) as refused:
        parameters_of(url)

    assert "FLG_QUEUE_URL" in str(refused.value)
    assert "s3cret" not in str(refused.value) + repr(refused.value.__cause__)


def test_an_url_s_parts_are_understood() -> None:
    """Percent-encoded names, the ports of custom, and waits that all end."""
    plain = parameters_of(f"amqp://us%40er:{quote('p/w?', safe='')}@queue.example/my%2Fhost")

    assert (plain.host, plain.port, plain.virtual_host) == ("queue.example", 5672, "my/host")
    assert (plain.credentials.username, plain.credentials.password) == ("us@er", "p/w?")
    assert parameters_of("amqps://h/").port == 5671
    assert parameters_of("amqp://h").virtual_host == "/"
    assert None not in (plain.heartbeat, plain.blocked_connection_timeout, plain.socket_timeout)


def test_tls_is_verified(
    own_broker: RabbitMQ, open_at: OpenAt, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    """amqps: the certificate must be of the cafile, and of the host."""
    url = f"amqps://guest:guest@localhost:{own_broker.tls_port}/%2F"
    cafile = f"?cafile={quote(str(own_broker.directory / 'cert.pem'))}"

    good, unknown = open_at(url + cafile), open_at(url)

    soon(lambda: good.state() is QueueState.HEALTHY)
    monkeypatch.setattr(relaying, "_FIRST_LOOK_S", 0.1)
    soon(lambda: unknown.state() and "cafile" in caplog.text)
    assert unknown.state() is QueueState.DEGRADED


@pytest.mark.filterwarnings("ignore::ResourceWarning")
def test_a_batch_that_the_ended_session_never_saw_is_settled(broker: RabbitMQ, engine: Engine) -> None:
    """What is handed over at the moment at which a connection ends stays in the outbox, and waits for nothing."""
    write(engine)
    batch = Batch(posted(engine, UPDATES, 1))
    handed: list[bool] = []

    def ready(session: Session) -> None:
        session.call(break_down)
        handed.append(session.send(batch))

    def break_down() -> None:
        raise ZeroDivisionError

    session = Session(1, parameters_of(broker.url), Topology(), lambda *_: None, ready)
    with pytest.raises(ZeroDivisionError):
        session.run()

    assert handed == [True]
    assert batch.confirmed.done()
    assert batch.confirmed.result() == []
    assert not session.send(batch)
    del session
    gc.collect()  # its socket, which nobody closed in order
