"""What an erasure does on the gateway's own stores: batches, messages, frozen rounds, influence, and the way back."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from federation import Federation, Silo, file_of, tensors
from flask.testing import FlaskClient
from many_updates import add_message, add_updates
from sqlalchemy import event, func, select, text, update
from werkzeug.test import TestResponse

from audit.bundle import export_bundle
from audit.draft import Personal
from audit.reading import reading
from audit.verify import verify_bundle
from compliance.erasures.commitment import commit
from compliance.jws import verify_compact
from compliance.requests.cases import Case, Status
from compliance.requests.reasons import Exemption
from gateway.auth.clients import add_client
from gateway.auth.scopes import Role
from gateway.influence import influence_of, versions_before
from gateway.log_key import log_keys
from gateway.messaging.outbox import QueueName
from gateway.places import ClientBook, ClientsPlace, MessagesPlace, UpdatesPlace
from gateway.privacy import privacy_desk
from gateway.services import Services
from gateway.tables import client_updates, outbox, rounds

UPDATE = file_of(tensors(0.5))
OFFICER = Personal("system", "officer")


@pytest.fixture
def federation(services: Services, http: FlaskClient) -> Federation:
    """A federation with one model."""
    made = Federation(services, http)
    made.add_model()
    return made


def _subject(services: Services, client_id: str) -> str:
    found = ClientBook(services).subject_of(client_id)
    assert found is not None
    return found


def _person(services: Services, updates: int) -> str:
    client_id = add_client(services, "a silo", Role.PARTICIPANT).client_id
    subject = _subject(services, client_id)
    add_updates(services, client_id, subject, updates, has_blobs=False)
    return subject


def _erase(services: Services, subject: str) -> Case:
    desk = privacy_desk(services)
    case = desk.open("erasure", subject, requested_by=OFFICER)
    return desk.run(desk.approve(case.id, by=OFFICER).id)


def _held(services: Services, subject: str, place: str) -> str:
    review_at = services.clock() + timedelta(days=90)
    placed = privacy_desk(services).holds.place(
        subject, matter="a claim", scope=(place,), basis=Exemption("e"), review_at=review_at, by=OFFICER
    )
    return placed.id


def _trained(federation: Federation, *silos: Silo, **wish: Any) -> int:
    """Have a round count an update of each; its number."""
    opened = federation.open_round(planned_clients=len(silos), **wish)
    assert opened.status_code == 201, opened.text
    number = int(_told(opened)["round_number"])
    for silo in silos:
        assert federation.submit(silo, UPDATE, number=number).status_code == 202
    federation.work()
    assert federation.round(number)["status"] == "completed"
    return number


@contextmanager
def _statements(services: Services) -> Iterator[list[str]]:
    seen: list[str] = []

    def note(_conn: object, _cursor: object, statement: str, *_more: object) -> None:
        seen.append(statement)

    event.listen(services.engine, "before_cursor_execute", note)
    yield seen
    event.remove(services.engine, "before_cursor_execute", note)


def test_what_an_erasure_costs_grows_with_the_persons_own_data(services: Services) -> None:
    """Issue: linear in the subject's data, not in the table's size: batches of 500, whoever else is there."""
    few, more, among = (_person(services, count) for count in (500, 1500, 500))

    counts = []
    for subject in (few, more, among):
        with _statements(services) as seen:
            assert _erase(services, subject).status is Status.COMPLETED
        counts.append(len(seen))

    assert counts[1] - counts[0] <= 2 * (
        1 + 1
    )  # two batches more of updates; nothing else is asked for each row
    assert counts[2] == counts[0]


def test_messages_about_the_person_go_and_those_of_others_stay(services: Services) -> None:
    """Issue: the outbox and its dead letters too; they carry ids alone, and those are the person's."""
    subject, other = _person(services, 2), _person(services, 1)
    place = MessagesPlace(services)
    with reading(services.engine) as conn:
        ids = select(client_updates.c.update_id).order_by(client_updates.c.round_id)
        mine, _, theirs = conn.execute(ids).scalars().all()
    for update_id in (mine, mine, theirs):
        add_message(services, str(update_id))
    with services.engine.begin() as conn:
        first = select(outbox.c.message_id).limit(1).scalar_subquery()
        dead = update(outbox).where(outbox.c.message_id == first)
        conn.execute(dead.values(queue=QueueName.MODEL_UPDATES.dead))
    assert place.count(subject) + place.count(other) == 3

    done = _erase(services, subject)

    assert done.status is Status.COMPLETED
    assert (place.count(subject), place.count(other)) == (0, 1)
    with reading(services.engine) as conn:
        assert conn.scalar(select(func.count()).select_from(outbox)) == 1


def test_an_erasure_that_waits_for_a_frozen_round_tells_of_its_model_too(
    federation: Federation, services: Services
) -> None:
    """RULES 5: nothing is removed before the round ends, and what that round learned is in the receipt."""
    silo = federation.register()
    subject = _subject(services, silo.client_id)
    _trained(federation, silo)
    federation.open_round(planned_clients=2)
    federation.submit(silo, UPDATE, number=2)
    with services.engine.begin() as conn:
        conn.execute(update(rounds).where(rounds.c.round_number == 2).values(status="aggregating"))

    waiting = _erase(services, subject)

    assert (waiting.status, waiting.last_error) == (Status.RUNNING, "NOT_NOW")
    assert UpdatesPlace(services).count(subject) == 2
    assert ClientsPlace(services).count(subject) > 0
    with services.engine.begin() as conn:
        ended = update(rounds).where(rounds.c.round_number == 2)
        conn.execute(ended.values(status="completed", result_version="1.1.0"))
        conn.execute(update(client_updates).values(status="counted"))
    (done,) = privacy_desk(services).resume_open()
    assert done.status is Status.COMPLETED
    assert _claims(services, done)["models"][0]["first_version"] == "1.1.0"
    assert UpdatesPlace(services).count(subject) == 0


def test_a_hold_keeps_an_update_and_lets_no_round_use_it(federation: Federation, services: Services) -> None:
    """RULES 5: an update in an open round is dropped before freezing, also where it must be kept."""
    silo = federation.register()
    subject = _subject(services, silo.client_id)
    federation.open_round(planned_clients=2)
    federation.submit(silo, UPDATE, number=1)
    _held(services, subject, "client_updates")

    resting = _erase(services, subject)

    assert resting.status is Status.ON_HOLD
    with reading(services.engine) as conn:
        assert conn.execute(select(client_updates.c.status)).scalars().all() == ["dropped"]


def test_what_was_published_during_a_hold_is_in_the_receipt_too(
    federation: Federation, services: Services
) -> None:
    """Issue: every model version; others' rounds went on from what had learned from the person."""
    silo, other = federation.register("one"), federation.register("two")
    subject = _subject(services, silo.client_id)
    _trained(federation, silo)
    hold_id = _held(services, subject, "client_updates")
    _erase(services, subject)
    _trained(federation, other)

    holds = privacy_desk(services).holds
    holds.ask_release(hold_id, by=OFFICER)
    holds.release(hold_id, by=Personal(_subject(services, other.client_id), "another"))
    (done,) = privacy_desk(services).resume_open()

    assert done.status is Status.COMPLETED
    assert [line["first_version"] for line in _claims(services, done)["models"]] == ["1.1.0", "1.2.0"]


def test_the_bound_is_that_of_the_rounds_that_counted_the_person(
    federation: Federation, services: Services
) -> None:
    """Issue: for every model version the (epsilon, delta) that bounds the subject's influence."""
    silo, other = federation.register("one"), federation.register("two")
    federation.add_model(privacy_budget={"epsilon": 9.0, "delta": 1e-5})
    noisy = {"mechanism": "gaussian", "unit": "client", "clip_norm": 1.0, "noise_multiplier": 4.0}
    _trained(federation, other, privacy=noisy)
    _trained(federation, silo, privacy=noisy)
    _trained(federation, other, privacy=noisy)

    first, second = influence_of(services, _subject(services, silo.client_id))

    assert (first.first_version, second.first_version) == ("2.2.0", "2.3.0")
    assert first.version_before == "2.1.0"
    assert first.epsilon == second.epsilon  # the third round counted nothing of this person
    assert float(str(first.epsilon)) == pytest.approx(0.9263, abs=1e-3)
    assert first.delta == "0.00001"
    assert "this person" in first.statement


def test_where_a_round_added_no_noise_the_receipt_says_that_no_bound_holds(
    federation: Federation, services: Services
) -> None:
    """Issue: the plain statement that none holds."""
    silo = federation.register()
    _trained(federation, silo)

    (line,) = influence_of(services, _subject(services, silo.client_id))

    assert (line.epsilon, line.delta, line.version_before) == (None, None, "1.0.0")
    assert line.statement.startswith("No bound holds")


def test_many_versions_share_lines_so_that_a_receipt_stays_small(services: Services) -> None:
    """Each version stands in exactly one line, with the bound of the last of its line."""
    lines = influence_of(services, _person(services, 250))

    assert len(lines) <= 100
    assert sum(line.versions for line in lines) == 250
    assert (lines[0].first_version, lines[-1].last_version) == ("many.1", "many.250")


def test_before_a_person_is_the_last_version_without_it(federation: Federation, services: Services) -> None:
    """Issue: rollback to the last version before the subject's first round; the command is on docs/erasure.md."""
    other, silo = federation.register("one"), federation.register("two")
    _trained(federation, other)
    _trained(federation, silo)
    _trained(federation, silo)
    federation.add_model()
    _trained(federation, silo)

    before = versions_before(services, _subject(services, silo.client_id))

    assert sorted(before) == ["1.1.0", "2.0.0"]
    assert versions_before(services, _subject(services, federation.register("three").client_id)) == []


def test_the_receipt_proves_its_place_in_the_log(
    federation: Federation, services: Services, tmp_path: Path
) -> None:
    """Issue: `audit verify --receipt` accepts what the person gets, the receipt and the proof alike."""
    silo, dpo = federation.register(), federation.staff("dpo")
    case = _erase(services, _subject(services, silo.client_id))
    url = f"/api/v1/privacy/requests/{case.id}/receipt"
    early = federation.http.get(f"{url}/proof", headers=dpo)
    federation.sequence()
    receipt = federation.http.get(url, headers=dpo).text
    proof = federation.http.get(f"{url}/proof", headers=dpo)
    bundle = tmp_path / "bundle.zip"
    with bundle.open("wb") as file:
        export_bundle(services.engine, file, log_keys(services).vkey, quorum=1)
    jwks = federation.http.get("/.well-known/jwks.json").text

    verdict = verify_bundle(
        bundle, vkey=log_keys(services).vkey, receipts=[receipt, proof.text], jwks=jwks, now=services.clock()
    )

    assert (early.status_code, _told(early)["status"]) == (202, "pending")
    assert verdict.ok, verdict.problem
    forged = receipt.replace(receipt.split(".")[1], receipt.split(".")[1][::-1])
    assert not verify_bundle(bundle, vkey=log_keys(services).vkey, receipts=[forged], jwks=jwks).ok


def test_the_key_to_the_receipt_is_handed_over_once(federation: Federation, services: Services) -> None:
    """Issue: an HMAC under a key handed to the person; the gateway keeps none of it, and the log says that it went."""
    silo, dpo = federation.register(), federation.staff("dpo")
    subject = _subject(services, silo.client_id)
    case = _erase(services, subject)
    url = f"/api/v1/privacy/requests/{case.id}/commitment-key"

    given = federation.http.post(url, headers=dpo)
    again = federation.http.post(url, headers=dpo)

    assert (given.status_code, _told(given)["subject_id"]) == (200, subject)
    claims = _claims(services, case)
    assert commit(bytes.fromhex(_told(given)["key"]), subject) == claims["subject"]
    assert (again.status_code, _told(again)["code"]) == (404, "NO_COMMITMENT_KEY")
    federation.sequence()
    with reading(services.engine) as conn:
        types = list(conn.execute(text("SELECT event_type FROM audit_log")).scalars())
    assert types.count("privacy.key_given") == 1


def test_nobody_but_who_may_erase_gets_the_key(federation: Federation, services: Services) -> None:
    """Whoever has the key can tell whom a receipt is about."""
    silo = federation.register()
    case = _erase(services, _subject(services, silo.client_id))
    url = f"/api/v1/privacy/requests/{case.id}/commitment-key"

    for role in ("operator", "auditor"):
        assert federation.http.post(url, headers=federation.staff(role)).status_code == 403


def _told(answer: TestResponse) -> dict[str, Any]:
    told: dict[str, Any] = json.loads(answer.text)
    return told


def _claims(services: Services, case: Case) -> dict[str, Any]:
    keys = {row.kid: row.public for row in services.keystore.public_keys()}
    return verify_compact(str(case.receipt), "fl-erasure+jwt", keys)
