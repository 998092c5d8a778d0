"""The log explorer in a browser: filters, a proof that the browser checks itself, sealed fields that are revealed."""

from __future__ import annotations

import re
from collections.abc import Callable

import pytest
from console.looking import Visitor, look
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from federation import Federation, file_of, tensors
from flask import Flask
from playwright.sync_api import Page, Route, expect
from staff import Browser, add_member, form_token

from audit.checkpoint import NoteSigner
from audit.proof import parse_proof
from gateway.auth.people.accounts import Proofs, change_person
from gateway.auth.people.passwords import Passwords
from gateway.services import Services

NewVisitor = Callable[..., Visitor]


@pytest.fixture
def log(federation: Federation) -> Federation:
    """A log of some entries: a model, a round, silos, an update, refusals, people."""
    return written(federation, silos=4)


def written(federation: Federation, silos: int) -> Federation:
    """The same with so many silos."""
    federation.add_model()
    federation.open_round()
    registered = [federation.register(f"silo {number}") for number in range(silos)]
    federation.submit(registered[0], file_of(tensors(0.5)))
    for _ in range(3):
        federation.http.get("/api/v1/clients", headers=registered[0].headers)
    federation.sequence()
    return federation


def places(page: Page) -> list[int]:
    """The entries on the page, in their order."""
    return [int(text) for text in page.locator("tbody th").all_inner_texts()]


def types(page: Page) -> set[str]:
    """What happened, on the page."""
    return set(page.locator("tbody td:nth-child(2)").all_inner_texts())


def test_an_auditor_finds_entries_by_what_happened_and_goes_back_in_time(
    federation: Federation, visitor: NewVisitor
) -> None:
    """Filters stand in the address; pages go on by place, the newest first."""
    ada = visitor("auditor", "Ada")
    written(federation, silos=50)
    page = ada.open("/console/log")
    first = places(page)
    look(page, "log")

    page.get_by_role("link", name="Older").click()
    expect(page.get_by_role("link", name="Newer")).to_be_visible()
    second = places(page)
    page.get_by_label("What happened").select_option("client.registered")
    page.get_by_role("button", name="Show").click()
    registered = (types(page), len(places(page)))
    page.get_by_label("What happened").select_option("")
    page.get_by_label("How it ended").select_option("denied")
    page.get_by_role("button", name="Show").click()

    assert first == sorted(first, reverse=True)
    assert len(first) == 50
    assert second[0] == first[-1] - 1
    assert registered == ({"client.registered"}, 50)
    assert types(page) == {"access.refused"}
    assert "outcome=denied" in page.url


def test_a_filter_that_finds_nothing_and_one_that_cannot_be_read_say_so(
    log: Federation, visitor: NewVisitor
) -> None:
    """What is wrong is said beside its field, and the rest counts."""
    ada = visitor("auditor", "Ada")

    nothing = ada.open("/console/log?type=hold.placed")
    expect(nothing.get_by_role("heading", name="Nothing of that kind here")).to_be_visible()
    look(nothing, "log-nothing")
    wrong = ada.open("/console/log?first=x&type=client.registered")

    expect(wrong.get_by_role("alert")).to_contain_text("From entry")
    expect(wrong.get_by_label("From entry")).to_have_attribute("aria-invalid", "true")
    assert types(wrong) == {"client.registered"}
    ada.complaints.clear()  # the browser tells of the 422


def test_the_browser_itself_proves_an_entry(log: Federation, visitor: NewVisitor) -> None:
    """Leaf, path, root and signature by WebCrypto; each step is told, and what comes of it is announced."""
    ada = visitor("auditor", "Ada")
    log.sequence()

    page = ada.open("/console/log/7")

    expect(page.get_by_role("status")).to_contain_text("Proven: this entry is in the log")
    assert page.locator("#steps li[data-state=held]").count() == 6
    look(page, "log-entry")


def _served(page: Page, change: Callable[[str], str]) -> None:
    """Stand between the gateway and the browser, and change the proof."""

    def answer(route: Route) -> None:
        route.fulfill(status=200, content_type="text/plain", body=change(route.fetch().text()))

    page.route("**/proof", answer)


def _signed_by_another(proof: str) -> str:
    parsed = parse_proof(proof)
    origin, size, root = parsed.checkpoint.split("\n")[:3]
    signer = NoteSigner(origin, Ed25519PrivateKey.generate())
    return proof.replace(parsed.checkpoint, signer.sign_text(f"{origin}\n{size}\n{root}\n"))


def _with_another_root(proof: str) -> str:
    root = parse_proof(proof).checkpoint.split("\n")[2]
    return proof.replace(root, "A" * 43 + "=")


FORGERIES: tuple[tuple[Callable[[str], str], str], ...] = (
    (_with_another_root, "The path leads to another root"),
    (_signed_by_another, "no signature of this key"),
    (lambda proof: re.sub("(?m)^extra .*$", "extra e30=", proof), "another entry"),
    (lambda _proof: "nothing", "no proof of an entry"),
)


def test_a_forged_proof_is_refused_in_the_page(log: Federation, visitor: NewVisitor) -> None:
    """Promise 2, before the auditor's eyes: whoever sits between changes nothing unseen."""
    ada = visitor("auditor", "Ada")
    log.sequence()

    for change, told in FORGERIES:
        _served(ada.page, change)
        page = ada.open("/console/log/7")
        expect(page.get_by_role("status")).to_contain_text("Not proven.")
        expect(page.get_by_role("status")).to_contain_text(told)
        page.unroute_all()


def test_an_auditor_checks_with_the_key_that_they_were_given(log: Federation, visitor: NewVisitor) -> None:
    """The page's key is only a proposal: with another log's key nothing is proven, with the right one again."""
    ada = visitor("auditor", "Ada")
    log.sequence()
    page = ada.open("/console/log/7")
    key = page.get_by_label("Key of the log")
    right, other = key.input_value(), NoteSigner("example.com/other", Ed25519PrivateKey.generate()).vkey
    verdict = page.get_by_role("status")

    key.fill(other)
    page.get_by_role("button", name="Check again").click()
    expect(verdict).to_contain_text("another log than the key")
    look(page, "log-entry-refused")
    key.fill(right)
    page.get_by_role("button", name="Check again").click()

    expect(verdict).to_contain_text("Proven")


def test_personal_fields_are_sealed_until_somebody_says_why(
    log: Federation, services: Services, passwords: Passwords, new_visitor: NewVisitor
) -> None:
    """RULES 27: revealed to who was given the scope by name, once, with a reason; and the log tells of it."""
    ada = new_visitor()
    ada.sign_in(add_member(services, passwords, "Ada", role="auditor", extra=["audit:reveal"]))
    page = ada.open("/console/log?type=client.registered")
    page.locator("tbody a").first.click()
    sealed = page.locator("#sealed")
    expect(sealed.get_by_text("Sealed", exact=False).first).to_be_visible()
    assert page.locator("[data-revealed]").count() == 0

    page.get_by_label("Why you must know").fill("case 7: whose device was this?")
    page.get_by_role("button", name="Reveal").click()
    expect(page.locator("[data-revealed=ip_address]")).to_have_text("127.0.0.1")
    expect(page.locator("#verdict")).to_contain_text("Proven")
    look(page, "log-entry-revealed")
    log.sequence()
    page.get_by_role("link", name="Seal them again").click()

    expect(page.locator("[data-revealed]")).to_have_count(0)
    ada.open("/console/log?type=audit.revealed")
    assert types(page) == {"audit.revealed"}


def test_who_was_not_given_the_scope_sees_how_to_get_it_and_no_button(
    app: Flask, services: Services, passwords: Passwords, log: Federation
) -> None:
    """What a person may not do is not offered; a form sent all the same is refused, and so once the scope is gone."""
    path = "/console/log/7"
    ada, otto = (Browser(app.test_client()) for _ in range(2))
    ada.sign_in(add_member(services, passwords, "Ada", role="auditor"))
    given = add_member(services, passwords, "Otto", role="auditor", extra=["audit:reveal"])
    otto.sign_in(given)

    page = ada.get(path).text
    token = form_token(ada.get("/console/"), "/console/sign-out")
    sent = ada.post(f"{path}/reveal", {"reason": "curious", "form_token": token})
    form = form_token(otto.get(path), f"{path}/reveal")
    change_person(services, given.user_id, Proofs(), passwords=passwords, extra=[])
    late = otto.post(f"{path}/reveal", {"reason": "curious", "form_token": form})

    assert f'action="{path}/reveal"' not in page
    assert "audit:reveal" in page
    assert (sent.status_code, "NOT_YOUR_PART" in sent.text) == (403, True)
    assert (late.status_code, late.headers["Location"]) == (303, "/console/sign-in")


def test_a_proof_can_be_checked_by_keyboard_alone(log: Federation, visitor: NewVisitor) -> None:
    """WCAG 2.1.1: skip to the content, to the key's field, and check by Enter."""
    ada = visitor("auditor", "Ada")
    log.sequence()
    page = ada.open("/console/log/7")
    expect(page.get_by_role("status")).to_contain_text("Proven")

    page.keyboard.press("Tab")
    page.keyboard.press("Enter")
    for _ in range(30):
        page.keyboard.press("Tab")
        if page.evaluate("document.activeElement.id") == "vkey":
            break
    page.keyboard.type("x")
    page.keyboard.press("Enter")

    expect(page.get_by_role("status")).to_contain_text("Not proven.")
