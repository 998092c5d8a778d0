"""The privacy desk's pages: requests are taken down, listed by their deadline, moved, refused and answered."""

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

from audit.draft import Personal
from compliance.requests.cases import Case, RequestType, Status
from compliance.requests.reasons import Exemption, Refusal
from gateway.auth.rules import RULES, Proof
from gateway.auth.scopes import Scope
from gateway.console.desk_names import EXEMPTIONS, REFUSALS, STATUSES, TYPES, moves_of, steps_of, urgency
from gateway.console.names import Tone
from gateway.privacy import privacy_desk
from gateway.services import Services

PATH = re.compile(r"/console/requests/[0-9a-f-]{36}$")


@pytest.fixture
def dana(app: Flask, staff: Callable[..., Member]) -> Browser:
    """An officer, signed in."""
    browser = Browser(app.test_client())
    browser.sign_in(staff("dpo", "Dana"))
    return browser


@pytest.fixture
def silo(federation: Federation) -> Silo:
    """Whom requests are about."""
    return federation.register("Hospital of Ulm")


def ask(browser: Browser, silo: Silo, kind: str = "access", **more: str) -> str:
    """Take a request down; its page's path."""
    fields = {"type": kind, "client": silo.client_id, **more}
    answer = browser.send("/console/requests/new", "/console/requests/new", **fields)
    assert answer.status_code == 303, answer.text
    found = answer.headers["Location"]
    assert PATH.search(found), found
    return str(found)


def move(browser: Browser, path: str, name: str, **fields: str) -> TestResponse:
    """Send one of the forms of a request's page, as the page has it."""
    page = browser.get(path)
    version = re.search(r'name="version" value="(\d+)"', page.text)
    shown = {"version": version[1]} if version else {}
    return browser.post(
        f"{path}/{name}", {**shown, **fields, "form_token": form_token(page, f"{path}/{name}")}
    )


def case_at(services: Services, path: str) -> Case:
    """The request of a page."""
    return privacy_desk(services).show(path.rpartition("/")[2])


def test_those_due_first_are_on_top_and_the_filter_chooses(
    dana: Browser, silo: Silo, clock: FixedClock, services: Services
) -> None:
    """Art. 12(3): an officer sees what is urgent first, and how many days are left."""
    late = ask(dana, silo, received="2026-10-20")
    soon = ask(dana, silo, "portability", received="2026-10-30")
    new = ask(dana, silo, "erasure")

    page = dana.get("/console/requests").text
    erasures = dana.get("/console/requests?type=erasure").text
    none = dana.get("/console/requests?status=completed").text
    move(dana, late, "withdraw")
    still_open, all_of_them = (
        dana.get("/console/requests").text,
        dana.get("/console/requests?status=all").text,
    )

    places = [page.index(path) for path in (late, soon, new)]
    assert places == sorted(places)
    assert "4 days late" in page
    assert "6 days left" in page
    assert new in erasures
    assert late not in erasures
    assert "No such request" in none
    assert late not in still_open
    assert late in all_of_them


def test_a_form_that_is_filled_wrongly_says_where_and_takes_nothing_down(
    dana: Browser, silo: Silo, services: Services
) -> None:
    """Promise 7, for people: the field is named, what was typed stays, nothing is stored."""
    good = {"type": "access", "client": silo.client_id}
    wrong = {
        "type": {**good, "type": "everything"},
        "client": {**good, "client": "nobody"},
        "received": {**good, "received": "2999-01-01"},
        "correction": {**good, "type": "rectification", "correction": "Ulm"},
    }

    for field, filled in wrong.items():
        answer = dana.send("/console/requests/new", "/console/requests/new", **filled)
        assert answer.status_code == 422, field
        assert 'role="alert"' in answer.text
        assert re.search(rf'(id="{field}"|<fieldset)[^>]*aria-invalid="true"', answer.text), field
    assert privacy_desk(services).cases() == []


def test_the_clock_stands_still_while_a_proof_of_identity_is_owed(
    dana: Browser, silo: Silo, services: Services, clock: FixedClock
) -> None:
    """The page says that the clock stands still, and the days come on top."""
    path = ask(dana, silo)

    move(dana, path, "identify")
    waiting = dana.get(path).text
    due = case_at(services, path).due_at
    clock.advance(timedelta(days=3))
    privacy_desk(services).review(path.rpartition("/")[2], by=Personal("system", "officer"))

    assert "clock stands still" in waiting
    assert case_at(services, path).due_at - due == timedelta(days=3)


def test_a_page_that_is_no_longer_current_moves_nothing(
    dana: Browser, silo: Silo, services: Services
) -> None:
    """Compare-and-set: whoever looked before somebody else moved the request is told so."""
    path = ask(dana, silo)
    assert move(dana, path, "review").status_code == 303

    stale = move(dana, path, "withdraw", version="1")

    assert stale.status_code == 409
    assert 'role="alert"' in stale.text
    assert case_at(services, path).status is Status.IN_REVIEW


def test_a_refusal_names_its_ground_and_an_exemption_its_letter(
    dana: Browser, silo: Silo, services: Services
) -> None:
    """Art. 12(4), 17(3): without a ground nothing is refused; the ground and the complaint are told."""
    path = ask(dana, silo, "erasure")

    groundless = move(dana, path, "refuse")
    letterless = move(dana, path, "refuse", ground="exempt")
    refused = move(dana, path, "refuse", ground="exempt", exemption="b", note="tax law")
    page = dana.get(path).text

    assert (groundless.status_code, refused.status_code) == (422, 303)
    assert letterless.status_code == 422
    case = case_at(services, path)
    assert (case.status, case.refusal, case.exemption) == (
        Status.REFUSED,
        Refusal.EXEMPT,
        Exemption.LEGAL_DUTY,
    )
    assert "supervisory authority" in page
    assert "tax law" not in page


def test_a_deadline_is_extended_once_with_a_reason_and_a_notice(
    dana: Browser, silo: Silo, services: Services
) -> None:
    """Art. 12(3): three months from receipt, and the person was told; after that it is offered no more."""
    path = ask(dana, silo)

    without = move(dana, path, "extend", reason="many rounds")
    extended = move(dana, path, "extend", reason="many rounds", notice="letter of today")
    page = dana.get(path).text

    assert (without.status_code, extended.status_code) == (422, 303)
    assert case_at(services, path).due_at.date().isoformat() == "2027-02-24"
    assert "Extend the deadline" not in page


def test_an_access_is_answered_by_a_package_and_a_link_that_is_shown_once(
    dana: Browser, silo: Silo, services: Services
) -> None:
    """Art. 15: downloaded by the officer, or by the person with a link that the page shows this once."""
    path = ask(dana, silo)
    move(dana, path, "review")
    move(dana, path, "approve")

    package = dana.get(f"{path}/package")
    linked = move(dana, path, "link").text
    again = dana.get(path).text

    assert (package.status_code, package.mimetype) == (200, "application/zip")
    (link,) = re.findall(r'<code id="link">([^<]+)</code>', linked)
    assert "/packages/" in link
    assert link not in again


def test_a_person_whom_only_the_silo_knows_gets_a_statement(
    dana: Browser, silo: Silo, services: Services
) -> None:
    """Art. 11: filed under the silo's reference, which no page shows."""
    path = ask(dana, silo, "erasure", reference="patient 4711")
    move(dana, path, "review")
    move(dana, path, "approve")

    page = dana.get(path).text
    statement = dana.get(f"{path}/statement")

    assert "4711" not in page
    assert statement.status_code == 200
    assert statement.text.count(".") == 2


def test_what_a_request_keeps_sealed_is_shown_once_and_the_log_knows(
    dana: Browser, silo: Silo, federation: Federation
) -> None:
    """Sealed until somebody who decides wants to see it; the entry names the request and the fields."""
    path = ask(dana, silo, reference="patient 4711")
    move(dana, path, "extend", reason="many rounds", notice="letter of today")
    before = dana.get(path).text

    shown = move(dana, path, "reveal").text
    after = dana.get(path).text
    federation.sequence()

    told = re.findall(r"<bdi>([^<]+)</bdi>", shown.partition('data-sealed="reference"')[2])
    assert set(told[:3]) == {"patient 4711", "letter of today", "many rounds"}
    for page in (before, after):
        assert "4711" not in page
        assert "Show what is sealed" in page
    auditor = federation.staff("auditor")
    found = federation.http.get("/api/v1/audit/entries?limit=1000", headers=auditor).json["data"]
    (entry,) = [one for one in found if one["event_type"] == "privacy.revealed"]
    assert entry["details"] == {
        "case_id": path.rpartition("/")[2],
        "fields": ["reference", "extension_reason"],
    }


def test_a_restriction_is_in_force_until_it_is_lifted_with_a_notice(
    dana: Browser, silo: Silo, services: Services
) -> None:
    """Art. 18(3): the person is told before."""
    path = ask(dana, silo, "restriction")
    move(dana, path, "review")
    move(dana, path, "approve")
    standing = dana.get(path).text

    unsaid, lifted = move(dana, path, "lift"), move(dana, path, "lift", notice="letter of today")

    assert "In force" in standing
    assert (unsaid.status_code, lifted.status_code) == (422, 303)
    assert "carried out, and lifted" in dana.get(path).text


def test_a_rectification_says_what_is_right_line_by_line(
    dana: Browser, silo: Silo, services: Services, federation: Federation
) -> None:
    """Art. 16: a name, and parts of the device by their names."""
    lines = "name: Hospital of Neu-Ulm\ndevice.platform: linux"
    path = ask(dana, silo, "rectification", correction=lines)
    move(dana, path, "review")
    move(dana, path, "approve")

    client = federation.http.get(f"/api/v1/clients/{silo.client_id}", headers=federation.operator).json

    assert case_at(services, path).status is Status.COMPLETED
    assert client["name"] == "Hospital of Neu-Ulm"


def test_one_like_an_earlier_one_is_linked_to_it(dana: Browser, silo: Silo) -> None:
    """Duplicates are linked, never dropped."""
    first = ask(dana, silo)
    second = ask(dana, silo)

    assert f'href="{first}"' in dana.get(second).text


def test_who_takes_a_request_in_hand_sees_that_it_is_theirs(
    dana: Browser, silo: Silo, app: Flask, staff: Callable[..., Member]
) -> None:
    """An owner is shown as you, or as somebody else: no page tells whose name it is."""
    path = ask(dana, silo)
    otto = Browser(app.test_client())
    otto.sign_in(staff("dpo", "Otto"))

    move(dana, path, "take")

    assert "You" in dana.get(path).text
    assert "Somebody else" in otto.get(path).text
    assert "Dana" not in otto.get(path).text


def test_the_desk_is_for_those_whose_scopes_open_it(
    app: Flask, staff: Callable[..., Member], silo: Silo
) -> None:
    """Each role sees what its scopes allow; every page of the desk has a rule that asks for a privacy scope."""
    ada = Browser(app.test_client())
    ada.sign_in(staff("auditor", "Ada"))

    assert ada.get("/console/requests").status_code == 403
    assert ada.get("/console/holds").status_code == 403
    privacy = {scope for scope in Scope if scope.value.startswith("privacy:")}
    for endpoint, rule in RULES.items():
        if endpoint.startswith(("console_requests.", "console_holds.")):
            assert rule.proof is Proof.PERSON, endpoint
            assert rule.scopes, endpoint
            assert set(rule.scopes) <= privacy, endpoint


def test_a_form_that_no_page_of_ours_sent_moves_nothing(
    dana: Browser, silo: Silo, services: Services
) -> None:
    """A forged form is refused before the desk hears of it."""
    path = ask(dana, silo)

    forged = dana.post(f"{path}/withdraw", {"form_token": form_token(dana.get("/console/requests/new"))})

    assert forged.status_code == 403
    assert case_at(services, path).status is Status.RECEIVED


def test_everything_has_its_words() -> None:
    """No type, state or ground comes to a page without a name."""
    assert set(TYPES) == set(RequestType)
    assert set(STATUSES) == set(Status)
    assert set(REFUSALS) == set(Refusal)
    assert set(EXEMPTIONS) == set(Exemption)


def test_every_state_has_a_way_and_moves_that_the_desk_takes(
    dana: Browser, silo: Silo, services: Services
) -> None:
    """The page offers what is possible, and shows where the request is."""
    path = ask(dana, silo)
    case = case_at(services, path)

    assert moves_of(case) == {"take", "extend", "identify", "review", "approve", "refuse", "withdraw", "hold"}
    assert [step.is_now for step in steps_of(case)] == [False, True, False, False, False]
    assert [urgency(days) for days in (None, 11, 10, 5, 0, -1)] == [
        Tone.CALM,
        Tone.CALM,
        Tone.WARN,
        Tone.BAD,
        Tone.BAD,
        Tone.BAD,
    ]
