"""Promise 1: no effect without its audit entry, and no entry without its effect; refusals are entries too."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from uuid import uuid4

import httpx
import pytest
from living.driver import BARE, BUDGET, Driver, Json, await_that, tensors
from living.home import Home
from living.threads import LocalGateway, local_gateway_in
from sqlalchemy import MetaData, func, select
from sqlalchemy.exc import IntegrityError

import audit.tables
import compliance.tables
import gateway.tables
from audit.entry import Draft, Sealed
from audit.events import EventType
from audit.reading import reading
from compliance.subjects import new_subject
from gateway.auth.refusals import SINGLES_A_MINUTE
from gateway.services import Services

TABLES: tuple[MetaData, ...] = (audit.tables.metadata, compliance.tables.metadata, gateway.tables.metadata)
_NO_ENTRIES = {
    "sqlite": (
        "CREATE TRIGGER sabotage BEFORE INSERT ON audit_pending BEGIN SELECT RAISE(ABORT, 'no entry'); END",
    ),
    "postgresql": (
        "CREATE FUNCTION sabotage() RETURNS trigger LANGUAGE plpgsql AS "
        "$$ BEGIN RAISE EXCEPTION USING ERRCODE = 'check_violation', MESSAGE = 'no entry'; END $$",
        "CREATE TRIGGER sabotage BEFORE INSERT ON audit_pending FOR EACH ROW EXECUTE FUNCTION sabotage()",
    ),
}


def test_an_effect_whose_entry_cannot_be_written_does_not_happen(home: Home) -> None:
    """A device, a model, a round, an update: without a place for the entry, none of them leaves a row or a blob."""
    with local_gateway_in(home, "sequencer") as gateway:
        gateway.add_model()
        person, number = gateway.register(), gateway.open_round(BARE)
        gateway.as_role("dpo")
        await_that("the log is at rest", lambda: not pending(home))
        before, blobs = row_counts(home), blob_names(home)

        with entries_impossible(home):
            answers = [
                gateway.http.post(
                    "/api/v1/clients/register", json={"device_id": "x"}, headers=gateway.as_role("operator")
                ),
                gateway.send(person, number, tensors(1)),
                gateway.ask_round(BARE),
                gateway.http.post(f"/api/v1/rounds/{number}/close", headers=gateway.as_role("operator")),
                gateway.http.post(
                    "/api/v1/privacy/requests",
                    json={"type": "erasure", "subject": {"client_id": person.client_id}},
                    headers=gateway.as_role("dpo"),
                ),
            ]
            after = row_counts(home)

        assert all(answer.status_code >= 400 for answer in answers), [a.text for a in answers]
        assert after == before
        assert blob_names(home) == blobs
        assert gateway.round(number)["status"] == "active"


def test_an_entry_whose_effect_fails_is_not_written(home: Home) -> None:
    """The staged entry goes with the transaction that it was staged in."""
    with home.stores() as services:
        entry = services.trail.draft(EventType.CONFIG_CHANGED, details={"settings": ["none"]})
        taken = str(uuid4())
        with services.engine.begin() as conn:
            new_subject(conn, taken, services.clock())

        with pytest.raises(IntegrityError):
            _add_again(services, entry, taken)

        assert pending(home) == 0


def test_each_effect_has_its_entry(shared: LocalGateway) -> None:
    """What a round leaves in the tables, the log tells, once each."""
    shared.add_model(budget=BUDGET)
    people = [shared.register(), shared.register()]
    ended = shared.run_round(people)

    await_that("the log is at rest", lambda: not pending(shared.home))

    number = ended["round_number"]
    told = [e for e in shared.entries() if e["details"].get("round_number") == number]
    kinds = [entry["event_type"] for entry in told]
    assert sorted(kinds) == sorted(
        [
            "round.created",
            "update.accepted",
            "update.accepted",
            "round.frozen",
            "round.completed",
            "privacy.spent",
        ]
    )
    completed = told[kinds.index("round.completed")]
    assert completed["details"]["checksum"] == ended["result_model"]["checksum"]


@pytest.mark.parametrize(
    ("status", "event_type"),
    [
        (401, "access.refused"),
        (403, "access.refused"),
        (409, "update.refused"),
        (413, "update.refused"),
        (422, "update.refused"),
    ],
)
def test_a_refusal_is_one_entry_and_names_nobody_in_clear(
    shared: LocalGateway, status: int, event_type: str
) -> None:
    """Every refusal of the design's list is told, with its reason; who asked is sealed."""
    seen = len(shared.entries())

    answer = _refused(shared, status)

    assert answer.status_code == status, answer.text
    entries = await_that("the entry", lambda: _new(shared, seen, event_type))
    assert [(e["outcome"], e["details"]["status"]) for e in entries] == [("denied", status)]
    assert entries[0]["details"]["reason"] == answer.json()["code"]
    assert Sealed.read(entries[0]["actor"])
    assert Sealed.read(entries[0]["ip_address"])


@pytest.mark.parametrize("home", ["embedded"], indirect=True)
def test_a_flood_of_refusals_is_folded_and_none_is_lost(home: Home) -> None:
    """A flood of 300 costs the log 20 entries and one that counts the rest."""
    flood = 300
    with local_gateway_in(home, "sequencer") as gateway:
        for _ in range(flood):
            assert gateway.http.get("/api/v1/rounds").status_code == 401
    with home.stores() as services:
        bodies = [*_staged(services), *_logged(services)]

    refusals = [body["details"] for body in bodies if body["event_type"] == "access.refused"]

    assert len(refusals) == SINGLES_A_MINUTE + 1
    assert sum(details.get("count", 1) for details in refusals) == flood


@contextmanager
def entries_impossible(home: Home) -> Iterator[None]:
    """Nobody can stage an entry for the length of the block."""
    with home.stores() as services:
        dialect = services.engine.dialect.name
        with services.engine.begin() as conn:
            for statement in _NO_ENTRIES[dialect]:
                conn.exec_driver_sql(statement)
        yield
        with services.engine.begin() as conn:
            table = " ON audit_pending" if dialect == "postgresql" else ""
            conn.exec_driver_sql(f"DROP TRIGGER sabotage{table}")


def row_counts(home: Home) -> dict[str, int]:
    """How many rows each table of the main database has."""
    with home.stores() as services, reading(services.engine) as conn:
        return {
            table.name: conn.execute(select(func.count()).select_from(table)).scalar_one()
            for metadata in TABLES
            for table in metadata.sorted_tables
        }


def blob_names(home: Home) -> set[str]:
    """Every file of the blob store, those still being written included."""
    return home.blob_names()


def pending(home: Home) -> int:
    """How many entries wait for their place in the log."""
    return row_counts(home)["audit_pending"]


def _add_again(services: Services, entry: Draft, subject_id: str) -> None:
    with services.engine.begin() as conn:
        services.trail.write(conn, entry)
        new_subject(conn, subject_id, services.clock())


def _refused(gateway: Driver, status: int) -> httpx.Response:
    """A request that is refused with this status."""
    if status == 401:
        return gateway.http.get("/api/v1/rounds", headers={"Authorization": "Bearer wrong"})
    person = gateway.register()
    if status == 403:
        return gateway.http.post("/api/v1/rounds", json={}, headers=person.headers)
    gateway.add_model()
    number = gateway.open_round(BARE)
    if status == 409:
        gateway.submit(person, number)
        return gateway.send(person, number, tensors(1))
    if status == 413:
        return gateway.send(person, number, b"x", Content_Length=str(1 << 40))
    return gateway.send(person, number, b"no tensors")


def _new(gateway: Driver, seen: int, event_type: str) -> list[Json]:
    return [entry for entry in gateway.entries()[seen:] if entry["event_type"] == event_type]


def _staged(services: Services) -> list[Json]:
    with reading(services.engine) as conn:
        return [
            json.loads(body) for body in conn.execute(select(audit.tables.audit_pending.c.body)).scalars()
        ]


def _logged(services: Services) -> list[Json]:
    with reading(services.engine) as conn:
        query = select(audit.tables.audit_log.c.canonical)
        return [json.loads(body) for body in conn.execute(query).scalars()]
