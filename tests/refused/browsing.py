"""A person's browser at the pages of the gateway: it signs in, is asked, and allows (RFC 6749, section 4.1)."""

from __future__ import annotations

import re
from base64 import urlsafe_b64encode
from dataclasses import dataclass, field
from hashlib import sha256
from html import unescape
from secrets import token_urlsafe
from urllib.parse import parse_qsl, urlsplit

import httpx
from flask.testing import FlaskClient
from werkzeug.test import TestResponse

AUTHORIZE = "/oauth/authorize"
REDIRECT = "https://tool.example/after/sign-in"
STATE = "a-state-to-give-back"
_FIELD = re.compile(r'<input type="hidden" name="([^"]+)" value="([^"]*)">')


@dataclass(frozen=True, slots=True)
class Pkce:
    """A verifier and its challenge (RFC 7636)."""

    verifier: str = field(repr=False)

    @property
    def challenge(self) -> str:
        return urlsafe_b64encode(sha256(self.verifier.encode()).digest()).rstrip(b"=").decode()


def new_pkce() -> Pkce:
    return Pkce(token_urlsafe(48))


def hidden_fields(page: str) -> dict[str, str]:
    """What a form of the page sends without being asked."""
    return {unescape(name): unescape(value) for name, value in _FIELD.findall(page)}


def sign_in(browser: FlaskClient, name: str, password: str, *, base_url: str) -> None:
    """Sign in at the page."""
    page = browser.get("/console/sign-in", base_url=base_url)
    form = hidden_fields(page.text) | {"name": name, "password": password}
    answer = browser.post("/console/sign-in", data=form, base_url=base_url)
    assert answer.status_code == 303, answer.text


def wish(client_id: str, pkce: Pkce, **other: str) -> dict[str, str]:
    """A good authorization request, but for what is given."""
    return {
        "response_type": "code",
        "client_id": client_id,
        "redirect_uri": REDIRECT,
        "state": STATE,
        "code_challenge": pkce.challenge,
        "code_challenge_method": "S256",
        **other,
    }


def consent(
    browser: FlaskClient, wished: dict[str, str], *, base_url: str, decision: str = "allow"
) -> TestResponse:
    """Read the question and answer it."""
    page = browser.get(AUTHORIZE, query_string=wished, base_url=base_url)
    assert page.status_code == 200, page.text
    form = hidden_fields(page.text) | {"decision": decision}
    return browser.post(AUTHORIZE, data=form, base_url=base_url)


def allow(browser: httpx.Client, asked: str, name: str, password: str) -> str:
    """Over the wire: sent to the gateway by a client, sign in, read the question, allow; where the answer leads."""
    first = browser.get(asked)
    page = browser.get(first.headers["Location"])
    typed = hidden_fields(page.text) | {"name": name, "password": password}
    signed_in = browser.post("/console/sign-in", data=typed)
    question = browser.get(signed_in.headers["Location"])
    answer = browser.post(AUTHORIZE, data=hidden_fields(question.text) | {"decision": "allow"})
    assert answer.headers["Location"].startswith(REDIRECT), answer.text
    return answer.headers["Location"]


def answered(response: TestResponse) -> dict[str, str]:
    """What the redirect tells the client."""
    return dict(parse_qsl(urlsplit(response.headers["Location"]).query))
