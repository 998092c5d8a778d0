"""What officers type and read at the desk: local days, forms that say what is wrong, pages that are out of date."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, datetime

import pytest
from federation import Federation, Silo
from flask import Flask
from services.clock import FixedClock
from staff import Browser, Member, form_token
from werkzeug.test import TestResponse

from compliance.requests.cases import Status
from gateway.config import Config
from gateway.privacy import privacy_desk
from gateway.services import Services

NEW_REQUEST, NEW_HOLD = "/console/requests/new", "/console/holds/new"


@pytest.fixture
def config(config: Config) -> Config:
    """A controller far in the west, where a day ends when UTC has begun the next one."""
    return replace(config, timezone="America/New_York")


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


def ask(browser: Browser, silo: Silo, **more: str) -> TestResponse:
    """Take an access request down."""
    return browser.send(NEW_REQUEST, NEW_REQUEST, type="access", client=silo.client_id, **more)


def hold(browser: Browser, silo: Silo, review: str) -> TestResponse:
    """Place a hold that is to be reviewed on a day."""
    fields = {"client": silo.client_id, "matter": "7 O 12/26", "basis": "e", "scope": "*"}
    return browser.send(NEW_HOLD, NEW_HOLD, **fields, review=review)


def is_marked(page: TestResponse, field: str) -> bool:
    """Whether the page says of this field that it is the wrong one."""
    return re.search(rf'id="{field}"[^>]*aria-invalid="true"', page.text) is not None


def test_a_day_is_that_of_the_controllers_zone(dana: Browser, silo: Silo, clock: FixedClock) -> None:
    """Art. 12(3): an answer due on the 20th is never shown as due on the 21st; nor is a review."""
    clock.now = datetime(2026, 11, 21, 2, 0, tzinfo=UTC)  # the evening of the 20th in New York
    request, placed = ask(dana, silo), hold(dana, silo, "2027-01-31")

    pages = [dana.get(path).text for path in ("/console/", "/console/requests", request.headers["Location"])]
    form = dana.get(NEW_HOLD).text

    for page in pages:
        assert "20 Dec 2026" in page
        assert "21 Dec 2026" not in page
    assert "31 Jan 2027" in dana.get(placed.headers["Location"]).text
    assert 'value="2027-05-19"' in form


def test_the_first_page_counts_all_and_shows_the_most_pressing(
    dana: Browser, silo: Silo, clock: FixedClock
) -> None:
    """However many wait, a page reads five of them; what is late is said to be late, a clock that stands to stand."""
    for day in range(10, 17):
        ask(dana, silo, received=f"2026-10-{day}")
    oldest = (
        dana.get("/console/requests").text.partition("<tbody>")[2].partition('href="')[2].partition('"')[0]
    )
    dana.send(oldest, f"{oldest}/identify", version="1")

    page = dana.get("/console/").text

    assert '<p class="value">7</p>' in page
    assert page.count('<th scope="row"><a href="/console/requests/') == 5
    assert "clock stands still" in page
    assert "days late" in page
    assert not re.search(r"-\d+ days", page)


@pytest.mark.parametrize(
    ("field", "value"), [("received", "2018-01-01"), ("reference", "p" * 201), ("reference", "a\x00b")]
)
def test_what_the_desk_refuses_is_marked_in_the_form(
    dana: Browser, silo: Silo, services: Services, field: str, value: str
) -> None:
    """A day before the GDPR, a reference that nobody could read out: the field is named, nothing is taken down."""
    answer = ask(dana, silo, **{field: value})

    assert answer.status_code == 422
    assert is_marked(answer, field)
    assert privacy_desk(services).cases() == []


def test_a_review_in_the_past_is_marked(dana: Browser, silo: Silo) -> None:
    """Where a hold is placed, and where it is kept."""
    path = hold(dana, silo, "2027-01-31").headers["Location"]

    new, kept = hold(dana, silo, "2026-01-01"), dana.send(path, f"{path}/review", review="2026-01-01")

    assert [page.status_code for page in (new, kept)] == [422, 422]
    assert is_marked(new, "review")
    assert is_marked(kept, "review")


def test_an_address_fills_in_whom_a_hold_is_about_and_no_more(dana: Browser) -> None:
    """A link that somebody sends writes neither the matter nor the ground of a hold."""
    page = dana.get(f"{NEW_HOLD}?client=abc&matter=planted&basis=e&review=2031-01-01").text

    assert 'value="abc"' in page
    for planted in ("planted", "2031-01-01", 'value="e" selected'):
        assert planted not in page


@pytest.mark.parametrize(
    ("move", "fields", "wrong"),
    [
        ("hold", {"reason": "r" * 2001}, "hold-reason"),
        ("extend", {"reason": "many rounds", "notice": ""}, "notice"),
        ("refuse", {"ground": "", "note": "tax law"}, "ground"),
    ],
)
def test_a_move_that_is_filled_wrongly_is_open_and_marked(
    dana: Browser, silo: Silo, move: str, fields: dict[str, str], wrong: str
) -> None:
    """Its own form is unfolded, with what was typed; no other form is."""
    path = ask(dana, silo).headers["Location"]

    page = dana.send(path, f"{path}/{move}", version="1", **fields)

    assert page.status_code == 422
    assert is_marked(page, wrong)
    assert page.text.count("<details open>") == 1
    unfolded = page.text.partition("<details open>")[2].partition("</details>")[0]
    assert f'action="{path}/{move}"' in unfolded
    for typed in fields.values():
        assert typed in unfolded


@pytest.mark.parametrize("version", ["", "x", "7"])
def test_a_form_that_does_not_say_what_was_seen_moves_nothing(
    dana: Browser, silo: Silo, services: Services, version: str
) -> None:
    """Each move is a compare-and-set on the version that the officer had before their eyes."""
    path = ask(dana, silo).headers["Location"]
    token = form_token(dana.get(path), f"{path}/withdraw")

    answer = dana.post(f"{path}/withdraw", {"form_token": token, "version": version})

    assert answer.status_code == 409
    assert privacy_desk(services).show(path.rpartition("/")[2]).status is Status.RECEIVED
