"""The authorization code grant: a person is asked, a code is exchanged once, and nothing else comes through."""

from __future__ import annotations

import json
import logging
from base64 import urlsafe_b64decode
from collections.abc import Callable
from datetime import timedelta
from typing import Any
from urllib.parse import parse_qs

import pytest
from consent import (
    CALLBACK,
    CHALLENGE,
    VERIFIER,
    Tool,
    add_somebody,
    add_tool,
    answer_of,
    ask,
    code_for,
    decide,
    exchange,
    fields_of,
    opens,
    refresh,
    sign_in,
    tokens_for,
)
from flask.testing import FlaskClient
from services.clock import FixedClock
from sqlalchemy import func, select
from staff import Member

from compliance.subjects import mark_erasing
from gateway.auth.clients import Move, add_client, move_client
from gateway.auth.grants.codes import CODE_TTL
from gateway.auth.people.accounts import Move as PersonMove
from gateway.auth.people.accounts import move_person
from gateway.auth.scopes import MEANINGS, Role, Scope
from gateway.services import Services
from gateway.tables import authorization_codes, tokens

Entries = Callable[..., list[dict[str, Any]]]
ISSUER = "http://localhost"
TOKENS = ("access_token", "refresh_token")
pytestmark = pytest.mark.parametrize(
    "database_url", ["sqlite"], indirect=True
)  # both: test_token_families.py


@pytest.fixture
def tool(services: Services) -> Tool:
    """A third-party tool for auditors."""
    return add_tool(services)


@pytest.fixture
def ada(services: Services, http: FlaskClient) -> Member:
    """An auditor who is signed in."""
    person = add_somebody(services)
    sign_in(http, services, person)
    return person


def count(services: Services, table: Any) -> int:
    """How many rows a table has."""
    with services.engine.connect() as conn:
        return int(conn.scalar(select(func.count()).select_from(table)) or 0)


# The way through


def test_a_person_lets_a_tool_act_for_them(
    http: FlaskClient, tool: Tool, ada: Member, entries: Entries
) -> None:
    """RFC 6749, 4.1: asked, allowed, exchanged; the entries name person and client."""
    page = ask(http, tool)
    answered = decide(http, page)
    told = answer_of(answered)
    got = exchange(http, tool, told["code"])

    assert page.status_code == 200
    assert "a log viewer" in page.text
    assert MEANINGS[Scope.AUDIT_READ] in page.text
    assert answered.status_code == 303
    assert answered.location.startswith(f"{CALLBACK}?")
    assert told == {"code": told["code"], "state": "the tool's state", "iss": ISSUER}
    assert got.status_code == 200
    answer = got.get_json()
    assert set(answer) == {"access_token", "token_type", "expires_in", "scope", "refresh_token"}
    assert (answer["token_type"], answer["expires_in"], answer["scope"]) == ("Bearer", 900, "audit:read")
    assert (got.headers["Cache-Control"], got.headers["Pragma"]) == ("no-store", "no-cache")
    assert opens(http, answer["access_token"])
    (granted,), (issued,) = entries("access.granted"), entries("token.issued")
    assert granted["actor"] == {"user_id": ada.user_id, "role": "auditor"}
    assert granted["details"] == {"scope": "audit:read", "client_id": tool.client_id}
    assert issued["actor"]["client_id"] == tool.client_id
    assert issued["details"] == {
        "scope": "audit:read",
        "auth": "client_secret_basic",
        "lifetime_s": 900,
        "grant": "authorization_code",
        "format": "opaque",
        "bound": False,
        "user_id": ada.user_id,
    }
    assert issued["sealed"] == {"user_id"}


def test_nothing_that_was_handed_out_is_kept_or_logged_in_clear(
    http: FlaskClient,
    services: Services,
    tool: Tool,
    ada: Member,
    entries: Entries,
    caplog: pytest.LogCaptureFixture,
) -> None:
    """Promise 8: codes and refresh tokens are kept as hashes; no entry and no log line has one, not even at DEBUG."""
    caplog.set_level(logging.DEBUG)
    code = code_for(http, tool)
    answer = exchange(http, tool, code).get_json()
    second = refresh(http, tool, answer["refresh_token"]).get_json()
    exchange(http, tool, code)

    with services.engine.connect() as conn:
        kept = f"{conn.execute(select(authorization_codes)).all()} {conn.execute(select(tokens)).all()}"
    told = kept + repr(entries()) + caplog.text
    for secret in (code, VERIFIER, *(one[name] for one in (answer, second) for name in TOKENS)):
        assert secret not in told


def test_who_is_not_signed_in_signs_in_first(http: FlaskClient, services: Services, tool: Tool) -> None:
    """The sign-in page leads back to the very request; nothing is granted on the way."""
    answered = ask(http, tool)

    assert answered.status_code == 303
    place, _, query = answered.location.partition("?")
    assert place == "/console/sign-in"
    back = parse_qs(query)["next"][0]
    sign_in(http, services, add_somebody(services))
    assert fields_of(http.get(back))["code_challenge"] == CHALLENGE


def test_a_session_that_ends_before_the_answer_asks_again(
    http: FlaskClient, services: Services, clock: FixedClock, tool: Tool, ada: Member
) -> None:
    """Nothing is granted by who is not signed in any more; the question comes back after the sign-in."""
    page = ask(http, tool, state="a b&c")
    clock.advance(timedelta(seconds=services.config.session_idle_s))

    answered = decide(http, page)

    assert answered.location.startswith("/console/sign-in?next=")
    sign_in(http, services, ada)
    again = http.get(parse_qs(answered.location.partition("?")[2])["next"][0])
    assert fields_of(again)["state"] == "a b&c"
    assert count(services, authorization_codes) == 0


def test_who_is_being_erased_grants_nothing(
    http: FlaskClient, services: Services, tool: Tool, ada: Member
) -> None:
    """RULES 18: no entry goes under the keys of a person who is being erased, and so no code."""
    page = ask(http, tool)
    with services.engine.begin() as conn:
        mark_erasing(conn, ada.subject_id)

    assert answer_of(decide(http, page))["error"] == "access_denied"
    assert count(services, authorization_codes) == 0


def test_a_person_may_say_no(http: FlaskClient, services: Services, tool: Tool, ada: Member) -> None:
    """RFC 6749, 4.1.2.1: access_denied, with state and iss; no code is made."""
    told = answer_of(decide(http, ask(http, tool), "deny"))

    assert (told["error"], told["state"], told["iss"]) == ("access_denied", "the tool's state", ISSUER)
    assert count(services, authorization_codes) == 0


def test_only_the_page_s_own_form_grants(
    http: FlaskClient, services: Services, tool: Tool, ada: Member
) -> None:
    """RFC 6749, 10.12: a forged consent, and one that another site sends, is refused."""
    page = ask(http, tool)
    forged = http.post("/oauth/authorize", data={**tool.wish(), "decision": "allow"})
    foreign = http.post(
        "/oauth/authorize",
        data={**fields_of(page), "decision": "allow"},
        headers={"Sec-Fetch-Site": "cross-site"},
    )
    mute = decide(http, page, "")

    assert (forged.status_code, foreign.status_code) == (403, 403)
    assert answer_of(mute)["error"] == "access_denied"
    assert count(services, authorization_codes) == 0


def test_the_page_cannot_be_framed_kept_or_made_to_leak(http: FlaskClient, tool: Tool, ada: Member) -> None:
    """RFC 9700, 4.2.4 and 4.16: no frames, no cache, no referrer to others; the form may lead to the tool."""
    page = ask(http, tool)
    answered = decide(http, page)

    policy = page.headers["Content-Security-Policy"]
    assert "frame-ancestors 'none'" in policy
    assert "default-src 'none'" in policy
    assert "form-action 'self' https://tool.example" in policy
    assert page.headers["X-Frame-Options"] == "DENY"
    assert page.headers["Cache-Control"] == answered.headers["Cache-Control"] == "no-store"
    assert page.headers["Referrer-Policy"] == "same-origin"
    assert answered.headers["Referrer-Policy"] == "no-referrer"


def test_what_names_the_tool_is_shown_as_text(http: FlaskClient, services: Services, ada: Member) -> None:
    """A client's name and state are nobody's markup; the name stands alone, and speaks not for the gateway."""
    nasty = "<script>alert(1)</script>"
    new = add_client(services, nasty, Role.AUDITOR, redirect_uris=(CALLBACK,))
    page = ask(http, Tool(new.client_id, new.client_secret), state=f'"><b>{nasty}')

    assert page.status_code == 200
    assert "<h1>A tool asks you</h1>" in page.text
    assert "<strong><bdi>&lt;script&gt;alert(1)&lt;/script&gt;</bdi></strong>" in page.text
    assert new.client_id in page.text
    assert "<script>" not in page.text
    assert "<b>" not in page.text
    assert fields_of(page)["state"] == f'"><b>{nasty}'


# What is asked


def test_what_is_not_known_is_passed_over(http: FlaskClient, tool: Tool, ada: Member) -> None:
    """RFC 6749, 3.1: unrecognised parameters are ignored, empty ones count as omitted."""
    page = ask(http, tool, nonce="n", prompt="consent", scope="", state="")

    assert page.status_code == 200
    assert set(answer_of(decide(http, page))) == {"code", "iss"}


def test_the_scope_is_what_tool_and_person_share(http: FlaskClient, services: Services) -> None:
    """A person cannot allow more than the role has; what is left is told in the answer."""
    tool = add_tool(services, "operator")
    sign_in(http, services, add_somebody(services, "operator"))
    answer = tokens_for(http, tool, scope="round:manage client:manage")
    sign_in(http, services, add_somebody(services, "auditor", "eve"))
    page = ask(http, tool)

    assert answer["scope"] == "client:manage round:manage"
    assert opens(http, answer["access_token"], "/api/v1/clients")
    assert not opens(http, answer["access_token"])
    assert "has nothing of what it asks for" in page.text
    assert 'value="allow"' not in page.text
    assert answer_of(decide(http, page))["error"] == "access_denied"
    assert answer_of(decide(http, page, "deny"))["error"] == "access_denied"


def test_a_client_without_redirect_uris_asks_nobody(http: FlaskClient, services: Services) -> None:
    """Only a tool that says where codes go may act for people: at neither endpoint another one."""
    plain = add_tool(services, redirect_uris=())

    assert ask(http, plain).status_code == 400
    for form in (
        {"grant_type": "authorization_code", "code": "x", "code_verifier": VERIFIER},
        {"grant_type": "refresh_token", "refresh_token": "x"},
    ):
        answered = http.post("/oauth/token", data=form, auth=plain.auth)
        assert (answered.status_code, answered.get_json()["error"]) == (400, "unauthorized_client")


def test_a_suspended_tool_asks_nobody(http: FlaskClient, services: Services, tool: Tool, ada: Member) -> None:
    """It is shown, not sent back; a code that it has is worth nothing."""
    code = code_for(http, tool)
    move_client(services, tool.client_id, Move.SUSPEND)

    assert ask(http, tool).status_code == 400
    assert exchange(http, tool, code).status_code == 401


# What is exchanged


WRONG = {
    "no code": ({"code": None}, "invalid_request"),
    "another code": ({"code": "flg_code_x"}, "invalid_grant"),
    "a code of 10 kB": ({"code": "x" * 10_000}, "invalid_grant"),
    "no redirect URI": ({"redirect_uri": None}, "invalid_grant"),
    "another redirect URI": ({"redirect_uri": CALLBACK + "/"}, "invalid_grant"),
    "no verifier": ({"code_verifier": None}, "invalid_request"),
    "another verifier": ({"code_verifier": "x" * 43}, "invalid_grant"),
    "the challenge as the verifier": ({"code_verifier": CHALLENGE}, "invalid_grant"),
    "a short verifier": ({"code_verifier": VERIFIER[:-1]}, "invalid_request"),
    "a verifier of 129": ({"code_verifier": "x" * 129}, "invalid_request"),
    "a verifier with a line end": ({"code_verifier": VERIFIER + "\n"}, "invalid_request"),
    "a verifier beyond ASCII": ({"code_verifier": "ä" * 43}, "invalid_request"),
    "no grant type": ({"grant_type": None}, "invalid_request"),
    "the password grant": ({"grant_type": "password"}, "unsupported_grant_type"),
    "the implicit grant": ({"grant_type": "implicit"}, "unsupported_grant_type"),
}


def test_a_code_opens_nothing_without_all_that_it_is_bound_to(
    http: FlaskClient, services: Services, tool: Tool, ada: Member
) -> None:
    """RFC 6749, 5.2; RFC 7636, 4.6; RFC 9700, 4.5: each error of the table, and then the code is still good."""
    code, other = code_for(http, tool), add_tool(services)

    for case, (changes, error) in WRONG.items():
        answered = exchange(http, tool, **{"code": code, **changes})
        assert (case, answered.status_code, answered.get_json()["error"]) == (case, 400, error)
        assert answered.headers["Cache-Control"] == "no-store"
    stolen = exchange(http, other, code)
    nobody = exchange(http, Tool(tool.client_id, "wrong"), code)

    assert (stolen.status_code, stolen.get_json()["error"]) == (400, "invalid_grant")
    assert (nobody.status_code, nobody.get_json()["error"]) == (401, "invalid_client")
    assert exchange(http, tool, code).status_code == 200


def test_a_code_is_good_for_a_minute(http: FlaskClient, clock: FixedClock, tool: Tool, ada: Member) -> None:
    """RFC 6749, 4.1.2: it expires shortly."""
    early, late = code_for(http, tool), code_for(http, tool)
    clock.advance(CODE_TTL - timedelta(seconds=1))
    first = exchange(http, tool, early)
    clock.advance(timedelta(seconds=1))
    second = exchange(http, tool, late)

    assert first.status_code == 200
    assert (second.status_code, second.get_json()["error"]) == (400, "invalid_grant")


def test_a_code_that_comes_twice_ends_what_followed_from_it(
    http: FlaskClient, services: Services, tool: Tool, ada: Member, entries: Entries
) -> None:
    """RFC 6749, 4.1.2: the second use is denied, and the tokens of the first are revoked; the alarm names who."""
    bystander = tokens_for(http, tool)
    code = code_for(http, tool)
    answer = exchange(http, tool, code).get_json()
    assert opens(http, answer["access_token"])

    again = exchange(http, tool, code)

    assert (again.status_code, again.get_json()["error"]) == (400, "invalid_grant")
    assert not opens(http, answer["access_token"])
    assert refresh(http, tool, answer["refresh_token"]).get_json()["error"] == "invalid_grant"
    assert opens(http, bystander["access_token"])
    (alarm,) = entries("token.reused")
    assert alarm["details"] == {"kind": "code", "client_id": tool.client_id, "user_id": ada.user_id}
    assert alarm["outcome"] == "denied"


def test_a_token_that_speaks_for_itself_ends_with_its_family_too(
    http: FlaskClient, services: Services, ada: Member
) -> None:
    """RFC 9068: `sub` is the person, `client_id` the tool; a code shown twice ends it all the same."""
    tool = add_tool(services, token_format="jwt")
    code = code_for(http, tool)
    token = exchange(http, tool, code).get_json()["access_token"]
    claims = json.loads(urlsafe_b64decode(token.split(".")[1] + "=="))
    before = opens(http, token)

    exchange(http, tool, code)

    assert (claims["sub"], claims["client_id"]) == (ada.user_id, tool.client_id)
    assert (claims["iss"], claims["scope"]) == (ISSUER, "audit:read")
    assert before
    assert not opens(http, token)


def test_a_used_code_in_other_hands_sounds_the_alarm_too(
    http: FlaskClient, services: Services, tool: Tool, ada: Member, entries: Entries
) -> None:
    """A code that another client shows has leaked, whatever else it lacks."""
    code, thief = code_for(http, tool), add_tool(services)
    answer = exchange(http, tool, code).get_json()

    exchange(http, thief, code, code_verifier="x" * 43)

    assert not opens(http, answer["access_token"])
    assert entries("token.reused")[0]["details"]["client_id"] == thief.client_id


def test_a_person_who_was_suspended_meanwhile_is_acted_for_by_nobody(
    http: FlaskClient, services: Services, tool: Tool, ada: Member
) -> None:
    """Between consent and exchange, and after it: the tokens end with the person's access."""
    code, answer = code_for(http, tool), tokens_for(http, tool)
    move_person(services, ada.user_id, PersonMove.SUSPEND)

    assert exchange(http, tool, code).get_json()["error"] == "invalid_grant"
    assert refresh(http, tool, answer["refresh_token"]).get_json()["error"] == "invalid_grant"
    assert not opens(http, answer["access_token"])


def test_a_gateway_that_does_not_know_its_name_asks_nobody(
    http: FlaskClient, services: Services, tool: Tool, ada: Member
) -> None:
    """RFC 9207: each answer names the issuer, and a Host header that anybody chooses is none."""
    answered = http.get("/oauth/authorize", query_string=tool.wish(), base_url="http://evil.example")

    assert answered.status_code == 421
    assert "ISSUER_UNSETTLED" in answered.text
    assert "Location" not in answered.headers


def test_a_refresh_token_and_a_code_open_no_door(http: FlaskClient, tool: Tool, ada: Member) -> None:
    """RFC 6749, 1.5: refresh tokens are for the authorization server alone."""
    code = code_for(http, tool)
    answer = exchange(http, tool, code).get_json()

    assert not opens(http, answer["refresh_token"])
    assert not opens(http, code)
