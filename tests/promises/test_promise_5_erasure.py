"""Promise 5: after an erasure nobody can read the person's data, in no store or backup; the log still verifies."""

from __future__ import annotations

from pathlib import Path
from uuid import uuid4

import pytest
from living.driver import BUDGET, Driver, Person, await_that, good, tensors
from living.home import Home, home_in
from living.marked import subject_of
from living.readable import fields_of
from living.threads import LocalGateway, local_gateway_in
from sqlalchemy import func, select

from audit.entry import Sealed, parse_entry
from audit.errors import KeyDestroyed
from audit.events import EVENTS, EventType, Retention
from audit.reading import reading
from audit.store import each_entry
from compliance.keyring.tables import pseudonyms
from compliance.tables import privacy_requests
from gateway.rounds.freezing import freeze
from gateway.rounds.record import open_rounds
from gateway.rounds.recovery import sweep_blobs
from gateway.services import Services
from gateway.tables import client_updates, clients, idempotency_keys, tokens


def test_no_row_and_no_blob_of_an_erased_person_is_left(gateway: LocalGateway) -> None:
    """Rows, blobs, tokens, kept answers, keys: all gone. What remains of the subject is that it was erased."""
    gateway.add_model()
    person, other = gateway.register(), gateway.register()
    number = gateway.open_round({"mechanism": "none"})
    for one in (person, other):
        gateway.submit(one, number, Idempotency_Key="k")
    gateway.await_end(number)
    subject, blobs = subject_of(gateway.home, person), _blobs_of(gateway.home, person)
    assert blobs & gateway.home.blob_names()

    gateway.erase(person)

    with gateway.home.stores() as services:
        assert _rows_of(services, person.client_id) == {
            "client_updates": 0,
            "clients": 0,
            "tokens": 0,
            "idempotency_keys": 0,
        }
        kept = services.keystore.keys_of(subject)
        assert {key.retention for key in kept} <= {Retention.ACCOUNTABILITY}
        assert services.keystore.is_forbidden(subject)
    assert not blobs & gateway.home.blob_names()
    assert gateway.http.get("/api/v1/rounds", headers=person.headers).status_code == 401
    assert gateway.send(other, number, tensors(1)).status_code == 409  # others go on


def test_sealed_fields_of_an_erased_person_cannot_be_opened(gateway: LocalGateway) -> None:
    """What the person did as a participant is noise; refusals stay readable for accountability (RULES 19)."""
    gateway.add_model()
    person, other = gateway.register(), gateway.register()
    number = gateway.open_round({"mechanism": "none"})
    for one in (person, other):
        gateway.submit(one, number)
    gateway.send(person, number, b"refused")
    gateway.await_end(number)
    subject = subject_of(gateway.home, person)
    before = _fields_of(gateway.home, subject)

    gateway.erase(person)

    await_that("the log is at rest", lambda: gateway.entries("privacy.erased"))
    after = {place: _opens(gateway.home, place) for place in before}
    participation = {place for place, retention in before.items() if retention is Retention.PARTICIPATION}
    assert len(participation) >= 4
    assert {place for place, opened in after.items() if not opened} == participation
    assert gateway.home.verify_log().ok


@pytest.mark.parametrize("home", ["embedded"], indirect=True)
def test_a_key_store_restored_from_before_the_erasure_brings_nobody_back(home: Home, tmp_path: Path) -> None:
    """The ids of erased keys in the state are applied at the start, before anything can be read (RULES 1)."""
    gateway = LocalGateway(home).start()
    gateway.add_model()
    people = [gateway.register(), gateway.register()]
    gateway.run_round(people, {"mechanism": "none"})
    subject = subject_of(home, people[0])
    gateway.stop()
    backup = home.copy(tmp_path / "backup")
    gateway.start()
    fields = _fields_of(home, subject)
    gateway.erase(people[0])
    gateway.stop()
    sealed = [place for place, retention in fields.items() if retention is Retention.PARTICIPATION]

    home.restore(("keys/subjects.db",), backup)
    revived = [place for place in sealed if _opens(home, place)]
    with local_gateway_in(home):
        left = [place for place in sealed if _opens(home, place)]

    assert revived == sealed  # the backup did hold the keys, so that the start has something to do
    assert left == []


@pytest.mark.parametrize("home", ["embedded"], indirect=True)
def test_all_stores_restored_from_before_the_erasure_bring_nobody_back(home: Home, tmp_path: Path) -> None:
    """Database, blobs and key store together: rows come back, and say nothing; the person cannot be written for."""
    marker = f"canary-{uuid4()}"
    gateway = LocalGateway(home).start()
    gateway.add_model()
    person = _conspicuous(gateway, marker)
    subject = subject_of(home, person)
    gateway.stop()
    backup = home.copy(tmp_path / "backup")
    gateway.start()
    gateway.erase(person)
    gateway.stop()

    home.restore(("fl-gateway.db", "keys/subjects.db"), backup)
    with local_gateway_in(home) as restored:
        number = restored.open_round({"mechanism": "none"})
        answer = restored.send(person, number, tensors(1))
        listed = good(
            restored.http.get(f"/api/v1/clients/{person.client_id}", headers=restored.as_role("operator")),
            200,
        )

    assert (listed["subject_id"], listed["name"], listed["platform"]) == (subject, None, None)
    assert answer.status_code == 409
    assert marker.encode() not in answer.content


def test_an_erasure_waits_for_a_frozen_cohort_and_then_ends(home: Home) -> None:
    """The round is released with the update that was frozen into it, and then nothing of it is left (RULES 5)."""
    with local_gateway_in(home, "sequencer") as gateway:
        gateway.add_model(budget=BUDGET)
        person, other = gateway.register(), gateway.register()
        number = gateway.open_round()
        for one in (person, other):
            gateway.submit(one, number)
        blobs = _blobs_of(home, person)
        _freeze(home)

        case = gateway.ask_privacy("erasure", person)
        again = gateway.http.post(
            f"/api/v1/privacy/requests/{case['id']}/approve", json={}, headers=gateway.as_role("dpo")
        )
        late = gateway.privacy_request(case["id"])

    assert (case["status"], late["status"], late["last_error"]) == ("running", "running", "NOT_NOW"), (
        again.text
    )
    assert blobs <= home.blob_names()
    with local_gateway_in(home) as gateway:
        ended = gateway.await_end(number)
        await_that("the erasure ends", lambda: gateway.privacy_request(case["id"])["status"] == "completed")
    assert (ended["status"], ended["num_updates"]) == ("completed", 2)
    assert not blobs & home.blob_names()
    with home.stores() as services:
        assert not any(_rows_of(services, person.client_id).values())


def test_an_erased_update_is_dropped_from_an_open_round_and_the_rest_counts(gateway: LocalGateway) -> None:
    """Dropped before freezing, it contributes zero; the round goes on, or fails below its minimum (RULES 6)."""
    gateway.add_model()
    people = [gateway.register() for _ in range(3)]
    number = gateway.open_round({"mechanism": "none"}, planned_clients=4, min_clients=2)
    ids = [gateway.submit(person, number)["update_id"] for person in people]

    gateway.erase(people[0])
    gateway.http.post(f"/api/v1/rounds/{number}/close", headers=gateway.as_role("operator"))
    ended = gateway.await_end(number)

    assert (ended["status"], ended["num_updates"]) == ("completed", 2)
    (frozen,) = await_that("the entry", lambda: gateway.entries("round.frozen"))
    assert frozen["details"]["num_updates"] == len(ids) - 1


def test_an_erased_person_has_no_pseudonym_and_gets_no_other(gateway: LocalGateway) -> None:
    """What the SIEM was told is parted from the person, and entries that it gets later name nobody (RULES 28)."""
    gateway.add_model()
    person = gateway.register()
    subject = subject_of(gateway.home, person)
    await_that("the SIEM knows the person", lambda: _has_pseudonym(gateway.home, subject))

    gateway.erase(person)

    (last,) = await_that("the log tells", lambda: gateway.entries("privacy.erased"))
    siem = gateway.home.directory / "siem.jsonl"
    await_that("the SIEM knows all", lambda: last["id"] in siem.read_text())
    assert not _has_pseudonym(gateway.home, subject)


def test_an_export_package_stays_for_its_seven_days_and_goes_with_an_erasure(tmp_path: Path) -> None:
    """The sweep of blobs that no row names leaves it alone; the erasure does not."""
    at_once = {"blob_grace_s": "0", "evaluate_timeout_s": "0"}
    with home_in(tmp_path / "home", **at_once) as home, local_gateway_in(home) as gateway:
        gateway.add_model()
        person = gateway.register()
        gateway.export(person)
        with home.stores() as services:
            sweep_blobs(services)
            packages = set(_package_blobs(services))
        kept = packages & home.blob_names()

        gateway.erase(person)

    assert len(packages) == 1
    assert kept == packages
    assert not packages & home.blob_names()


def test_a_repeated_registration_of_an_erased_device_is_answered_and_tells_nothing(
    gateway: LocalGateway,
) -> None:
    """The kept answer was the device's: its key is gone, and the operator learns that it needs a new key."""
    body = {"device_id": "silo", "platform": "linux"}
    headers = gateway.as_role("operator") | {"Idempotency-Key": "one"}
    first = good(gateway.http.post("/api/v1/clients/register", json=body, headers=headers), 201)
    gateway.erase(Person(first["client_id"], first["registration_token"]))

    answer = gateway.http.post("/api/v1/clients/register", json=body, headers=headers)

    assert (answer.status_code, answer.json()["code"]) == (422, "IDEMPOTENCY_KEY_REUSED")


def _conspicuous(gateway: Driver, marker: str) -> Person:
    """A device that puts the marker wherever a client may put text."""
    return gateway.register(
        name=f"name {marker}",
        device_id=f"id {marker}",
        platform="linux",
        capabilities={"owner": marker},
    )


def _blobs_of(home: Home, person: Person) -> set[str]:
    query = select(client_updates.c.blob_id).where(client_updates.c.client_id == person.client_id)
    with home.stores() as services, reading(services.engine) as conn:
        return set(conn.execute(query).scalars())


def _has_pseudonym(home: Home, subject: str) -> bool:
    query = select(pseudonyms.c.pseudonym).where(pseudonyms.c.subject == subject)
    with home.stores() as services, reading(services.keystore_engine) as conn:
        return conn.execute(query).first() is not None


def _package_blobs(services: Services) -> list[str]:
    query = select(privacy_requests.c.package_blob).where(privacy_requests.c.package_blob.is_not(None))
    with reading(services.engine) as conn:
        return list(conn.execute(query).scalars())


def _rows_of(services: Services, client_id: str) -> dict[str, int]:
    with reading(services.engine) as conn:
        return {
            table.name: conn.execute(
                select(func.count()).select_from(table).where(table.c.client_id == client_id)
            ).scalar_one()
            for table in (client_updates, clients, tokens, idempotency_keys)
        }


def _fields_of(home: Home, subject: str) -> dict[tuple[int, str], Retention]:
    """Where the log has sealed fields of the subject, and how long each is kept."""
    with home.stores() as services, reading(services.engine) as conn:
        keys = {key.key_id for key in services.keystore.keys_of(subject)}
        entries = [parse_entry(stored.canonical) for stored in each_entry(conn)]
    return {
        (entry.seq, name): EVENTS[EventType(entry.event_type)].retention
        for entry in entries
        for name, value in fields_of(entry).items()
        if (sealed := Sealed.read(value)) and sealed.key in keys
    }


def _opens(home: Home, place: tuple[int, str]) -> bool:
    seq, name = place
    with home.stores() as services:
        with reading(services.engine) as conn:
            entry = next(e for s in each_entry(conn) if (e := parse_entry(s.canonical)).seq == seq)
        sealed = Sealed.read(fields_of(entry)[name])
        assert sealed is not None
        try:
            services.sealer.open(sealed, f"{entry.id}.{name}")
        except KeyDestroyed:
            return False
        return True


def _freeze(home: Home) -> None:
    """Freeze the open round, and go no further."""
    with home.stores() as services:
        with reading(services.engine) as conn:
            (found,) = open_rounds(conn)
        assert freeze(services, found)
