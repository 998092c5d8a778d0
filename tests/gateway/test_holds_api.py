"""Legal holds over HTTP: placed, shown, reviewed, and ended by two different people."""

from __future__ import annotations

from collections.abc import Callable
from datetime import timedelta
from typing import Any
from uuid import uuid4

import pytest
from federation import Federation, Silo
from flask.testing import FlaskClient

from gateway.services import Services

HOLDS = "/api/v1/privacy/holds"
Headers = dict[str, str]
Place = Callable[..., Any]


@pytest.fixture
def federation(services: Services, http: FlaskClient) -> Federation:
    """A federation without rounds."""
    return Federation(services, http)


@pytest.fixture
def silo(federation: Federation) -> Silo:
    """A client whose data is to be kept."""
    return federation.register("a silo")


@pytest.fixture
def officers(federation: Federation) -> tuple[Headers, Headers]:
    """The credentials of two data-protection officers."""
    return federation.staff("dpo"), federation.staff("dpo")


@pytest.fixture
def place(federation: Federation, silo: Silo, officers: tuple[Headers, Headers]) -> Place:
    """Places a hold of the silo's data; named members replace those of the body."""

    def send(**change: Any) -> Any:
        ahead = (federation.services.clock() + timedelta(days=90)).isoformat()
        wish = {
            "subject": {"client_id": silo.client_id},
            "matter": "canary-matter",
            "basis": "e",
            "review_at": ahead,
        }
        return federation.http.post(HOLDS, json=wish | change, headers=officers[0])

    return send


def test_a_hold_is_placed_and_shown(
    place: Place, http: FlaskClient, officers: tuple[Headers, Headers]
) -> None:
    """Issue: matter, scope, basis and review date; the matter is shown with one hold, not in lists."""
    placed = place(scope=["client_updates"])
    shown = http.get(placed.headers["Location"], headers=officers[1]).json
    listed = http.get(HOLDS, headers=officers[0]).json

    assert placed.status_code == 201
    assert placed.json | {"matter": "canary-matter"} == shown
    assert (shown["scope"], shown["basis"], shown["is_active"]) == (["client_updates"], "e", True)
    assert shown["review_at"] == "2027-02-22T12:00:00Z"
    assert listed["data"] == [placed.json]
    assert listed["pagination"]["total_items"] == 1


def test_a_hold_ends_by_two_people(
    place: Place, http: FlaskClient, officers: tuple[Headers, Headers]
) -> None:
    """Issue: the first DELETE asks (202), also when repeated; another person's lifts (200)."""
    path = place().headers["Location"]

    answers = [http.delete(path, headers=officers[which]) for which in (0, 0, 1, 1)]

    assert [answer.status_code for answer in answers] == [202, 202, 200, 200]
    assert [answer.json["is_active"] for answer in answers] == [True, True, False, False]
    assert http.get(f"{HOLDS}?state=active", headers=officers[0]).json["data"] == []
    assert len(http.get(f"{HOLDS}?state=lifted", headers=officers[0]).json["data"]) == 1


def test_an_erasure_waits_for_the_hold(
    federation: Federation, silo: Silo, place: Place, officers: tuple[Headers, Headers]
) -> None:
    """Art. 17(3): what is held stays, and the request rests until the hold is lifted."""
    path = place().headers["Location"]

    wish = {"type": "erasure", "subject": {"client_id": silo.client_id}}
    case = federation.http.post("/api/v1/privacy/requests", json=wish, headers=officers[0])

    assert (case.status_code, case.json["status"]) == (201, "on_hold")
    assert (
        federation.http.get(f"/api/v1/clients/{silo.client_id}", headers=federation.operator).status_code
        == 200
    )
    for officer in officers:
        federation.http.delete(path, headers=officer)
    assert federation.http.get(path, headers=officers[0]).json["is_active"] is False


def test_a_review_moves_its_day(place: Place, http: FlaskClient, officers: tuple[Headers, Headers]) -> None:
    """Issue: a review date; a review answers who asked to end it, and a stale one is refused."""
    path = place().headers["Location"]
    http.delete(path, headers=officers[0])
    wish = {"review_at": "2027-06-01T00:00:00Z", "version": 2}

    reviewed = http.post(f"{path}/review", json=wish, headers=officers[1])
    stale = http.post(f"{path}/review", json=wish, headers=officers[1])

    assert reviewed.status_code == 200
    assert (reviewed.json["review_at"], reviewed.json["release_asked_at"]) == ("2027-06-01T00:00:00Z", None)
    assert (stale.status_code, stale.json["code"]) == (409, "HOLD_CHANGED")


@pytest.mark.parametrize(
    ("change", "code"),
    [
        ({"matter": "  "}, "BAD_HOLD"),
        ({"scope": ["attic"]}, "BAD_HOLD"),
        ({"scope": []}, "BAD_HOLD"),
        ({"review_at": "2020-01-01T00:00:00Z"}, "BAD_HOLD"),
        ({"review_at": "2027-01-01T00:00:00"}, "VALIDATION_FAILED"),
        ({"basis": "f"}, "VALIDATION_FAILED"),
        ({"subject": {}}, "VALIDATION_FAILED"),
        ({"subject": {"client_id": str(uuid4()), "subject_id": str(uuid4())}}, "VALIDATION_FAILED"),
        ({"surprise": 1}, "VALIDATION_FAILED"),
    ],
)
def test_a_hold_that_nobody_could_check_is_refused(place: Place, change: dict[str, Any], code: str) -> None:
    """Promise 7: 422, and what is wrong."""
    refused = place(**change)

    assert (refused.status_code, refused.json["code"]) == (422, code)


def test_unknown_people_and_holds_are_404(
    place: Place, http: FlaskClient, officers: tuple[Headers, Headers]
) -> None:
    """Promise 7: nothing tells more than that there is none."""
    for subject in ({"client_id": str(uuid4())}, {"subject_id": str(uuid4())}):
        assert place(subject=subject).status_code == 404
    for send in (http.get, http.delete):
        assert send(f"{HOLDS}/{uuid4()}", headers=officers[0]).status_code == 404
    for query in ("state=old", "subject_id=me"):
        assert http.get(f"{HOLDS}?{query}", headers=officers[0]).status_code == 422


def test_a_lifted_hold_is_not_reviewed(
    place: Place, http: FlaskClient, officers: tuple[Headers, Headers]
) -> None:
    """It is history: 409."""
    path = place().headers["Location"]
    for officer in officers:
        http.delete(path, headers=officer)

    refused = http.post(f"{path}/review", json={"review_at": "2027-06-01T00:00:00Z"}, headers=officers[0])

    assert (refused.status_code, refused.json["code"]) == (409, "HOLD_ENDED")


def test_holds_need_their_scope(place: Place, http: FlaskClient, federation: Federation) -> None:
    """DESIGN: `privacy:hold` alone opens them."""
    path, operator = place().headers["Location"], federation.operator

    answers = [
        http.get(HOLDS, headers=operator),
        http.get(path, headers=operator),
        http.delete(path, headers=operator),
        http.post(HOLDS, json={}, headers=operator),
        http.post(f"{path}/review", json={}, headers=operator),
    ]

    assert {answer.status_code for answer in answers} == {403}
