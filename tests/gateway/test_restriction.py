"""Restriction, objection, rectification: kept and not used until it is lifted, or put right (Art. 16, 18, 21)."""

from __future__ import annotations

from copy import copy
from dataclasses import replace
from typing import Any

import pytest
from federation import Federation, Silo, file_of, tensors
from flask.testing import FlaskClient
from sqlalchemy import select

from audit.reading import reading
from compliance.errors import NothingToLift
from compliance.subjects import Ground, restrict
from compliance.tables import subjects
from gateway.app import create_app
from gateway.auth.refusals import close_refusals
from gateway.auth.roster import name_index
from gateway.services import Services
from gateway.tables import client_updates, clients

UPDATE = file_of(tensors(0.5))
REQUESTS = "/api/v1/privacy/requests"
Headers = dict[str, str]


@pytest.fixture
def federation(services: Services, http: FlaskClient) -> Federation:
    """A federation with a model."""
    made = Federation(services, http)
    made.add_model()
    return made


@pytest.fixture
def silo(federation: Federation) -> Silo:
    """A client that was seen."""
    return _seen(federation, "a silo")


@pytest.fixture
def dpo(federation: Federation) -> Headers:
    """Credentials of the data-protection officer."""
    return federation.staff("dpo")


def _seen(federation: Federation, name: str) -> Silo:
    found = federation.register(name)
    federation.http.get("/api/v1/rounds", headers=found.headers)
    return found


def _ask(federation: Federation, dpo: Headers, silo: Silo, kind: str, **more: Any) -> Any:
    wish = {"type": kind, "subject": {"client_id": silo.client_id}, **more}
    return federation.http.post(REQUESTS, json=wish, headers=dpo)


def _lift(federation: Federation, dpo: Headers, case: str) -> Any:
    return federation.http.post(f"{REQUESTS}/{case}/lift", json={"notice": "canary-notice"}, headers=dpo)


@pytest.mark.parametrize("kind", ["restriction", "objection"])
def test_what_is_restricted_is_not_taken_until_it_is_lifted(
    federation: Federation, silo: Silo, dpo: Headers, kind: str
) -> None:
    """Art. 18(2), 21(1): updates get 403 PROCESSING_RESTRICTED; one command, with a notice, ends it."""
    federation.open_round()
    case = _ask(federation, dpo, silo, kind)

    refused = federation.submit(silo, b"not even read")
    lifted = _lift(federation, dpo, case.json["id"])
    again = _lift(federation, dpo, case.json["id"])

    assert (case.status_code, case.json["status"]) == (201, "completed")
    assert (refused.status_code, refused.json["code"]) == (403, "PROCESSING_RESTRICTED")
    assert (lifted.status_code, lifted.json["version"]) == (200, case.json["version"] + 1)
    assert (again.status_code, again.json["code"]) == (409, NothingToLift.code)
    assert federation.submit(silo, UPDATE).status_code == 202


def test_an_update_in_an_open_round_is_left_out_before_freezing(
    federation: Federation, silo: Silo, dpo: Headers
) -> None:
    """RULES 5, 6: it contributes zero, it stays stored, and lifting does not bring it back."""
    other = _seen(federation, "another")
    federation.open_round(planned_clients=2)
    assert federation.submit(silo, file_of(tensors(100.0))).status_code == 202
    case = _ask(federation, dpo, silo, "restriction")
    _lift(federation, dpo, case.json["id"])
    assert federation.submit(other, UPDATE).status_code == 202

    federation.http.post("/api/v1/rounds/1/close", headers=federation.operator)
    federation.work()

    assert (federation.round()["status"], federation.round()["num_updates"]) == ("completed", 1)
    with reading(federation.services.engine) as conn:
        query = select(client_updates.c.status).where(client_updates.c.client_id == silo.client_id)
        assert conn.execute(query).scalars().all() == ["dropped"]


def test_a_restriction_that_comes_while_an_update_arrives_counts(
    federation: Federation, silo: Silo, services: Services
) -> None:
    """RULES 18, for this mark too: the accepting transaction looks again, and nothing of the update is left."""
    federation.open_round()
    kept = federation.kept()

    def mark(point: str) -> None:
        if point == "update.blob":
            with services.engine.begin() as conn:
                subject = conn.execute(
                    select(clients.c.subject_id).where(clients.c.client_id == silo.client_id)
                ).scalar_one()
                restrict(conn, subject, Ground.OBJECTION, services.clock())

    app = create_app(replace(services, crash=mark))
    late = copy(federation)
    late.http = app.test_client()
    refused = late.submit(silo, UPDATE)
    close_refusals(app)

    assert (refused.status_code, refused.json["code"]) == (403, "PROCESSING_RESTRICTED")
    assert federation.kept() == kept


def test_a_restricted_person_is_not_chosen(federation: Federation, silo: Silo, dpo: Headers) -> None:
    """Issue: its clients are not chosen; another one is."""
    other = _seen(federation, "another")
    _ask(federation, dpo, silo, "objection")

    federation.open_round(planned_clients=2, selection={"strategy": "random", "seen_within_s": 3600})
    federation.work()

    invited = [
        bool(federation.http.get("/api/v1/invitations", headers=one.headers).json["data"])
        for one in (silo, other)
    ]
    assert invited == [False, True]


def test_a_reserve_takes_the_place_of_who_is_restricted(federation: Federation, dpo: Headers) -> None:
    """Who was asked and may not answer any more makes room."""
    silos = [_seen(federation, f"silo {number}") for number in range(2)]
    federation.open_round(
        planned_clients=1,
        selection={"strategy": "random", "reserves": 1, "respond_within_s": 600, "seen_within_s": 3600},
    )
    federation.work()

    def asked() -> list[bool]:
        answers = [federation.http.get("/api/v1/invitations", headers=one.headers) for one in silos]
        return [bool(answer.json["data"]) for answer in answers]

    before = asked()
    _ask(federation, dpo, silos[before.index(True)], "restriction")
    federation.work()
    federation.worker._next_search.clear()
    federation.work()

    assert sorted(before) == [False, True]
    assert asked()[before.index(False)]


def test_one_ground_lifted_leaves_the_other(federation: Federation, silo: Silo, dpo: Headers) -> None:
    """Art. 18 and 21 are two rights: each stands until it is ended by itself."""
    federation.open_round()
    cases = [_ask(federation, dpo, silo, kind).json["id"] for kind in ("restriction", "objection")]

    assert _lift(federation, dpo, cases[0]).status_code == 200
    assert federation.submit(silo, UPDATE).status_code == 403
    assert _lift(federation, dpo, cases[1]).status_code == 200

    assert federation.submit(silo, UPDATE).status_code == 202


def test_each_request_is_lifted_by_itself_and_once(federation: Federation, silo: Silo, dpo: Headers) -> None:
    """Art. 18(3): what another request restricts stays, also one that came after the lifting."""
    federation.open_round()
    first, second = (_ask(federation, dpo, silo, "restriction").json["id"] for _ in range(2))

    lifted = _lift(federation, dpo, first)
    again = _lift(federation, dpo, first)

    assert (lifted.status_code, lifted.json["lifted_at"] is None) == (200, False)
    assert (again.status_code, again.json["code"]) == (409, NothingToLift.code)
    assert federation.submit(silo, UPDATE).status_code == 403
    assert _lift(federation, dpo, second).status_code == 200
    assert federation.submit(silo, UPDATE).status_code == 202


def test_a_request_by_reference_lifts_nothing_of_its_silo(
    federation: Federation, silo: Silo, dpo: Headers
) -> None:
    """Art. 11: it was answered with a statement, and its subject is the silo."""
    federation.open_round()
    _ask(federation, dpo, silo, "restriction")
    wish = {"type": "restriction", "subject": {"reference": "case 7", "silo": silo.client_id}}
    stated = federation.http.post(REQUESTS, json=wish, headers=dpo)
    assert stated.json["has_statement"]

    lifted = _lift(federation, dpo, stated.json["id"])

    assert (lifted.status_code, lifted.json["code"]) == (409, NothingToLift.code)
    assert federation.submit(silo, UPDATE).status_code == 403


def test_a_restricted_caller_registers_nobody(federation: Federation, dpo: Headers) -> None:
    """Issue: registrations get 403 too."""
    with reading(federation.services.engine) as conn:
        query = select(clients.c.subject_id).where(clients.c.role == "operator")
        subject = conn.execute(query).scalar_one()
    wish = {"type": "restriction", "subject": {"subject_id": subject}}
    assert federation.http.post(REQUESTS, json=wish, headers=dpo).json["status"] == "completed"

    refused = federation.http.post("/api/v1/clients/register", json={}, headers=federation.operator)

    assert (refused.status_code, refused.json["code"]) == (403, "PROCESSING_RESTRICTED")


def test_exports_and_erasures_go_on(federation: Federation, silo: Silo, dpo: Headers) -> None:
    """Art. 18(2): storage goes on, and so do the person's other rights."""
    case = _ask(federation, dpo, silo, "restriction")

    assert _ask(federation, dpo, silo, "access").json["status"] == "completed"
    assert _ask(federation, dpo, silo, "erasure").json["status"] in ("completed", "running")

    assert _lift(federation, dpo, case.json["id"]).status_code in (200, 409)
    with reading(federation.services.engine) as conn:
        assert "active" in conn.execute(select(subjects.c.state)).scalars().all()


def test_only_what_restricts_is_lifted(
    federation: Federation, silo: Silo, dpo: Headers, entries: Any
) -> None:
    """Promise 7: 404, 409 and 422; the notice is sealed in the entry."""
    access = _ask(federation, dpo, silo, "access").json["id"]
    case = _ask(federation, dpo, silo, "restriction").json["id"]

    assert _lift(federation, dpo, access).status_code == 409
    assert _lift(federation, dpo, "5f0f0d0e-0000-4000-8000-000000000000").status_code == 404
    path = f"{REQUESTS}/{case}/lift"
    assert federation.http.post(path, json={"notice": ""}, headers=dpo).status_code == 422
    stale = federation.http.post(path, json={"notice": "told", "version": 1}, headers=dpo)
    assert (stale.status_code, stale.json["code"]) == (409, "CASE_CHANGED")
    assert federation.http.post(path, json={"notice": "x"}, headers=federation.operator).status_code == 403
    assert _lift(federation, dpo, case).status_code == 200

    (entry,) = entries("privacy.lifted")
    assert entry["details"] == {"case_id": case, "type": "restriction", "notice": "canary-notice"}
    assert entry["sealed"] == {"notice"}


def test_a_name_and_a_device_are_put_right(
    federation: Federation, silo: Silo, dpo: Headers, entries: Any
) -> None:
    """Art. 16: what is not named stays; the client is found by its right name, and the change is told."""
    correction = {"name": "the right name", "device": {"platform": "linux"}}

    done = _ask(federation, dpo, silo, "rectification", correction=correction)

    assert (done.status_code, done.json["status"]) == (201, "completed"), done.json
    shown = federation.http.get(f"/api/v1/clients/{silo.client_id}", headers=federation.operator).json
    assert (shown["name"], shown["platform"]) == ("the right name", "linux")
    with reading(federation.services.engine) as conn:
        row = conn.execute(select(clients).where(clients.c.client_id == silo.client_id)).one()
    opened = federation.services.sealer.open_column(row.device, "clients", "device", silo.client_id)
    assert opened["device_id"] == "a silo"
    assert row.name_index == name_index(federation.services, "the right name")
    (entry,) = entries("client.changed")
    assert entry["details"]["changed"] == ["name", "device"]


@pytest.mark.parametrize(
    "correction",
    [
        {"name": ""},
        {"surname": "x"},
        {"client_id": "5f0f0d0e-0000-4000-8000-000000000000", "name": "x"},
        {"client_id": None},
        {"device": {"colour": "red"}},
    ],
)
def test_a_correction_that_cannot_be_made_waits_for_a_person(
    federation: Federation, silo: Silo, dpo: Headers, correction: dict[str, Any]
) -> None:
    """The request came in, its clock runs, and the answer names it (201); who approves it again gets 422."""
    before = federation.http.get(f"/api/v1/clients/{silo.client_id}", headers=federation.operator).json

    filed = _ask(federation, dpo, silo, "rectification", correction=correction)
    refused = federation.http.post(f"{filed.headers['Location']}/approve", headers=dpo)

    assert (filed.status_code, filed.json["status"], filed.json["last_error"]) == (
        201,
        "in_review",
        "BAD_CORRECTION",
    )
    assert (refused.status_code, refused.json["code"]) == (422, "BAD_CORRECTION")
    after = federation.http.get(f"/api/v1/clients/{silo.client_id}", headers=federation.operator).json
    assert after["name"] == before["name"]
    (case,) = federation.http.get(REQUESTS, headers=dpo).json["data"]
    assert (case["status"], case["last_error"], case["attempts"]) == ("in_review", "BAD_CORRECTION", 2)
