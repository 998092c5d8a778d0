"""What follows from one consent, under races, on SQLite and PostgreSQL: ended is ended, whoever was faster."""

from __future__ import annotations

import threading
from collections.abc import Callable
from datetime import timedelta
from functools import partial
from typing import Any

import pytest
from authlib.oauth2.rfc6749.errors import AccessDeniedError
from consent import Tool, add_somebody, add_tool, code_for, exchange, opens, refresh, sign_in, tokens_for
from flask import Flask
from flask.testing import FlaskClient
from services.clock import FixedClock
from sqlalchemy import Table, func, select
from staff import CHEAP, Member
from werkzeug.test import TestResponse

from gateway.auth.client_changes import ClientChange, change_client
from gateway.auth.clients import Move, move_client
from gateway.auth.grants.codes import CODE_TTL
from gateway.auth.grants.families import Family, FamilyEnded, hold_family, hold_parties
from gateway.auth.people import person_of, signed_in
from gateway.auth.people.accounts import Move as PersonMove
from gateway.auth.people.accounts import Proofs, change_person, move_person
from gateway.auth.people.cookies import Cookie
from gateway.auth.people.passwords import Passwords
from gateway.auth.people.place import PeoplePlace
from gateway.auth.proof import ClientRefused, find_client
from gateway.auth.scopes import Role
from gateway.auth.server import server
from gateway.auth.tokens import purge_expired
from gateway.places import ClientsPlace
from gateway.services import Services
from gateway.tables import authorization_codes, tokens

Entries = Callable[..., list[dict[str, Any]]]
Act = Callable[[FlaskClient], Any]
Change = Callable[[Services, Tool, Member], None]


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


def at_once(app: Flask, *acts: Act) -> list[Any]:
    """Do them in as many threads at the same moment; the results in the order of the acts."""
    gate, results = threading.Barrier(len(acts)), [None] * len(acts)

    def run(number: int) -> None:
        one = app.test_client()
        gate.wait()
        results[number] = acts[number](one)

    threads = [threading.Thread(target=run, args=(number,)) for number in range(len(acts))]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return results


def exchanging(tool: Tool, code: str) -> Act:
    """Exchange that code."""
    return lambda one: exchange(one, tool, code)


def refreshing(tool: Tool, token: str) -> Act:
    """Exchange that refresh token."""
    return lambda one: refresh(one, tool, token)


def rows_of(services: Services, table: Table) -> int:
    """How many rows it has."""
    with services.engine.connect() as conn:
        return int(conn.scalar(select(func.count()).select_from(table)) or 0)


def good(results: list[TestResponse | None]) -> list[dict[str, Any]]:
    """The answers of those that went well; each other one says invalid_grant."""
    found = [result for result in results if result is not None]
    bad = [result.get_json()["error"] for result in found if result.status_code != 200]
    assert set(bad) <= {"invalid_grant"}
    return [result.get_json() for result in found if result.status_code == 200]


def test_of_two_exchanges_at_once_one_succeeds_and_nothing_is_left(
    app: Flask, services: Services, tool: Tool, ada: Member, http: FlaskClient, entries: Entries
) -> None:
    """Decision 0128: a code in two hands at the same moment; exactly one answer, whose tokens are dead."""
    for _ in range(5):
        code = code_for(http, tool)

        (answer,) = good(at_once(app, *[exchanging(tool, code)] * 2))

        assert not opens(http, answer["access_token"])
        assert refresh(http, tool, answer["refresh_token"]).status_code == 400
    assert rows_of(services, tokens) == 0
    assert len(entries("token.reused")) == len(entries("token.issued")) == 5


def test_of_two_refreshes_at_once_one_succeeds_and_nothing_is_left(
    app: Flask, services: Services, tool: Tool, ada: Member, http: FlaskClient, entries: Entries
) -> None:
    """Decision 0129: a refresh token in two hands at the same moment; exactly one answer, whose tokens are dead."""
    for _ in range(5):
        first = tokens_for(http, tool)

        (answer,) = good(at_once(app, *[refreshing(tool, first["refresh_token"])] * 2))

        for token in (first["access_token"], answer["access_token"]):
            assert not opens(http, token)
        assert refresh(http, tool, answer["refresh_token"]).status_code == 400
    assert rows_of(services, tokens) == 0
    assert len(entries("token.reused")) == 5


def test_no_token_outlives_a_revocation_that_came_at_the_same_moment(
    app: Flask, services: Services, tool: Tool, ada: Member, http: FlaskClient
) -> None:
    """RFC 7009, 2.1: the family of a revoked refresh token is dead, also if it grew at that moment."""
    for _ in range(6):
        token = tokens_for(http, tool)["refresh_token"]
        ended, _ = at_once(
            app,
            lambda one, token=token: one.post("/oauth/revoke", data={"token": token}, auth=tool.auth),
            refreshing(tool, token),
        )
        assert ended.status_code == 200
        if rows_of(
            services, tokens
        ):  # refreshed first: what was revoked had been used, and ends all the same
            pytest.fail("a token outlived the revocation")


@pytest.mark.parametrize("end", ["person", "client"])
def test_no_token_outlives_an_access_that_ended_at_the_same_moment(
    app: Flask, services: Services, http: FlaskClient, end: str
) -> None:
    """A suspended person's and a revoked client's families are dead, also if they grew at that moment; none hangs."""
    for number in range(4):
        tool, person = add_tool(services), add_somebody(services, name=f"ada {number}")
        sign_in(http, services, person)
        code, token = code_for(http, tool), tokens_for(http, tool)["refresh_token"]

        def stop(_one: FlaskClient, tool: Tool = tool, person: Member = person) -> None:
            if end == "person":
                move_person(services, person.user_id, PersonMove.SUSPEND)
            else:
                move_client(services, tool.client_id, Move.REVOKE)

        results = at_once(app, stop, refreshing(tool, token), exchanging(tool, code))

        for result in results[1:]:
            assert result.status_code in (200, 400, 401), result.text
        assert rows_of(services, tokens) == 0


def suspend_person(services: Services, _tool: Tool, person: Member) -> None:
    """The person is suspended."""
    move_person(services, person.user_id, PersonMove.SUSPEND)


def give_another_role(services: Services, _tool: Tool, person: Member) -> None:
    """The person becomes an operator."""
    change_person(services, person.user_id, Proofs(), role=Role.OPERATOR, passwords=Passwords(CHEAP))


def give_another_password(services: Services, _tool: Tool, person: Member) -> None:
    """The person's password was known to somebody, and is another now."""
    change_person(services, person.user_id, Proofs("another horse entirely"), passwords=Passwords(CHEAP))


def suspend_tool(services: Services, tool: Tool, _person: Member) -> None:
    """The tool is suspended."""
    move_client(services, tool.client_id, Move.SUSPEND)


def give_another_secret(services: Services, tool: Tool, _person: Member) -> None:
    """The tool's secret was known to somebody, and is another now."""
    change_client(services, tool.client_id, ClientChange(rotates_secret=True))


@pytest.mark.parametrize(
    "change", [suspend_person, give_another_role, suspend_tool, give_another_secret], ids=lambda c: c.__name__
)
def test_who_was_judged_is_judged_again_where_the_token_is_stored(
    services: Services, tool: Tool, ada: Member, change: Change
) -> None:
    """Between the judgement and the commit everything may change: what is held is what counts then."""
    client, person = find_client(services, tool.client_id), person_of(services, ada.user_id)
    assert client is not None
    assert person is not None
    with services.engine.begin() as conn:
        hold_parties(conn, client, person)

    change(services, tool, ada)

    with services.engine.begin() as conn, pytest.raises((FamilyEnded, ClientRefused)):
        hold_parties(conn, client, person)


@pytest.mark.parametrize("change", [suspend_person, give_another_role, give_another_password, suspend_tool])
def test_no_code_is_given_for_a_session_that_ended_while_it_was_made(
    app: Flask, services: Services, tool: Tool, ada: Member, http: FlaskClient, change: Change
) -> None:
    """Who was shut out, in that very moment, allows nothing more: a code would outlive the new password."""
    cookie = http.get_cookie(Cookie.SESSION.value)
    assert cookie is not None
    way = {"method": "POST", "data": tool.wish(), "headers": {"Cookie": f"{cookie.key}={cookie.value}"}}
    with app.test_request_context("/oauth/authorize", **way):
        app.preprocess_request()
        grant, person = server.get_consent_grant(), signed_in()

        change(services, tool, ada)

        with pytest.raises((AccessDeniedError, ClientRefused)):
            grant.create_authorization_response(grant.redirect_uri, person)
    assert rows_of(services, authorization_codes) == 0


@pytest.mark.parametrize("database_url", ["postgresql"], indirect=True)
@pytest.mark.parametrize("whose", ["person", "client"])
def test_an_erasure_locks_in_the_order_of_the_grants(
    services: Services, tool: Tool, ada: Member, http: FlaskClient, whose: str
) -> None:
    """A refresh that is under way ends, then the erasure goes on: neither waits for the other in a ring."""
    tokens_for(http, tool)
    client, person = find_client(services, tool.client_id), person_of(services, ada.user_id)
    assert client is not None
    assert person is not None
    with services.engine.connect() as conn:
        row = conn.execute(select(authorization_codes)).one()
    family = Family(row.family_id, row.client_id, row.user_id, row.scope, row.expires_at)
    place = PeoplePlace(services) if whose == "person" else ClientsPlace(services)
    erasing = threading.Thread(
        target=place.erase, args=((person if whose == "person" else client).subject_id,)
    )

    with services.engine.begin() as conn:
        hold_parties(conn, client, person)
        erasing.start()
        erasing.join(0.3)
        hold_family(conn, family)
        held = conn.execute(select(tokens).with_for_update()).all()
    erasing.join(10)

    assert len(held) == 2
    assert rows_of(services, tokens) == 0


def test_a_chain_of_refreshes_at_full_speed_is_one_family(
    app: Flask, services: Services, tool: Tool, ada: Member, http: FlaskClient
) -> None:
    """Two people's families at once do not disturb each other."""
    chains = [tokens_for(http, tool)["refresh_token"] for _ in range(2)]

    def run(token: str, one: FlaskClient) -> str:
        for _ in range(5):
            token = refresh(one, tool, token).get_json()["refresh_token"]
        return token

    ends = at_once(app, *(partial(run, token) for token in chains))

    assert all(refresh(http, tool, token).status_code == 200 for token in ends)


def test_codes_go_when_their_families_are_over(
    services: Services, clock: FixedClock, tool: Tool, ada: Member, http: FlaskClient
) -> None:
    """A used code is kept as long as anything may follow from it, and no longer."""
    tokens_for(http, tool)
    code_for(http, tool)
    clock.advance(timedelta(seconds=services.config.refresh_ttl_s))
    purge_expired(services)
    kept = rows_of(services, authorization_codes)

    clock.advance(CODE_TTL)
    purge_expired(services)

    assert (kept, rows_of(services, authorization_codes)) == (2, 0)
