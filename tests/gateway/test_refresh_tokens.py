"""Refresh tokens: each once, for one client, as long as the person's consent lasts, and never for more than that."""

from __future__ import annotations

from collections.abc import Callable
from datetime import timedelta
from typing import Any

import pytest
from consent import Tool, add_somebody, add_tool, code_for, exchange, opens, refresh, sign_in, tokens_for
from flask.testing import FlaskClient
from services.clock import FixedClock
from sqlalchemy import select
from staff import CHEAP, Member

from gateway.auth.clients import Move, move_client
from gateway.auth.people.accounts import Move as PersonMove
from gateway.auth.people.accounts import Proofs, change_person, move_person
from gateway.auth.people.passwords import Passwords
from gateway.auth.scopes import Role
from gateway.services import Services
from gateway.tables import tokens

Entries = Callable[..., list[dict[str, Any]]]
pytestmark = pytest.mark.parametrize(
    "database_url", ["sqlite"], indirect=True
)  # both: test_token_families.py


@pytest.fixture
def tool(services: Services) -> Tool:
    """A third-party tool for operators."""
    return add_tool(services, "operator")


@pytest.fixture
def olga(services: Services, http: FlaskClient) -> Member:
    """An operator who is signed in."""
    person = add_somebody(services, "operator", "olga")
    sign_in(http, services, person)
    return person


def refused(answered: Any) -> str:
    """The error of a refusal."""
    assert answered.status_code == 400, answered.text
    assert answered.headers["Cache-Control"] == "no-store"
    return str(answered.get_json()["error"])


def test_each_use_gives_the_next_one(http: FlaskClient, tool: Tool, olga: Member, entries: Entries) -> None:
    """RFC 6749, 6; RFC 9700, 4.14.2: rotation; access tokens that are out stay good to their end."""
    first = tokens_for(http, tool)
    answered = refresh(http, tool, first["refresh_token"])
    second = answered.get_json()
    third = refresh(http, tool, second["refresh_token"]).get_json()

    assert answered.status_code == 200
    assert (answered.headers["Cache-Control"], answered.headers["Pragma"]) == ("no-store", "no-cache")
    assert set(second) == {"access_token", "token_type", "expires_in", "scope", "refresh_token"}
    assert len({one["refresh_token"] for one in (first, second, third)}) == 3
    assert all(opens(http, one["access_token"], "/api/v1/clients") for one in (first, second, third))
    told = entries("token.issued")[-1]["details"]
    assert (told["grant"], told["user_id"]) == ("refresh_token", olga.user_id)


def test_one_that_comes_again_ends_the_family(
    http: FlaskClient, tool: Tool, olga: Member, entries: Entries
) -> None:
    """RFC 9700, 4.14.2: thief or owner, nobody can tell: both lose all, once and with an alarm."""
    bystander = tokens_for(http, tool)
    first = tokens_for(http, tool)
    second = refresh(http, tool, first["refresh_token"]).get_json()

    again = refused(refresh(http, tool, first["refresh_token"]))
    later = refused(refresh(http, tool, second["refresh_token"]))
    once_more = refused(refresh(http, tool, first["refresh_token"]))

    assert {again, later, once_more} == {"invalid_grant"}
    for one in (first, second):
        assert not opens(http, one["access_token"], "/api/v1/clients")
    assert opens(http, bystander["access_token"], "/api/v1/clients")
    (alarm,) = entries("token.reused")
    assert alarm["details"] == {
        "kind": "refresh_token",
        "client_id": tool.client_id,
        "user_id": olga.user_id,
    }


def test_it_is_for_its_client_alone(http: FlaskClient, services: Services, tool: Tool, olga: Member) -> None:
    """RFC 6749, 10.4; RFC 9700, 2.2.2: bound to the client, which proves itself each time."""
    token = tokens_for(http, tool)["refresh_token"]
    other = add_tool(services, "operator")

    assert refused(refresh(http, other, token)) == "invalid_grant"
    assert refresh(http, Tool(tool.client_id, "wrong"), token).status_code == 401
    assert refresh(http, tool, token).status_code == 200


def test_a_used_one_in_another_tool_s_hands_ends_the_family_too(
    http: FlaskClient, services: Services, tool: Tool, olga: Member, entries: Entries
) -> None:
    """RFC 9700, 4.14.2: who shows it is a thief, or got it from one; the alarm names who showed it."""
    first = tokens_for(http, tool)
    second = refresh(http, tool, first["refresh_token"]).get_json()
    other = add_tool(services, "operator")

    shown = refused(refresh(http, other, first["refresh_token"]))

    assert shown == refused(refresh(http, tool, second["refresh_token"])) == "invalid_grant"
    assert not opens(http, second["access_token"], "/api/v1/clients")
    (alarm,) = entries("token.reused")
    assert alarm["details"]["client_id"] == other.client_id
    assert alarm["details"]["user_id"] == olga.user_id


def test_the_scope_may_shrink_and_never_grow(
    http: FlaskClient, services: Services, tool: Tool, olga: Member
) -> None:
    """RFC 6749, 6: at most what was allowed; the next refresh token still has all of it."""
    token = tokens_for(http, tool, scope="client:manage round:manage")["refresh_token"]

    for beyond in ("client:manage client:register", "audit:read", "openid", "privacy:*"):
        assert refused(refresh(http, tool, token, scope=beyond)) == "invalid_scope"
    fewer = refresh(http, tool, token, scope="round:manage").get_json()
    all_again = refresh(http, tool, fewer["refresh_token"], scope="").get_json()

    assert (fewer["scope"], all_again["scope"]) == ("round:manage", "client:manage round:manage")
    assert not opens(http, fewer["access_token"], "/api/v1/clients")


def test_it_ends_with_the_consent_however_often_it_was_exchanged(
    http: FlaskClient, services: Services, clock: FixedClock, tool: Tool, olga: Member
) -> None:
    """Decision 0129: an absolute end, `refresh_ttl_s` after the person said yes."""
    token = tokens_for(http, tool)["refresh_token"]
    half = timedelta(seconds=services.config.refresh_ttl_s / 2)

    clock.advance(half)
    token = refresh(http, tool, token).get_json()["refresh_token"]
    clock.advance(half - timedelta(seconds=1))
    token = refresh(http, tool, token).get_json()["refresh_token"]
    clock.advance(timedelta(seconds=1))

    assert refused(refresh(http, tool, token)) == "invalid_grant"


@pytest.mark.parametrize("text", ["", "x", "flg_refresh_" + "A" * 43, "x" * 10_000])
def test_what_is_no_refresh_token_opens_nothing(
    http: FlaskClient, tool: Tool, olga: Member, text: str
) -> None:
    """RFC 6749, 5.2."""
    access = tokens_for(http, tool)["access_token"]

    assert refused(refresh(http, tool, text)) == ("invalid_grant" if text else "invalid_request")
    assert refused(refresh(http, tool, access)) == "invalid_grant"


def suspend(services: Services, tool: Tool, person: Member) -> None:
    """The person is suspended."""
    move_person(services, person.user_id, PersonMove.SUSPEND)


def give_another_role(services: Services, tool: Tool, person: Member) -> None:
    """The person becomes an auditor."""
    change_person(services, person.user_id, Proofs(), role=Role.AUDITOR, passwords=Passwords(CHEAP))


def give_another_password(services: Services, tool: Tool, person: Member) -> None:
    """The person's password was known to somebody, and is another now."""
    change_person(services, person.user_id, Proofs("another horse entirely"), passwords=Passwords(CHEAP))


def revoke(services: Services, tool: Tool, person: Member) -> None:
    """The tool is revoked."""
    move_client(services, tool.client_id, Move.REVOKE)


@pytest.mark.parametrize("change", [suspend, give_another_role, give_another_password, revoke])
def test_a_family_ends_with_the_access_of_its_person_and_its_tool(
    http: FlaskClient,
    services: Services,
    tool: Tool,
    olga: Member,
    change: Callable[[Services, Tool, Member], None],
) -> None:
    """Nobody acts for who may not act, and nothing of it is left in the table."""
    answer = tokens_for(http, tool)

    change(services, tool, olga)

    assert refresh(http, tool, answer["refresh_token"]).status_code in (400, 401)
    assert not opens(http, answer["access_token"], "/api/v1/clients")
    with services.engine.connect() as conn:
        assert conn.execute(select(tokens)).all() == []


def test_a_suspended_tool_gets_nothing_until_it_is_resumed(
    http: FlaskClient, services: Services, tool: Tool, olga: Member
) -> None:
    """RFC 6749, 5.2: invalid_client; what the person allowed is not forgotten."""
    answer = tokens_for(http, tool)
    move_client(services, tool.client_id, Move.SUSPEND)
    shut = refresh(http, tool, answer["refresh_token"])
    move_client(services, tool.client_id, Move.RESUME)

    assert (shut.status_code, shut.get_json()["error"]) == (401, "invalid_client")
    assert refresh(http, tool, answer["refresh_token"]).status_code == 200


def test_signing_out_ends_no_tool(http: FlaskClient, tool: Tool, olga: Member) -> None:
    """A tool acts while its person sleeps, until the consent is over."""
    code = code_for(http, tool)
    http.delete_cookie("flg_session")

    token = exchange(http, tool, code).get_json()["refresh_token"]

    assert refresh(http, tool, token).status_code == 200
