"""An officer's week at the console, from the first request to a receipt that an auditor accepts."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from zipfile import ZipFile

import pytest
from console.looking import Visitor, look
from federation import Federation, Silo, file_of, tensors
from playwright.sync_api import Page, expect
from staff import Member

from audit.verify import main as verify
from gateway.config import Config

Visitors = Callable[..., Visitor]


@pytest.fixture
def config(config: Config) -> Config:
    """Two people must approve an erasure."""
    return replace(config, erasure_approvals=2)


def take_part(federation: Federation) -> Silo:
    """A silo that has sent an update."""
    federation.add_model()
    federation.open_round()
    silo = federation.register("Hospital of Ulm")
    assert federation.submit(silo, file_of(tensors(0.5))).status_code == 202
    federation.work()
    return silo


def ask(page: Page, site: str, kind: str, silo: Silo) -> str:
    """Take a request down; its page's address."""
    page.goto(f"{site}/console/requests")
    page.get_by_role("link", name="New request").first.click()
    page.get_by_role("radio", name=kind).check()
    page.get_by_label("Client").fill(silo.client_id)
    page.get_by_role("button", name="Take it down").click()
    expect(page.get_by_role("heading", level=1)).to_contain_text(f"{kind} request")
    return page.url


def save(page: Page, link: str, folder: Path) -> Path:
    """Download what a link leads to."""
    with page.expect_download() as waiting:
        page.get_by_role("link", name=link).click()
    path = folder / waiting.value.suggested_filename
    waiting.value.save_as(path)
    return path


def state(page: Page) -> str:
    """Where the request stands, as its page says."""
    return page.locator("h1 .badge").inner_text()


def test_from_the_first_request_to_a_receipt_that_verifies(
    federation: Federation,
    new_visitor: Visitors,
    visitor: Visitors,
    staff: Callable[..., Member],
    tmp_path: Path,
) -> None:
    """An access is answered; a hold stops an erasure; two people lift it, two approve; the receipt verifies."""
    silo = take_part(federation)
    dana, otto = new_visitor(), visitor("dpo", "Otto")
    dana.sign_in(staff("dpo", "Dana"))
    page, other = dana.page, otto.page

    # An access request is answered with one package, and a link for the person.
    ask(page, dana.site, "Access", silo)
    look(page, "request-received")
    page.get_by_role("button", name="Take it in hand").click()
    page.get_by_role("button", name="The person is known").click()
    page.get_by_role("button", name="Approve it").click()
    expect(page.get_by_role("link", name="Download the package")).to_be_visible()
    assert state(page) == "Completed"
    with ZipFile(save(page, "Download the package", tmp_path)) as package:
        assert "manifest.json" in package.namelist()
    page.get_by_role("button", name="Make a link for the person").click()
    expect(page.locator("#link")).to_contain_text("/packages/")
    look(page, "request-access-completed")

    look(dana.open("/console/requests?status=all"), "requests")
    look(dana.open("/console/requests/new"), "request-new")

    # A court needs the data: a hold is placed on the person of an erasure request.
    erasure = ask(page, dana.site, "Erasure", silo)
    page.get_by_role("link", name="Place a hold").click()
    page.get_by_label("Matter").fill("Landgericht Ulm, 7 O 12/26")
    page.get_by_label("Ground of Art. 17(3)").select_option("e")
    look(page, "hold-new")
    page.get_by_role("button", name="Place the hold").click()
    expect(page.get_by_role("heading", level=1)).to_contain_text("Legal hold")
    hold = page.url
    look(page, "hold")

    # Two people approve the erasure, and it is refused as long as the hold stands.
    page.goto(erasure)
    page.get_by_role("button", name="The person is known").click()
    page.get_by_role("button", name="Approve it").click()
    expect(page.get_by_text("1 of 2 have")).to_be_visible()
    expect(page.get_by_text("Another person has to approve it too")).to_be_visible()
    expect(page.get_by_role("button", name="Approve it")).to_have_count(0)
    look(page, "request-second-person")
    other.goto(erasure)
    other.get_by_role("button", name="Approve it, as the second person").click()
    expect(other.locator("h1 .badge")).to_have_text("On hold")
    look(other, "request-on-hold")

    # Who asked for the end of the hold cannot end it alone.
    page.goto(hold)
    page.get_by_role("button", name="Ask for its end").click()
    expect(page.get_by_text("Another person has to agree")).to_be_visible()
    expect(page.get_by_role("button", name="Agree")).to_have_count(0)
    look(otto.open("/console/holds"), "holds")
    other.goto(hold)
    look(other, "hold-end-asked")
    other.get_by_role("button", name="Agree: lift the hold").click()
    expect(other.locator("h1 .badge")).to_have_text("Lifted")

    # The erasure goes on by itself; its receipt is handed out, and its key once.
    federation.work()
    federation.sequence()
    page.goto(erasure)
    expect(page.locator("h1 .badge")).to_have_text("Completed")
    look(page, "request-erased")
    receipt = save(page, "Download the receipt", tmp_path)
    save(page, "Proof from the log", tmp_path)
    page.get_by_role("button", name="Show the person's key, once").click()
    assert len(page.locator("#key").inner_text()) == 64
    page.goto(erasure)
    expect(page.get_by_role("button", name="Show the person's key, once")).to_have_count(0)

    # An auditor, outside the house, has the log, the receipt keys and the receipt.
    auditor = federation.staff("auditor")
    bundle, keys = tmp_path / "bundle.zip", tmp_path / "jwks.json"
    bundle.write_bytes(federation.http.get("/api/v1/audit/bundle", headers=auditor, buffered=True).data)
    keys.write_bytes(federation.http.get("/.well-known/jwks.json").data)
    assert verify([str(bundle), "--receipt", str(receipt), "--jwks", str(keys)]) == 0

    # And in the page: the browser itself proves the entry of the erasure.
    ada = visitor("auditor", "Ada")
    log = ada.open("/console/log?type=privacy.erased")
    log.locator("tbody a").first.click()
    expect(log.get_by_role("status")).to_contain_text("Proven")
