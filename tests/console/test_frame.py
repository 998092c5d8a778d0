"""The console's frame: who may open which page, what a browser may do with it, and in which words it speaks."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from datetime import timedelta

import pytest
from federation import Federation
from flask import Flask
from services.clock import FixedClock
from sqlalchemy import event, select
from staff import Browser, Member

from audit.tables import audit_pending
from gateway.auth.rules import Proof, rules_of
from gateway.auth.scopes import BUNDLES, Role
from gateway.console.static_files import static_files
from gateway.services import Services
from gateway.tables import sessions

Staff = Callable[..., Member]
ROLES = (Role.OPERATOR, Role.DPO, Role.AUDITOR)
NOWHERE = "00000000-0000-4000-8000-000000000000"


@pytest.fixture
def browser(app: Flask) -> Browser:
    """A browser on this machine that knows nothing of scripts."""
    return Browser(app.test_client())


def _pages(app: Flask, method: str) -> Iterator[tuple[str, str]]:
    """Each page that asks for a scope: its endpoint, and an address with something in each gap."""
    for route in app.url_map.iter_rules():
        rule = rules_of(app)[route.endpoint]
        if rule.proof is Proof.PERSON and rule.scopes and method in (route.methods or ()):
            filled = re.sub(r"<int:\w+>", "1", route.rule)
            yield route.endpoint, re.sub(r"<(\w+:)?\w+>", NOWHERE, filled)


@pytest.mark.parametrize("role", ROLES)
def test_each_role_sees_what_its_scopes_allow(app: Flask, browser: Browser, staff: Staff, role: Role) -> None:
    """Each page at the door: 403 exactly where the table gives the role none of its scopes; the ways say the same."""
    browser.sign_in(staff(role.value))
    ways = re.findall(r'<a href="(/console/[\w/-]*)"', browser.get("/console/").text.partition("</nav>")[0])

    for endpoint, path in _pages(app, "GET"):
        page, may = browser.get(path), not set(rules_of(app)[endpoint].scopes).isdisjoint(BUNDLES[role])
        assert ("NOT_YOUR_PART" in page.text) is not may, (endpoint, page.status_code)
        assert (page.status_code == 403) is not may, endpoint
        if "<" not in next(one.rule for one in app.url_map.iter_rules() if one.endpoint == endpoint):
            assert page.status_code in (200, 403), endpoint
    assert [browser.get(way).status_code for way in ways] == [200] * len(ways)
    assert ways[0] == "/console/"


def test_a_stranger_is_led_to_sign_in_and_back(app: Flask, browser: Browser, staff: Staff) -> None:
    """Nobody is told anything without a session; after signing in, the page that was asked for comes."""
    for _, path in _pages(app, "GET"):
        answer = browser.get(path)
        assert answer.status_code == 303, path
        assert answer.headers["Location"].startswith("/console/sign-in?next="), path

    led = browser.get("/console/rounds?page=2").headers["Location"]
    browser.get(led)
    answer = browser.sign_in(staff("operator"), after="/console/rounds?page=2")
    assert answer.headers["Location"] == "/console/rounds?page=2"
    assert "next=%2Fconsole%2Frounds%3Fpage%3D2" in led


def test_a_closed_door_is_an_entry(browser: Browser, staff: Staff, services: Services) -> None:
    """Promise 1: a refused request is in the log, and the person is its actor; a stranger's first visit is none."""
    browser.get("/console/rounds")
    browser.sign_in(staff("auditor"))

    page = browser.get("/console/clients")

    with services.engine.connect() as conn:
        bodies = list(conn.execute(select(audit_pending.c.body)).scalars())
    refused = [body for body in bodies if "access.refused" in body]
    assert page.status_code == 403
    assert "Your role is auditor" in page.text
    assert len(refused) == 1
    assert "NOT_YOUR_PART" in refused[0]


@pytest.mark.parametrize("role", ROLES)
def test_no_page_takes_a_form_of_somebody_else(
    app: Flask, browser: Browser, staff: Staff, role: Role
) -> None:
    """Each form of the console, sent without its token: refused before any view sees it."""
    browser.sign_in(staff(role.value))

    answers = {path: browser.post(path, {}).text for _, path in _pages(app, "POST")}

    assert len(answers) >= 2
    for path, text in answers.items():
        assert "FORM_REFUSED" in text or "NOT_YOUR_PART" in text, path


def test_a_page_runs_our_modules_and_nothing_else(browser: Browser, staff: Staff) -> None:
    """CSP: by a nonce that is new in each answer; no script or style in the page, nothing from another host."""
    browser.sign_in(staff("operator"))
    pages = [browser.get(path) for path in ("/console/", "/console/", "/console/rounds", "/console/clients")]

    policies = [
        dict(rule.split(" ", 1) for rule in p.headers["Content-Security-Policy"].split("; ")) for p in pages
    ]
    nonces = {policy["style-src"] for policy in policies}
    assert len(nonces) == len(pages)
    for page, policy in zip(pages, policies, strict=True):
        assert policy["default-src"] == policy["base-uri"] == policy["frame-ancestors"] == "'none'"
        assert policy["form-action"] == "'self'"
        nonce = policy["style-src"].removeprefix("'nonce-").removesuffix("'")
        for tag in re.findall(r"<(?:script|link|style)\b[^>]*>", page.text):
            assert f'nonce="{nonce}"' in tag, tag
            assert re.search(r'(?:src|href)="/console/static/', tag), tag
        assert not re.search(r"<script[^>]*>[^<]", page.text)
        assert not re.search(r"\s(?:style|on\w+)=", page.text)
        assert not re.search(r"(?:src|href|action)=\"(?!/)", page.text.replace('href="#', 'href="/#'))
        if "<script" in page.text:
            assert policy["script-src"] == f"'nonce-{nonce}'"
            assert policy["require-trusted-types-for"] == "'script'"
        else:
            assert "script-src" not in policy


def test_styles_and_modules_need_no_other_host() -> None:
    """The console works without a network: no file names an address."""
    for name, file in static_files().items():
        text = file.content.decode()
        assert not re.search(
            r"https?://|//[a-z]+\.|@import|url\(", re.sub(r"https?://www\.w3\.org/\S*", "", text)
        ), name


def test_a_browser_keeps_a_file_until_it_changes(browser: Browser) -> None:
    """An address that names the content is kept for ever; another one is asked about, and a made-up one is no file."""
    named = re.search(r'href="(/console/static/style\.css\?v=\w+)"', browser.get("/console/sign-in").text)
    assert named is not None
    kept, asked = browser.get(named[1]), browser.get("/console/static/style.css")

    again = browser.http.get("/console/static/style.css", headers={"If-None-Match": asked.headers["ETag"]})

    assert kept.headers["Cache-Control"] == "public, max-age=31536000, immutable"
    assert asked.headers["Cache-Control"] == "public, no-cache"
    assert (kept.mimetype, kept.headers["X-Content-Type-Options"]) == ("text/css", "nosniff")
    assert again.status_code == 304
    for name in ("nothing.css", "..%2fpages.py", "%2e%2e/pages.py", "console.html"):
        assert browser.get(f"/console/static/{name}").status_code == 404, name


def test_a_page_that_refreshes_itself_keeps_no_session_awake(
    browser: Browser, staff: Staff, services: Services, clock: FixedClock
) -> None:
    """A console left open on a desk ends when nobody uses it, though it looks every few seconds."""
    browser.sign_in(staff("operator"))

    def seen() -> object:
        with services.engine.connect() as conn:
            return conn.execute(select(sessions.c.seen_at)).scalar_one()

    began = seen()
    clock.advance(timedelta(minutes=5))
    browser.http.get("/console/rounds", headers={"Sec-Fetch-Dest": "empty"})
    after_refresh = seen()
    browser.get("/console/rounds")

    assert after_refresh == began
    assert seen() == began + timedelta(minutes=5)  # type: ignore[operator]


def test_a_page_that_is_not_there_shows_the_way_back(browser: Browser) -> None:
    """Also to a stranger, who sees no part of the console."""
    lost = browser.get("/console/nowhere")

    assert lost.status_code == 404
    assert '<a href="/console/">To the console</a>' in lost.text
    assert "<nav" not in lost.text


@pytest.mark.parametrize(
    ("query", "status"),
    [
        (f"before={'9' * 5000}", 200),
        (f"after={'9' * 5000}", 200),
        (f"first={'9' * 5000}", 422),
        ("since=2026-01-01T00:00%2B05:00", 422),
        ("since=0001-01-01T00:00", 422),
        ("type=%00&outcome=%00", 422),
    ],
)
def test_an_address_of_the_log_that_makes_no_sense_breaks_nothing(
    browser: Browser, staff: Staff, query: str, status: int
) -> None:
    """What cannot be read is left out and said; a time with another zone's offset is not taken for UTC."""
    browser.sign_in(staff("auditor"))

    assert browser.get(f"/console/log?{query}").status_code == status


def test_an_entry_that_was_overwritten_is_shown_as_such(
    browser: Browser, staff: Staff, federation: Federation, services: Services
) -> None:
    """Promise 2, before the auditor's eyes: it is not left out of the list, and its page says what to do."""
    federation.register("Hospital of Ulm")
    federation.sequence()
    browser.sign_in(staff("auditor"))
    with services.engine.begin() as conn:
        conn.exec_driver_sql("DROP TRIGGER audit_log_no_update")
        conn.exec_driver_sql("UPDATE audit_log SET canonical = 'nonsense' WHERE seq = 1")

    listed, page = browser.get("/console/log"), browser.get("/console/log/1")

    assert "cannot be read" in listed.text
    assert re.search(r'role="alert"[^§]*<a href="/console/log/1">1</a>', listed.text.partition("<table")[0])
    assert (page.status_code, "ENTRY_DAMAGED" in page.text) == (500, True)
    assert "fl-gateway audit verify" in page.text


@pytest.mark.parametrize(
    "after", ["//evil.example", "/console/%2e%2e//evil.example", "/console/../x", "/\\evil"]
)
def test_nobody_is_led_away_after_signing_in(browser: Browser, staff: Staff, after: str) -> None:
    """RFC 9700, section 4.11.2: a link to the sign-in page leads to the console, whatever is spelled in it."""
    answer = browser.sign_in(staff("auditor"), after=after)

    assert answer.headers["Location"] == "/console/"


def test_the_first_page_costs_the_same_however_many_models_there_are(
    browser: Browser, staff: Staff, federation: Federation, services: Services
) -> None:
    """It looks again every ten seconds, and shows the newest three: it reads no others."""
    browser.sign_in(staff("operator"))
    asked: list[str] = []
    event.listen(services.engine, "before_cursor_execute", lambda _c, _k, query, *_: asked.append(query))

    def questions(models: int) -> int:
        for number in range(models):
            assert federation.add_model(name=f"{models} {number}").status_code == 201
        browser.get("/console/")
        asked.clear()
        assert browser.get("/console/").status_code == 200
        return len(asked)

    assert questions(models=3) == questions(models=6)
