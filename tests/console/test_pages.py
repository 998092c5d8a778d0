"""The console's own pages in Chromium: what they show of a federation at work, live, and usable by everybody."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from datetime import timedelta
from pathlib import Path

import pytest
from console.looking import Visitor, look
from federation import Federation, file_of, tensors
from playwright.sync_api import Page, expect
from services.clock import FixedClock
from sqlalchemy import delete, select, update

from audit.draft import Personal
from audit.tables import audit_pending
from gateway.auth.roster import client_record
from gateway.config import Config
from gateway.privacy import privacy_desk
from gateway.rounds.closing import close_round
from gateway.services import Services
from gateway.tables import model_versions, sessions

ROUND_MS = 3000  # how often the page of a round looks again
PATIENCE_MS = 10_000  # of a busy machine
GAUSSIAN = {
    "mechanism": "gaussian",
    "unit": "client",
    "clip_norm": 1.0,
    "noise_multiplier": 6.0,
    "delta": 1e-5,
}


@pytest.fixture
def config(config: Config, tmp_path: Path) -> Config:
    """A gateway with a SIEM sink that writes into a file."""
    return replace(config, siem_sinks=f"file:{tmp_path / 'siem.jsonl'}")


@pytest.fixture
def busy(federation: Federation, services: Services, clock: FixedClock) -> Federation:
    """A federation that has completed three rounds under a budget, and has a fourth one open with one update."""
    made = federation.add_model(name="Retina scans", privacy_budget={"epsilon": 3, "delta": 1e-5})
    assert made.status_code == 201, made.text
    silos = [federation.register(f"Hospital {name}") for name in ("Aachen", "Bern", "Cluj")]
    for number in (1, 2, 3):
        opened = federation.open_round(privacy=GAUSSIAN, min_clients=2)
        assert opened.status_code == 201, opened.text
        for silo in silos[:2]:
            federation.submit(silo, file_of(tensors(0.1)), number=number)
        federation.work()
        clock.advance(timedelta(minutes=4))
    federation.open_round(privacy=GAUSSIAN, planned_clients=3, min_clients=2)
    federation.submit(silos[2], file_of(tensors(0.1)), number=4)
    for version, accuracy in (("1.1.0", 0.71), ("1.2.0", 0.79), ("1.3.0", 0.84)):
        evaluated = update(model_versions).where(model_versions.c.version == version)
        with services.engine.begin() as conn:
            conn.execute(evaluated.values(accuracy=accuracy, loss=1.3 - accuracy))
    federation.sequence()
    return federation


def opened_with_a_clock(visitor: Visitor) -> Page:
    """The page of the open round, whose time passes when the test says so."""
    visitor.page.clock.install()
    return visitor.open("/console/rounds/4")


def test_an_operator_sees_the_federation_at_work(busy: Federation, visitor: Callable[..., Visitor]) -> None:
    """Rounds with their state, clients, budget and accuracy, health: axe-clean in both themes and on a phone."""
    page = visitor("operator", "Olga").page
    look(page, "home-operator")
    for name in ("Rounds", "Clients", "Budget and accuracy", "Health"):
        page.get_by_role("navigation", name="Console").get_by_role("link", name=name, exact=True).click()
        page.get_by_role("heading", level=1, name=name).wait_for()
        look(page, name.lower().replace(" ", "-"))

    page.goto(page.url.replace("/health", "/rounds/4"))
    look(page, "round")
    assert page.get_by_text("1 of 3 planned updates").is_visible()


def test_a_page_shows_what_happens_by_itself(busy: Federation, visitor: Callable[..., Visitor]) -> None:
    """Rounds with live state: an update that arrives is on the page without a click, and focus stays where it is."""
    page = opened_with_a_clock(visitor("operator"))
    pause = page.get_by_role("button", name="Pause")
    pause.focus()
    assert page.get_by_text("1 of 3 planned updates").is_visible()

    busy.submit(busy.register("Hospital Delft"), file_of(tensors(0.1)), number=4)
    page.clock.run_for(ROUND_MS)

    page.get_by_text("2 of 3 planned updates").wait_for()
    page.get_by_role("status").get_by_text("Live").wait_for()
    assert pause.evaluate("button => button === document.activeElement")


def test_a_page_says_when_it_is_not_fresh_any_more(busy: Federation, visitor: Callable[..., Visitor]) -> None:
    """Nobody takes an old state for the present one: the page says that the gateway does not answer."""
    olga = visitor("operator")
    page = opened_with_a_clock(olga)
    told = page.get_by_role("status")
    page.route("**/console/rounds/4", lambda route: route.abort())
    page.clock.run_for(ROUND_MS)

    expect(told.get_by_text("The gateway does not answer")).to_be_visible(timeout=PATIENCE_MS)

    page.unroute("**/console/rounds/4")
    page.clock.run_for(2 * ROUND_MS)  # it asks less often the longer nobody answers

    expect(told.get_by_text("Live")).to_be_visible(timeout=PATIENCE_MS)
    olga.complaints.clear()  # the browser says itself that a connection failed


def test_a_session_that_ended_leads_to_the_sign_in_page(
    busy: Federation, visitor: Callable[..., Visitor], services: Services
) -> None:
    """A page that was left open does not go on showing what a stranger may not see."""
    page = opened_with_a_clock(visitor("operator"))

    with services.engine.begin() as conn:
        conn.execute(delete(sessions))
    page.clock.run_for(ROUND_MS)

    page.wait_for_url("**/console/sign-in?next=*")
    assert page.url.endswith("next=%2Fconsole%2Frounds%2F4")


def test_a_page_of_what_is_over_is_loaded_again(
    busy: Federation, visitor: Callable[..., Visitor], services: Services
) -> None:
    """A round that ended elsewhere offers no button any more, and a request that was carried out says so."""
    page = opened_with_a_clock(visitor("operator"))
    close_round(services, 4)
    busy.work()
    page.clock.run_for(ROUND_MS)
    expect(page.get_by_role("button", name="End it now")).to_have_count(0)
    expect(page.get_by_role("button", name="Pause")).to_have_count(0)

    desk = privacy_desk(services)
    subject = client_record(services, busy.register("Klinik Essen").client_id).subject_id
    case = desk.open("access", subject, requested_by=Personal("system", "the post"))
    desk.approve(case.id, by=Personal("system", "an officer"))
    dana = visitor("dpo", "Dana")
    dana.page.clock.install()
    dana.open(f"/console/requests/{case.id}")
    expect(dana.page.locator("h1 .badge")).to_have_text("Approved")
    desk.run(case.id, patience_s=5.0)
    dana.page.clock.run_for(ROUND_MS)
    expect(dana.page.locator("h1 .badge")).to_have_text("Completed")


def test_an_operator_halts_a_round_and_a_client(
    busy: Federation, visitor: Callable[..., Visitor], services: Services
) -> None:
    """What the buttons do is done, by the person, with an entry; a second look finds the other button."""
    olga = visitor("operator", "Olga")
    page = olga.open("/console/rounds/4")
    page.get_by_role("button", name="Pause").click()
    page.get_by_role("button", name="Resume").wait_for()
    assert busy.round(4)["paused"]
    page.get_by_role("button", name="Resume").click()
    page.get_by_role("button", name="Pause").wait_for()

    page.get_by_role("link", name="Clients", exact=True).click()
    page.get_by_role("link", name="Hospital Aachen").click()
    look(page, "client")
    page.get_by_role("button", name="Suspend").click()
    page.get_by_role("heading", level=1).get_by_text("Suspended").wait_for()
    page.get_by_text("Revoke it for good").click()
    page.get_by_role("button", name="Revoke for good").click()
    page.get_by_role("heading", level=1).get_by_text("Revoked").wait_for()

    assert page.get_by_role("button", name="Resume").count() == 0
    with services.engine.connect() as conn:
        bodies = list(conn.execute(select(audit_pending.c.body)).scalars())
    for event in ("round.paused", "round.resumed", "client.suspended", "client.revoked"):
        assert any(event in body for body in bodies), event


def test_the_keyboard_reaches_everything(busy: Federation, visitor: Callable[..., Visitor]) -> None:
    """The first stop skips the ways; each stop can be seen; the ways come in order."""
    page = visitor("operator").open("/console/rounds")
    page.keyboard.press("Tab")
    skip = page.get_by_role("link", name="Skip to the content")
    assert skip.evaluate("link => link === document.activeElement && link.getBoundingClientRect().left >= 0")
    stops = []
    for _ in range(6):
        page.keyboard.press("Tab")
        stops.append(page.evaluate("document.activeElement.textContent.trim()"))
        assert page.evaluate("getComputedStyle(document.activeElement).outlineStyle") != "none", stops

    skip.press("Enter")
    page.keyboard.press("Tab")

    assert stops == ["fl-gateway", "Overview", "Rounds", "Clients", "Budget and accuracy", "Health"]
    assert page.evaluate("document.activeElement.closest('main') !== null")


@pytest.mark.parametrize("role", ["dpo", "auditor"])
def test_others_see_their_own_part(
    busy: Federation, visitor: Callable[..., Visitor], services: Services, role: str
) -> None:
    """The first pages of an officer and an auditor are clean, and have no way to rounds or clients."""
    subject = client_record(services, busy.register("Klinik Essen").client_id).subject_id
    privacy_desk(services).open("access", subject, requested_by=Personal("system", "the post"))
    page = visitor(role, "Dana", locale="de-DE").page
    page.get_by_role("heading", level=1, name="Übersicht").wait_for()
    assert page.get_by_role("link", name="Auskunft", exact=True).count() == (1 if role == "dpo" else 0)
    look(page, f"home-{role}-german")

    ways = page.get_by_role("navigation").first.get_by_role("link").all_inner_texts()
    assert "Runden" not in ways
    assert "Budget und Genauigkeit" in ways


def test_strangers_find_the_way_in(new_visitor: Callable[..., Visitor]) -> None:
    """The sign-in page, with and without a refusal, and a page that is not there."""
    guest = new_visitor()
    look(guest.open("/console/sign-in"), "sign-in")

    guest.page.get_by_label("Name").fill("nobody")
    guest.page.get_by_label("Password").fill("nothing")
    guest.page.get_by_role("button", name="Sign in").click()

    refused = guest.page.get_by_role("alert")
    expect(refused).to_contain_text("The name, the password or the code is wrong", timeout=PATIENCE_MS)
    expect(guest.page.get_by_role("button", name="Sign in")).to_be_visible()
    look(guest.page, "sign-in-refused")

    nowhere = guest.open("/console/nowhere")
    expect(nowhere.get_by_role("heading", level=1)).to_have_text("There is no such object")
    look(nowhere, "nowhere")

    guest.complaints.clear()  # a browser says of each 403 and 404 that there was one
