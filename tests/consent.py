"""A third-party tool, a person who is signed in, and the way of a code between them, over HTTP."""

from __future__ import annotations

from base64 import urlsafe_b64encode
from dataclasses import dataclass, field
from hashlib import sha256
from html.parser import HTMLParser
from typing import Any
from urllib.parse import parse_qsl, urlsplit

from flask.testing import FlaskClient
from staff import CHEAP, Member, add_member
from werkzeug.test import TestResponse

from gateway.auth.clients import add_client
from gateway.auth.people.cookies import Cookie
from gateway.auth.people.passwords import Passwords
from gateway.auth.people.sessions import SignInMethod, begin_session, new_cookie
from gateway.auth.scopes import Role
from gateway.services import Services

CALLBACK = "https://tool.example/callback"
VERIFIER = "dBjftJeZ4CVP-mB92K27uhbUJU1p1r_wW1gFWFOEjXk"  # RFC 7636, appendix B
CHALLENGE = urlsafe_b64encode(sha256(VERIFIER.encode()).digest()).rstrip(b"=").decode()


@dataclass(frozen=True)
class Tool:
    """A client that acts for people."""

    client_id: str
    secret: str = field(repr=False)
    redirect_uri: str = CALLBACK

    @property
    def auth(self) -> tuple[str, str]:
        """Its id and secret."""
        return self.client_id, self.secret

    def wish(self, **changes: str | None) -> dict[str, str]:
        """An authorization request; what is changed to None is left out."""
        usual = {
            "response_type": "code",
            "client_id": self.client_id,
            "redirect_uri": self.redirect_uri,
            "state": "the tool's state",
            "code_challenge": CHALLENGE,
            "code_challenge_method": "S256",
        }
        return {name: value for name, value in {**usual, **changes}.items() if value is not None}


def add_tool(services: Services, role: str = "auditor", redirect_uri: str = CALLBACK, **terms: Any) -> Tool:
    """A client with a redirect URI."""
    uris = terms.pop("redirect_uris", (redirect_uri,))
    new = add_client(services, "a log viewer", Role(role), redirect_uris=uris, **terms)
    return Tool(new.client_id, new.client_secret, uris[0] if uris else redirect_uri)


def add_somebody(services: Services, role: str = "auditor", name: str = "ada") -> Member:
    """A person of the staff."""
    return add_member(services, Passwords(CHEAP), name, role=role, has_totp=False)


def sign_in(http: FlaskClient, services: Services, person: Member) -> None:
    """Give the browser a session, without the form (tests/gateway/people fills that in)."""
    cookie = new_cookie()
    with services.engine.begin() as conn:
        begin_session(
            conn,
            services,
            cookie,
            user_id=person.user_id,
            method=SignInMethod.PASSWORD,
            old_cookie="",
        )
    http.set_cookie(Cookie.SESSION.value, cookie)


def ask(http: FlaskClient, tool: Tool, **changes: str | None) -> TestResponse:
    """Go where the tool sends the browser."""
    return http.get("/oauth/authorize", query_string=tool.wish(**changes))


def decide(http: FlaskClient, page: TestResponse, decision: str = "allow", **changes: str) -> TestResponse:
    """Send the form of the page."""
    return http.post("/oauth/authorize", data={**fields_of(page), "decision": decision, **changes})


def code_for(http: FlaskClient, tool: Tool, **changes: str | None) -> str:
    """The code that a person who allows it sends to the tool."""
    answered = decide(http, ask(http, tool, **changes))
    assert answered.status_code == 303, answered.text
    return answer_of(answered)["code"]


def exchange(http: FlaskClient, tool: Tool, code: str, **changes: str | None) -> TestResponse:
    """The tool exchanges a code."""
    usual = {
        "grant_type": "authorization_code",
        "code": code,
        "redirect_uri": tool.redirect_uri,
        "code_verifier": VERIFIER,
    }
    form = {name: value for name, value in {**usual, **changes}.items() if value is not None}
    return http.post("/oauth/token", data=form, auth=tool.auth)


def refresh(http: FlaskClient, tool: Tool, token: str, **more: str) -> TestResponse:
    """The tool exchanges a refresh token."""
    form = {"grant_type": "refresh_token", "refresh_token": token, **more}
    return http.post("/oauth/token", data=form, auth=tool.auth)


def tokens_for(http: FlaskClient, tool: Tool, **changes: str | None) -> dict[str, Any]:
    """The tokens that a tool gets from a person who is signed in."""
    answered = exchange(http, tool, code_for(http, tool, **changes))
    assert answered.status_code == 200, answered.text
    found: dict[str, Any] = answered.get_json()
    return found


def opens(http: FlaskClient, token: str, path: str = "/api/v1/audit/checkpoint") -> bool:
    """Whether the API takes the token."""
    return http.get(path, headers={"Authorization": f"Bearer {token}"}).status_code not in (401, 403)


def answer_of(response: TestResponse) -> dict[str, str]:
    """What a redirect tells the tool."""
    pairs = parse_qsl(urlsplit(response.location).query, keep_blank_values=True)
    told = dict(pairs)
    assert len(told) == len(pairs), "a parameter is told twice"
    return told


def fields_of(page: TestResponse) -> dict[str, str]:
    """The hidden fields of a page's form."""
    reader = _Fields()
    reader.feed(page.text)
    return reader.found


class _Fields(HTMLParser):
    def __init__(self) -> None:
        super().__init__()
        self.found: dict[str, str] = {}

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        about = dict(attrs)
        if tag == "input" and about.get("type") == "hidden":
            self.found[str(about["name"])] = about.get("value") or ""
