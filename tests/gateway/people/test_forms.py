"""Forms and cookies of the pages: nobody else can send the one, or read the other (OWASP; RFC 6265bis)."""

from __future__ import annotations

import hmac
import re
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import pytest
from flask import Flask
from services.clock import FixedClock
from staff import AddMember, Browser, NewBrowser, form_token

from gateway.app import create_app
from gateway.auth.people.passwords import Passwords
from gateway.auth.people.signing_in import EXTENSION
from gateway.auth.refusals import close_refusals
from gateway.services import Services

pytestmark = pytest.mark.parametrize("database_url", ["sqlite"], indirect=True)


@pytest.mark.parametrize(
    ("headers", "status"),
    [
        ({}, 303),
        ({"Sec-Fetch-Site": "same-origin"}, 303),
        ({"Origin": "http://localhost"}, 303),
        ({"Sec-Fetch-Site": "same-site"}, 403),
        ({"Sec-Fetch-Site": "cross-site"}, 403),
        ({"Sec-Fetch-Site": "none"}, 403),
        ({"Origin": "http://evil.example"}, 403),
        ({"Origin": "https://localhost"}, 403),
        ({"Origin": "http://localhost:81"}, 403),
        ({"Origin": "null"}, 403),
        ({"Origin": "http://evil.example", "Sec-Fetch-Site": "cross-site"}, 403),
    ],
)
def test_a_form_counts_only_if_the_browser_says_that_it_is_ours(
    member: AddMember, browser: NewBrowser, headers: dict[str, str], status: int
) -> None:
    """Fetch metadata where there is some, else `Origin`; where there is neither, the token alone."""
    ada, chrome = member(), browser()
    token = form_token(chrome.get("/console/sign-in"))
    chrome.headers.update(headers)

    answer = chrome.post(
        "/console/sign-in",
        {"name": ada.name, "password": ada.password, "code": ada.code(), "form_token": token},
    )

    assert answer.status_code == status


def test_a_stranger_s_form_signs_nobody_in(member: AddMember, browser: NewBrowser, entries: Any) -> None:
    """Login CSRF: a token of another browser is worth nothing here, nor is none at all."""
    mallory, victim, attacker = member("Mallory"), browser(), browser()
    stolen = form_token(attacker.get("/console/sign-in"))
    fields = {"name": mallory.name, "password": mallory.password, "code": mallory.code()}

    of_nothing = hmac.new(
        b"", b"flg-form|/console/sign-in", "sha256"
    ).hexdigest()  # the token of no cookie at all
    forged = victim.post("/console/sign-in", fields | {"form_token": of_nothing})
    without_cookie = victim.post("/console/sign-in", fields | {"form_token": stolen})
    victim.get("/console/sign-in")
    with_cookie = victim.post("/console/sign-in", fields | {"form_token": stolen})
    without_token = victim.post("/console/sign-in", fields)

    assert [a.status_code for a in (forged, without_cookie, with_cookie, without_token)] == [403] * 4
    assert not victim.is_in()
    assert {entry["details"]["reason"] for entry in entries("user.refused")} == {"FORM_REFUSED"}


def test_a_token_is_good_for_its_own_form_alone(member: AddMember, browser: NewBrowser) -> None:
    """The token of one form does not send another."""
    ada, chrome = member(), browser()
    chrome.sign_in(ada)
    page = chrome.get("/oauth/authorize")

    refused = chrome.post("/console/sign-out", {"form_token": "0" * 64})
    other = chrome.post("/console/sign-in", {"form_token": form_token(chrome.get("/console/"))})

    assert page.status_code != 200
    assert (refused.status_code, other.status_code) == (403, 403)
    assert chrome.is_in()


def test_a_token_of_before_signing_in_is_worth_nothing_after(member: AddMember, browser: NewBrowser) -> None:
    """The session brings a secret of its own for its forms."""
    ada, chrome = member(), browser()
    before = form_token(chrome.get("/console/sign-in"))
    chrome.sign_in(ada)

    assert chrome.post("/console/sign-out", {"form_token": before}).status_code == 403


def test_a_page_by_get_changes_nothing(member: AddMember, browser: NewBrowser) -> None:
    """A link or a picture cannot sign anybody out."""
    ada, chrome = member(), browser()
    chrome.sign_in(ada)

    assert chrome.get("/console/sign-out").status_code == 405
    assert chrome.is_in()


@pytest.fixture
def behind_front(services: Services, passwords: Passwords, clock: FixedClock) -> Iterator[Flask]:
    """The application behind a TLS front."""
    config = replace(services.config, trusted_proxy="true", public_url="https://fl.example")
    made = create_app(replace(services, config=config))
    made.extensions[EXTENSION] = passwords
    yield made
    close_refusals(made)


def cookies_of(answer: Any) -> dict[str, str]:
    """Each cookie with its attributes."""
    return dict(line.split("=", 1) for line in answer.headers.getlist("Set-Cookie"))


def test_over_tls_cookies_are_for_this_host_and_for_tls_alone(behind_front: Flask, member: AddMember) -> None:
    """`__Host-`, Secure, HttpOnly, SameSite, Path=/ and no Domain (RFC 6265bis, section 4.1.3.2)."""
    ada = member()
    chrome = Browser(behind_front.test_client(), "198.51.100.7", is_far=True)
    page = chrome.get("/console/sign-in")
    fields = {"name": ada.name, "password": ada.password, "code": ada.code(), "form_token": form_token(page)}

    answer = chrome.post("/console/sign-in", fields)

    assert page.headers["Strict-Transport-Security"] == "max-age=31536000"
    given = cookies_of(page) | cookies_of(answer)
    assert answer.status_code == 303
    assert set(given) == {"__Host-flg_form", "__Host-flg_session", "__Host-flg_browser"}
    for name, said in given.items():
        facts = {part.strip() for part in said.split(";")[1:]}
        assert {"Secure", "HttpOnly", "Path=/"} <= facts
        assert not any(fact.startswith("Domain") for fact in facts)
        assert ("SameSite=Lax" if name == "__Host-flg_session" else "SameSite=Strict") in facts


def test_over_tls_a_cookie_without_the_prefix_is_not_looked_at(
    services: Services, behind_front: Flask, member: AddMember, browser: NewBrowser
) -> None:
    """A sibling host or a page over http can set `flg_session`, and not `__Host-flg_session`."""
    ada, here = member(), browser()
    here.sign_in(ada)
    value = here.cookie("flg_session")

    statuses = []
    for name in ("flg_session", "__Host-flg_session"):
        answer = behind_front.test_client(use_cookies=False).get(
            "/console/", headers={"X-Forwarded-Proto": "https", "Cookie": f"{name}={value}"}
        )
        statuses.append(answer.status_code)

    assert statuses == [303, 200]


@pytest.mark.parametrize("path", ["/console/sign-in", "/console/"])
def test_credentials_do_not_cross_a_network_in_clear(
    member: AddMember, browser: NewBrowser, path: str
) -> None:
    """Decision 0051 for people: neither the form nor the session's cookie is taken over plain http."""
    ada, far = member(), browser()
    far.sign_in(ada)
    far.address = "198.51.100.7"
    token = "0" * 64

    answer = far.get(path) if path == "/console/" else far.post(path, {"form_token": token})

    assert answer.status_code == 400
    assert "Credentials may not travel in clear" in answer.text


def test_a_browser_may_do_nothing_with_a_page_but_show_it(browser: NewBrowser) -> None:
    """CSP, framing, caching, referrer, types: also on errors; and the policy allows the one style there is."""
    for page in (browser().get("/console/sign-in"), browser().get("/console/nowhere")):
        nonce = re.search(r'<link rel="stylesheet" nonce="([\w-]{24})"', page.text)
        assert nonce is not None
        assert page.headers["Content-Security-Policy"].split("; ") == [
            "default-src 'none'",
            f"style-src 'nonce-{nonce[1]}'",
            "base-uri 'none'",
            "frame-ancestors 'none'",
            "form-action 'self'",
        ]
        assert page.headers["X-Frame-Options"] == "DENY"
        assert page.headers["Cache-Control"] == "no-store"
        assert page.headers["Referrer-Policy"] == "same-origin"
        assert page.headers["X-Content-Type-Options"] == "nosniff"
        assert page.mimetype == "text/html"
        assert "<script" not in page.text
        assert " style=" not in page.text


def test_every_field_has_a_label_and_the_page_a_language(browser: NewBrowser) -> None:
    """WCAG 2.2: 3.1.1, 1.3.5, 3.3.2; a password manager and a phone know what each field is."""
    page = browser().get("/console/sign-in").text

    shown = re.findall(r"<input(?![^>]*hidden)[^>]*id=\"(\w+)\"", page)
    assert shown == ["name", "password", "code"]
    assert all(f'<label for="{name}">' in page for name in shown)
    assert '<html lang="en">' in page
    for hint in ("username", "current-password", "one-time-code"):
        assert f'autocomplete="{hint}"' in page
    assert 'name="viewport"' in page


TONES = ("good", "warn", "bad", "calm")


def luminance(colour: str) -> float:
    """The relative luminance of WCAG 2.2."""
    parts = [int(colour[at : at + 2], 16) / 255 for at in (1, 3, 5)]
    r, g, b = (p / 12.92 if p <= 0.04045 else ((p + 0.055) / 1.055) ** 2.4 for p in parts)
    return 0.2126 * r + 0.7152 * g + 0.0722 * b


def contrast(one: str, other: str) -> float:
    """The contrast ratio of WCAG 2.2."""
    light, dark = sorted((luminance(one), luminance(other)), reverse=True)
    return (light + 0.05) / (dark + 0.05)


def test_colours_can_be_told_apart_in_light_and_dark(browser: NewBrowser) -> None:
    """WCAG 2.2, 1.4.3 and 1.4.11: text 4.5 to 1, edges of fields 3 to 1."""
    style = browser().get("/console/static/style.css").text
    themes = [
        dict(re.findall(r"--([\w-]+): (#[0-9a-f]{6})", block)) for block in style.split("@media", 2)[:2]
    ]

    for theme in themes:
        for text, ground in (
            ("ink", "paper"),
            ("ink", "panel"),
            ("soft", "paper"),
            ("act", "paper"),
            ("act", "act-ground"),
            ("on-act", "act"),
            *((tone, ground) for tone in TONES for ground in ("card", f"{tone}-ground")),
        ):
            assert contrast(theme[text], theme[ground]) >= 4.5, (text, ground)
        assert contrast(theme["line"], theme["paper"]) >= 3
        assert contrast(theme["line"], theme["card"]) >= 3


def test_what_a_person_is_called_is_text_and_no_markup(member: AddMember, browser: NewBrowser) -> None:
    """A name with markup in it is shown as it is."""
    ada, chrome = member("<b>Ada</b>\u0022'&"), browser()
    chrome.sign_in(ada)

    assert "&lt;b&gt;Ada&lt;/b&gt;&#34;&#39;&amp;" in chrome.get("/console/").text


def test_a_form_that_is_too_long_is_not_read(browser: NewBrowser) -> None:
    """16 kB are enough for a name, a password and a code."""
    answer = browser().post("/console/sign-in", {"name": "x" * 20_000})

    assert answer.status_code == 413
    assert answer.mimetype == "text/html"
