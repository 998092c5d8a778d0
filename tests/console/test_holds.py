"""Legal holds for people: placed with all they need, reviewed in time, ended by two persons and never by one."""

from __future__ import annotations

import re
from collections.abc import Callable
from datetime import timedelta

import pytest
from federation import Federation, Silo
from flask import Flask
from services.clock import FixedClock
from staff import Browser, Member, form_token
from werkzeug.test import TestResponse

from compliance.keeping.hold import Hold
from compliance.requests.reasons import Exemption
from gateway.privacy import privacy_desk
from gateway.services import Services

NEW = "/console/holds/new"


@pytest.fixture
def officer(app: Flask, staff: Callable[..., Member]) -> Callable[[str], Browser]:
    """An officer of a name, signed in."""

    def make(name: str) -> Browser:
        browser = Browser(app.test_client())
        browser.sign_in(staff("dpo", name))
        return browser

    return make


@pytest.fixture
def silo(federation: Federation) -> Silo:
    """Whose data must stay."""
    return federation.register("Hospital of Ulm")


def place(browser: Browser, silo: Silo, **more: str) -> TestResponse:
    """Fill the form, rightly unless told otherwise."""
    fields = {
        "client": silo.client_id,
        "matter": "7 O 12/26",
        "basis": "e",
        "scope": "*",
        "review": "2027-01-31",
        **more,
    }
    return browser.send(NEW, NEW, **fields)


def send(browser: Browser, path: str, move: str, **fields: str) -> TestResponse:
    """Send one of the forms of a hold's page; a forged one where the page has none."""
    token = form_token(browser.get(path), f"{path}/{move}")
    return browser.post(f"{path}/{move}", {**fields, "form_token": token})


def hold_at(services: Services, path: str) -> Hold:
    """The hold of a page."""
    return privacy_desk(services).holds.show(path.rpartition("/")[2])


def test_a_hold_names_its_matter_ground_scope_and_review(
    officer: Callable[[str], Browser], silo: Silo, services: Services
) -> None:
    """Placed by a form; its page shows the matter to those who may hold, and the list does not."""
    dana = officer("Dana")

    placed = place(dana, silo, scope="clients")
    path = placed.headers["Location"]

    assert placed.status_code == 303
    hold = hold_at(services, path)
    assert (hold.basis, hold.scope) == (Exemption.LEGAL_CLAIMS, ("clients",))
    assert hold.review_at.date().isoformat() == "2027-01-31"
    assert "7 O 12/26" in dana.get(path).text
    assert "7 O 12/26" not in dana.get("/console/holds").text
    assert path in dana.get("/console/holds").text


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("client", "nobody"),
        ("matter", " "),
        ("basis", "z"),
        ("scope", "nowhere"),
        ("review", "soon"),
        ("review", "9999-12-31"),
    ],
)
def test_a_form_that_is_filled_wrongly_says_where(
    officer: Callable[[str], Browser], silo: Silo, services: Services, field: str, value: str
) -> None:
    """Promise 7, for people: the field is named, what was typed stays, nothing is stored."""
    answer = place(officer("Dana"), silo, **{field: value})

    assert answer.status_code == 422
    assert re.search(rf'(id="{field}"|<fieldset)[^>]*aria-invalid="true"', answer.text)
    assert privacy_desk(services).holds.total() == 0


def test_a_review_that_lies_behind_us_is_refused(officer: Callable[[str], Browser], silo: Silo) -> None:
    """Somebody must look at its grounds again."""
    answer = place(officer("Dana"), silo, review="2026-01-01")

    assert answer.status_code == 422
    assert "must lie ahead" in answer.text


def test_it_takes_two_to_end_a_hold(
    officer: Callable[[str], Browser], silo: Silo, services: Services
) -> None:
    """Who asked for its end is not offered to agree; another person lifts it."""
    dana, otto = officer("Dana"), officer("Otto")
    path = place(dana, silo).headers["Location"]

    send(dana, path, "ask")
    waiting = dana.get(path).text
    still = hold_at(services, path).is_active
    agreed = send(otto, path, "release")

    assert "Agree: lift the hold" not in waiting
    assert "Another person has to agree" in waiting
    assert still
    assert agreed.status_code == 303
    assert not hold_at(services, path).is_active
    assert path in otto.get("/console/holds?state=lifted").text
    assert "No hold is in force" in otto.get("/console/holds").text


def test_a_review_keeps_a_hold_and_answers_who_wished_to_end_it(
    officer: Callable[[str], Browser], silo: Silo, services: Services, clock: FixedClock
) -> None:
    """Its grounds still stand until a later day; the wish to end it is answered by that."""
    dana, otto = officer("Dana"), officer("Otto")
    path = place(dana, silo).headers["Location"]
    send(dana, path, "ask")

    kept = send(otto, path, "review", review="2027-06-30")

    assert kept.status_code == 303
    hold = hold_at(services, path)
    assert (hold.review_at.date().isoformat(), hold.release_asked_at) == ("2027-06-30", None)
    assert hold.review_at - clock() > timedelta(days=200)


def test_a_hold_is_placed_from_the_page_of_a_request(
    officer: Callable[[str], Browser], silo: Silo, services: Services
) -> None:
    """For the same person, whose id nobody has to type; both pages lead to each other."""
    dana = officer("Dana")
    asked = dana.send(
        "/console/requests/new", "/console/requests/new", type="erasure", client=silo.client_id
    ).headers["Location"]
    case_id = asked.rpartition("/")[2]

    page = f"{NEW}?request={case_id}"
    placed = dana.send(
        page, NEW, request=case_id, matter="7 O 12/26", basis="e", scope="*", review="2027-01-31"
    )

    assert page in dana.get(asked).text.replace("&amp;", "&")
    assert placed.status_code == 303
    assert placed.headers["Location"] in dana.get(asked).text
    assert hold_at(services, placed.headers["Location"]).subject_id == (
        privacy_desk(services).show(case_id).subject_id
    )
