"""The operator's webhook: every invitation reaches it, signed, to that address alone, whatever happens on the way."""

from __future__ import annotations

import hashlib
import hmac
import json
import logging
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from datetime import timedelta

import pytest
from federation import Federation, Silo, file_of, tensors
from flask.testing import FlaskClient
from services.clock import FixedClock
from services.webhook import Receiver, receiving
from sqlalchemy import delete, func, select, update

import gateway.messaging.deliveries as deliveries
from gateway.config import Config
from gateway.messaging.courier import Courier
from gateway.messaging.errors import WebhookInvalid
from gateway.messaging.outbox import QueueName, post_all
from gateway.parts.starting import recover
from gateway.rounds.invitations import InvitationStatus
from gateway.services import Services
from gateway.storage.bell import Channel
from gateway.tables import invitations, outbox

SECRET = "a secret of the webhook"
DRAWN = {"strategy": "random"}
pytestmark = pytest.mark.parametrize(
    ("database_url", "queue_url"),
    [("sqlite", "embedded"), ("postgresql", "rabbitmq")],
    indirect=True,
    ids=["embedded", "production"],
)


@pytest.fixture
def receiver() -> Iterator[Receiver]:
    """The operator's receiver."""
    with receiving() as opened:
        yield opened


@pytest.fixture
def queue_url(request: pytest.FixtureRequest) -> str:
    """Who carries the messages: the outbox alone, or RabbitMQ."""
    url: str = "" if request.param == "embedded" else request.getfixturevalue("broker").url
    return url


@pytest.fixture
def config(config: Config, receiver: Receiver, queue_url: str) -> Config:
    """Settings with a webhook."""
    public = "https://fl.example"
    return replace(
        config, queue_url=queue_url, webhook_url=receiver.url, webhook_secret=SECRET, public_url=public
    )


@pytest.fixture
def federation(services: Services, http: FlaskClient) -> Federation:
    """A federation with a model."""
    made = Federation(services, http)
    assert made.add_model().status_code == 201
    return made


@pytest.fixture
def courier(services: Services) -> Iterator[Courier]:
    """The courier, driven by the test."""
    made = Courier(services)
    yield made
    made._webhook and made._webhook.close()


@pytest.fixture
def hurried(monkeypatch: pytest.MonkeyPatch) -> None:
    """Repetitions without a pause, and a sweep at each look."""
    monkeypatch.setattr(deliveries, "_FIRST_PAUSE_S", 0.0)
    monkeypatch.setattr(deliveries, "_LOOK_S", 0.05)
    monkeypatch.setattr(deliveries, "SWEEP_S", 0.0)


def invite(federation: Federation, count: int = 2) -> list[Silo]:
    """Register silos and have a round choose them all."""
    silos = [federation.register(f"silo {number}") for number in range(count)]
    answer = federation.open_round(planned_clients=count, selection=DRAWN)
    assert answer.status_code == 201, answer.text
    federation.work()
    return silos


def carry(courier: Courier, until: Callable[[], object], within_s: float = 10.0) -> None:
    """Let the courier look until it is so."""
    end = time.monotonic() + within_s
    while not until():
        assert time.monotonic() < end, "it did not come about"
        courier.run_once()


def undelivered(services: Services) -> int:
    """How many invitations the webhook did not take."""
    query = select(func.count()).select_from(invitations).where(invitations.c.delivered_at.is_(None))
    with services.engine.connect() as conn:
        return conn.execute(query).scalar_one()


def test_each_invitation_is_posted_once_and_signed(
    federation: Federation, services: Services, courier: Courier, receiver: Receiver, clock: FixedClock
) -> None:
    """The body tells who is asked for what, and its signature that it is the gateway who says so, and when."""
    silos = invite(federation)

    carry(courier, lambda: undelivered(services) == 0)
    courier.run_once()

    bodies = [json.loads(one.body) for one in receiver.posted]
    assert {body["client_id"] for body in bodies} == {silo.client_id for silo in silos}
    (shown,) = federation.http.get("/api/v1/invitations", headers=silos[0].headers).json["data"]
    for one, body in zip(receiver.posted, bodies, strict=True):
        assert one.headers["Idempotency-Key"] == body["invitation_id"]
        assert one.headers["Content-Type"] == "application/json"
        at, made = (part.partition("=")[2] for part in one.headers["X-FL-Signature"].split(","))
        signed = at.encode() + b"." + one.body
        assert hmac.compare_digest(made, hmac.new(SECRET.encode(), signed, hashlib.sha256).hexdigest())
        assert int(at) == int(clock().timestamp())
        assert body["round_number"] == 1
        assert (body["status"], body["policy_hash"]) == ("invited", shown["policy_hash"])
        assert body["url"] == "https://fl.example/api/v1/rounds/1"
        assert body["deadline"] == shown["deadline"]
    with services.engine.connect() as conn:
        left = conn.execute(select(outbox).where(outbox.c.queue == "training_invitations")).all()
    assert left == []


@pytest.mark.usefixtures("hurried")
@pytest.mark.parametrize(
    "answers", [[500], [302], [307], [404, 429]], ids=["error", "redirect", "same", "refusals"]
)
def test_what_the_webhook_does_not_take_is_sent_again(
    federation: Federation, services: Services, courier: Courier, receiver: Receiver, answers: list[int]
) -> None:
    """Only 2xx is an acceptance; a redirect is not followed, wherever it leads."""
    with receiving() as elsewhere:
        receiver.answers, receiver.location = list(answers), elsewhere.url
        invite(federation, 1)

        carry(courier, lambda: undelivered(services) == 0)

        assert elsewhere.posted == []
    assert len(receiver.posted) == len(answers) + 1
    assert len({one.headers["Idempotency-Key"] for one in receiver.posted}) == 1


@pytest.mark.usefixtures("hurried")
def test_an_invitation_that_is_never_taken_is_given_up(
    federation: Federation,
    services: Services,
    courier: Courier,
    receiver: Receiver,
    clock: FixedClock,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """After the limit it is a dead letter; the round goes on, and the client still finds it by asking."""
    monkeypatch.setattr(deliveries, "MOST_TRIES", 3)
    receiver.answers = [500] * 100
    (silo,) = invite(federation, 1)
    clock.advance(timedelta(minutes=2))

    carry(courier, lambda: len(receiver.posted) == 3)
    for _ in range(5):
        courier.run_once()

    assert (len(receiver.posted), undelivered(services)) == (3, 1)
    asked = federation.http.get("/api/v1/invitations", headers=silo.headers).json
    assert len(asked["data"]) == 1


@pytest.mark.usefixtures("hurried")
@pytest.mark.parametrize("fate", ["withdrawn", "erased", "over"])
def test_an_invitation_that_no_longer_stands_is_not_sent(
    federation: Federation,
    services: Services,
    courier: Courier,
    receiver: Receiver,
    clock: FixedClock,
    fate: str,
) -> None:
    """A withdrawn or erased invitation is done with unsent, and so is one whose round is over."""
    invite(federation, 1)
    with services.engine.begin() as conn:
        if fate == "withdrawn":
            conn.execute(update(invitations).values(status=InvitationStatus.WITHDRAWN.value))
        elif fate == "erased":
            conn.execute(delete(invitations))
    if fate == "over":
        clock.advance(timedelta(hours=2))

    for _ in range(6):
        courier.run_once()

    assert receiver.posted == []
    assert services.queue.receive(QueueName.TRAINING_INVITATIONS, limit=5, wait_s=0.2) == []


@pytest.mark.usefixtures("hurried")
def test_a_lost_message_costs_time_and_no_invitation(
    federation: Federation, services: Services, courier: Courier, receiver: Receiver, clock: FixedClock
) -> None:
    """RULES 4: the sweep finds the invitation by its row."""
    invite(federation, 1)
    with services.engine.begin() as conn:
        conn.execute(delete(outbox))
    clock.advance(timedelta(minutes=2))

    carry(courier, lambda: undelivered(services) == 0)

    assert len(receiver.posted) == 1


@pytest.mark.usefixtures("hurried")
def test_a_doubled_message_is_posted_once(
    federation: Federation, services: Services, courier: Courier, receiver: Receiver, clock: FixedClock
) -> None:
    """RULES 4: the row says that it was delivered."""
    invite(federation, 1)

    def double() -> None:
        with services.engine.begin() as conn:
            named = conn.execute(select(invitations.c.invitation_id)).scalar_one()
            body = {"invitation_id": named, "round_number": 1}
            post_all(conn, QueueName.TRAINING_INVITATIONS, [body, body], clock())

    double()
    carry(courier, lambda: undelivered(services) == 0)
    double()
    for _ in range(6):
        courier.run_once()

    assert len(receiver.posted) == 1


def test_a_webhook_that_hangs_holds_up_no_round(
    federation: Federation, services: Services, receiver: Receiver, caplog: pytest.LogCaptureFixture
) -> None:
    """The courier waits in threads of its own; hints and rounds go on beside it."""
    caplog.set_level(logging.DEBUG, logger="gateway")
    receiver.released.clear()
    (silo,) = invite(federation, 1)
    stop = threading.Event()
    courier = threading.Thread(target=Courier(services).run, args=(stop,))
    courier.start()
    try:
        until = time.monotonic() + 10
        while not receiver.posted and time.monotonic() < until:
            time.sleep(0.05)

        assert federation.submit(silo, file_of(tensors())).status_code == 202
        federation.work()

        assert len(receiver.posted) == 1
        assert federation.round()["status"] == "completed"
    finally:
        receiver.released.set()
        stop.set()
        courier.join()
    assert SECRET not in caplog.text
    assert "opaque" not in caplog.text


def test_the_officer_is_told_of_the_webhook(
    federation: Federation, services: Services, courier: Courier
) -> None:
    """Art. 15(1)(c) and Art. 19: who was told of the person, in the answer and in the erasure's receipt."""
    silo, *_ = invite(federation, 2)
    carry(courier, lambda: undelivered(services) == 0)
    dpo = federation.staff("dpo")

    def ask(kind: str) -> str:
        wish = {"type": kind, "subject": {"client_id": silo.client_id}}
        opened = federation.http.post("/api/v1/privacy/requests", json=wish, headers=dpo)
        assert (opened.status_code, opened.json["status"]) == (201, "completed"), opened.text
        return str(opened.json["id"])

    package = federation.http.get(f"/api/v1/privacy/requests/{ask('access')}/package", headers=dpo).data
    receipt = federation.http.get(f"/api/v1/privacy/requests/{ask('erasure')}/receipt", headers=dpo)

    assert b"webhook" in _unpacked(package)
    assert {"name": "webhook", "told": None} in _claims(receipt.get_data(as_text=True))["recipients"]


def _unpacked(package: bytes) -> bytes:
    import io
    import zipfile

    with zipfile.ZipFile(io.BytesIO(package)) as files:
        return b"".join(files.read(name) for name in files.namelist())


def _claims(jws: str) -> dict[str, object]:
    import base64

    part = jws.split(".")[1]
    claims: dict[str, object] = json.loads(base64.urlsafe_b64decode(part + "=" * (-len(part) % 4)))
    return claims


@pytest.mark.parametrize(
    ("url", "secret"),
    [
        ("http://hooks.example/x?key=opaque", SECRET),
        ("ftp://127.0.0.1/opaque", SECRET),
        ("https://user:opaque@hooks.example/", SECRET),
        ("https:///opaque", SECRET),
        ("https://hooks.example:port/opaque", SECRET),
        ("https://hooks.example/opaque", "opaque"),
        ("https://hooks.example/opaque", ""),
    ],
)
def test_an_unusable_webhook_is_refused_at_the_start(services: Services, url: str, secret: str) -> None:
    """Plain http goes to this machine alone, nothing goes unsigned, and no setting is repeated."""
    wrong = replace(services, config=replace(services.config, webhook_url=url, webhook_secret=secret))

    with pytest.raises(WebhookInvalid) as refused:
        recover(wrong)

    assert "FLG_WEBHOOK_" in str(refused.value)
    assert "opaque" not in str(refused.value)


def test_without_a_webhook_an_invitation_rings_the_bell(federation: Federation, services: Services) -> None:
    """Clients that wait for their invitations are woken, and the message is done with."""
    bare = replace(services, config=replace(services.config, webhook_url="", webhook_secret=""))
    invite(federation, 2)
    services.bell.wait(Channel.INVITATIONS, 0.0)
    courier = Courier(bare)

    carry(courier, lambda: services.bell.wait(Channel.INVITATIONS, 0.1))

    assert services.queue.receive(QueueName.TRAINING_INVITATIONS, limit=5, wait_s=0.2) == []
