"""Privacy requests over HTTP: lists with filters, every transition, two approvals, people known to a silo alone."""

from __future__ import annotations

import shutil
from dataclasses import replace
from datetime import datetime, timedelta
from io import BytesIO
from pathlib import Path
from typing import Any

import pytest
from federation import Federation, Silo, file_of, tensors
from flask.testing import FlaskClient
from services.clock import FixedClock

from compliance.requests.statements import verify_statement
from gateway.app import create_app
from gateway.auth.clients import add_client
from gateway.auth.scopes import Role
from gateway.config import Config
from gateway.privacy import privacy_desk
from gateway.services import Services

PATH = "/api/v1/privacy/requests"
NOBODY = "3f0c8b7e-2d1a-4c55-9b1e-5a7d20c4e9f1"
BAD_FILTERS = [
    ("status=lost", 422),
    ("type=burning", 422),
    ("owned=perhaps", 422),
    ("due_before=tomorrow", 422),
    ("due_before=2026-12-01", 422),
    ("due_before=0001-01-01T00:00:00%2B14:00", 422),
    ("client_id=x", 422),
    (f"client_id={NOBODY}", 404),
    ("page=0", 422),
]
BAD_MOVES: list[tuple[str, dict[str, Any], int, str]] = [
    ("refuse", {"reason": "because"}, 422, "VALIDATION_FAILED"),
    ("refuse", {}, 422, "VALIDATION_FAILED"),
    ("refuse", {"reason": "exempt"}, 422, "BAD_REFUSAL"),
    ("refuse", {"reason": "excessive", "exemption": "z"}, 422, "VALIDATION_FAILED"),
    ("hold", {}, 422, "VALIDATION_FAILED"),
    ("extend", {"reason": "complex"}, 422, "VALIDATION_FAILED"),
    ("extend", {"notice": "told", "reason": " "}, 422, "VALIDATION_FAILED"),
    ("review", {"version": 7}, 409, "CASE_CHANGED"),
    ("resume", {}, 409, "MOVE_NOT_ALLOWED"),
    ("sing", {}, 404, "NOT_FOUND"),
]


@pytest.fixture
def federation(services: Services, http: FlaskClient) -> Federation:
    """A federation whose clients can register."""
    return Federation(services, http)


@pytest.fixture
def dpo(federation: Federation) -> dict[str, str]:
    """Credentials of the data-protection officer."""
    return federation.staff("dpo")


@pytest.fixture
def filer(federation: Federation) -> dict[str, str]:
    """Credentials that open requests of both kinds, and approve none."""
    return _narrow(federation, "privacy:export privacy:erase")


def test_requests_are_listed_with_filters_and_pages(
    federation: Federation, dpo: dict[str, str], filer: dict[str, str]
) -> None:
    """API.md: `{data, pagination, links}`; each filter lets through what it says."""
    silo, other = federation.register("silo"), federation.register("other")
    access = _opened(federation, filer, "access", silo)
    erasure = _opened(federation, filer, "erasure", other, received_at="2026-10-31T09:00:00Z")
    _moved(federation, dpo, access, "take")

    def ids(query: str) -> list[str]:
        answer = federation.http.get(f"{PATH}?{query}", headers=dpo)
        assert answer.status_code == 200, answer.text
        return [case["id"] for case in answer.json["data"]]

    whole = federation.http.get(f"{PATH}?per_page=1", headers=dpo).json
    assert ids("") == [erasure["id"], access["id"]]
    assert (whole["pagination"]["total_items"], len(whole["data"])) == (2, 1)
    assert ids(whole["links"]["next"].partition("?")[2]) == [access["id"]]
    assert ids("status=received&type=erasure") == [erasure["id"]]
    assert ids(f"client_id={silo.client_id}") == [access["id"]]
    assert ids("due_before=2026-12-01T00:00:00Z") == [erasure["id"]]
    assert ids("owned=true") == [access["id"]]
    assert ids("owned=false") == [erasure["id"]]
    assert ids("status=completed") == []


def test_a_filter_that_cannot_be_is_refused(federation: Federation, dpo: dict[str, str]) -> None:
    """Promise 7: a clear error that names the filter, and no 500."""
    for query, status in BAD_FILTERS:
        answer = federation.http.get(f"{PATH}?{query}", headers=dpo)

        assert answer.status_code == status, query
        if status == 422:
            assert answer.json["errors"][0]["pointer"] == f"?{query.partition('=')[0]}"


def test_a_request_shows_how_it_stands(
    federation: Federation, dpo: dict[str, str], filer: dict[str, str], clock: FixedClock
) -> None:
    """Every move over HTTP, and what it changed: owner, clock, approvals, ground."""
    silo = federation.register("silo")
    new = _opened(federation, filer, "erasure", silo)
    assert (new["days_left"], new["approvals_needed"], new["approvals_given"]) == (30, 1, 0)
    assert (new["is_owned"], new["is_paused"], new["is_extended"], new["refusal"]) == (
        False,
        False,
        False,
        None,
    )
    assert new["subject"]["is_by_reference"] is False

    assert _moved(federation, dpo, new, "take")["is_owned"] is True
    assert _moved(federation, dpo, new, "identify")["is_paused"] is True
    federation.sequence()  # writes wait for a log that is behind
    clock.advance(timedelta(days=4))
    dpo = federation.staff("dpo")  # the first one's token is over
    known = _moved(federation, dpo, new, "review")
    longer = _moved(federation, dpo, new, "extend", reason="complex", notice="letter of today")
    rests = _moved(federation, dpo, new, "hold", reason="a lawsuit")
    _moved(federation, dpo, new, "resume")
    refused = _moved(federation, dpo, new, "refuse", reason="exempt", exemption="e", note="the lawsuit")

    assert (known["is_paused"], known["days_left"]) == (False, 30)
    assert (longer["is_extended"], longer["due_at"] > known["due_at"]) == (True, True)
    assert (rests["status"], refused["status"]) == ("on_hold", "refused")
    assert (refused["refusal"], refused["exemption"], refused["days_left"]) == ("exempt", "e", None)


def test_a_move_that_cannot_be_is_refused(
    federation: Federation, dpo: dict[str, str], filer: dict[str, str]
) -> None:
    """Each with its code, and the request stays as it was."""
    case = _opened(federation, filer, "access", federation.register("silo"))

    for transition, body, status, code in BAD_MOVES:
        answer = federation.http.post(f"{PATH}/{case['id']}/{transition}", json=body, headers=dpo)

        assert (answer.status_code, answer.json["code"]) == (status, code), (transition, body)
    assert federation.http.get(f"{PATH}/{case['id']}", headers=dpo).json == case


def test_two_officers_approve_an_erasure(services: Services) -> None:
    """FLG_ERASURE_APPROVALS=2: who opens it approves first; another person's word has it carried out."""
    careful = replace(services, config=replace(services.config, erasure_approvals=2))
    federation = Federation(careful, create_app(careful).test_client())
    one, other = federation.staff("dpo"), federation.staff("dpo")
    silo = federation.register("silo")

    opened = _opened(federation, one, "erasure", silo)
    again = federation.http.post(f"{PATH}/{opened['id']}/approve", headers=one)
    done = federation.http.post(f"{PATH}/{opened['id']}/approve", headers=other)

    assert (opened["status"], opened["approvals_given"], opened["approvals_needed"]) == ("in_review", 1, 2)
    assert (again.status_code, again.json["code"]) == (409, "APPROVAL_NEEDS_ANOTHER")
    assert done.json["status"] in ("completed", "running")
    assert done.json["approvals_given"] == 2


def test_a_letter_s_day_counts_and_a_future_one_does_not(
    federation: Federation, filer: dict[str, str], clock: FixedClock
) -> None:
    """`received_at` is when it reached the controller."""
    silo = federation.register("silo")
    wish = {"type": "access", "subject": {"client_id": silo.client_id}}
    came = clock() - timedelta(days=10)

    case = _opened(federation, filer, "access", silo, received_at=came.isoformat())
    late = federation.http.post(
        PATH, json={**wish, "received_at": (clock() + timedelta(hours=1)).isoformat()}, headers=filer
    )
    vague = federation.http.post(PATH, json={**wish, "received_at": "2026-10-01"}, headers=filer)

    assert datetime.fromisoformat(case["received_at"]) == came
    assert case["days_left"] == 20
    assert (late.status_code, late.json["code"]) == (422, "BAD_RECEIPT_DAY")
    assert vague.status_code == 422


def test_a_repetition_waits_for_somebody_to_look(
    federation: Federation, dpo: dict[str, str], filer: dict[str, str]
) -> None:
    """Even an officer's: the open one may wait for a proof of identity that this one must not go around."""
    silo = federation.register("silo")
    first = _opened(federation, filer, "access", silo)
    _moved(federation, dpo, first, "identify")

    second = _opened(federation, dpo, "access", silo)

    assert (second["status"], second["duplicate_of"]) == ("received", first["id"])


def test_a_silo_s_patient_gets_a_signed_statement(federation: Federation, dpo: dict[str, str]) -> None:
    """Art. 11: rounds and models of the silo, signed; the reference is in no answer, and nothing is erased."""
    federation.add_model()
    federation.open_round(planned_clients=1)
    silo = federation.register("silo")
    federation.submit(silo, file_of(tensors(0.5)))
    federation.work()
    wish = {"type": "erasure", "subject": {"reference": "canary-patient", "silo": silo.client_id}}

    opened = federation.http.post(PATH, json=wish, headers=dpo)
    statement = federation.http.get(f"{PATH}/{opened.json['id']}/statement", headers=dpo)
    receipt = federation.http.get(f"{PATH}/{opened.json['id']}/receipt", headers=dpo)

    keys = {row.kid: row.public for row in federation.services.keystore.public_keys()}
    told = verify_statement(statement.text, keys)
    assert (opened.status_code, opened.json["status"]) == (201, "completed")
    assert opened.json["subject"]["is_by_reference"] is True
    assert (opened.json["has_statement"], opened.json["has_receipt"]) == (True, False)
    assert [(part["round_number"], part["model_version"]) for part in told["rounds"]] == [(1, "1.1.0")]
    assert "canary-patient" not in opened.text + statement.text
    assert receipt.status_code == 404
    assert federation.http.get("/api/v1/rounds/1", headers=silo.headers).status_code == 200


def test_a_request_about_a_client_has_no_statement(federation: Federation, dpo: dict[str, str]) -> None:
    """404 with a code of its own."""
    case = _opened(federation, dpo, "access", federation.register("silo"))

    answer = federation.http.get(f"{PATH}/{case['id']}/statement", headers=dpo)

    assert (answer.status_code, answer.json["code"]) == (404, "NO_STATEMENT")


def test_what_changes_the_gateway_s_work_needs_the_officer_s_scope(
    federation: Federation, filer: dict[str, str]
) -> None:
    """`privacy:manage`: neither export nor erasure."""
    client_id = federation.register("silo").client_id

    for kind in ("restriction", "objection", "rectification"):
        wish = {"type": kind, "subject": {"client_id": client_id}}

        assert federation.http.post(PATH, json=wish, headers=filer).status_code == 403


def test_a_body_of_unknown_length_counts(
    federation: Federation, dpo: dict[str, str], filer: dict[str, str]
) -> None:
    """RFC 9112, section 6: a chunked body has no Content-Length; the version in it is not passed over."""
    case = _opened(federation, filer, "access", federation.register("silo"))

    answer = federation.http.post(
        f"{PATH}/{case['id']}/take",
        input_stream=BytesIO(b'{"version": 7}'),
        headers={**dpo, "Transfer-Encoding": "chunked", "Content-Type": "application/json"},
        environ_overrides={"wsgi.input_terminated": True},
    )

    assert (answer.status_code, answer.json["code"]) == (409, "CASE_CHANGED")


def test_alarms_ring_while_the_blobs_are_away(
    federation: Federation, filer: dict[str, str], config: Config, clock: FixedClock
) -> None:
    """Art. 12(3): a term does not wait for a disk; what else the worker tidies is tried again."""
    case = _opened(federation, filer, "access", federation.register("silo"))
    clock.advance(timedelta(days=27))
    folder = Path(config.blob_url.removeprefix("file:"))
    shutil.rmtree(folder)
    folder.write_text("no folder")

    with pytest.raises(OSError):  # noqa: PT011 - whichever the file system has
        federation.worker.tidy()

    desk = privacy_desk(federation.services)
    assert desk.show(case["id"]).alarms == ("days_left_10", "days_left_5", "no_owner")


def _opened(
    federation: Federation, headers: dict[str, str], kind: str, silo: Silo, **more: Any
) -> dict[str, Any]:
    wish = {"type": kind, "subject": {"client_id": silo.client_id}, **more}
    answer = federation.http.post(PATH, json=wish, headers=headers)
    assert answer.status_code == 201, answer.text
    opened: dict[str, Any] = answer.json
    return opened


def _moved(
    federation: Federation, headers: dict[str, str], case: dict[str, Any], transition: str, **body: Any
) -> dict[str, Any]:
    answer = federation.http.post(f"{PATH}/{case['id']}/{transition}", json=body, headers=headers)
    assert answer.status_code == 200, answer.text
    moved: dict[str, Any] = answer.json
    return moved


def _narrow(federation: Federation, scope: str) -> dict[str, str]:
    new = add_client(federation.services, "narrow", Role.DPO)
    answer = federation.http.post(
        "/oauth/token",
        data={"grant_type": "client_credentials", "scope": scope},
        auth=(new.client_id, new.client_secret),
    )
    return {"Authorization": f"Bearer {answer.json['access_token']}"}
