"""Accounts of people: what an operator changes, what ends with it, what is written down, exported and erased."""

from __future__ import annotations

import json
import threading
from typing import Any

import pytest
from flask import Flask
from services.clock import FixedClock
from sqlalchemy import func, select
from staff import CHEAP, PASSWORD, AddMember, Browser, NewBrowser, form_token

from audit.draft import Personal
from gateway.auth.people.accounts import (
    Account,
    Move,
    NameTaken,
    Proofs,
    add_person,
    change_person,
    move_person,
)
from gateway.auth.people.passwords import Passwords
from gateway.auth.people.person import BadName, list_people, person_of
from gateway.auth.people.place import PeoplePlace
from gateway.auth.scopes import Role
from gateway.errors import Conflict, NotFound
from gateway.privacy import privacy_desk
from gateway.services import Services
from gateway.tables import sessions, users

ON_SQLITE = pytest.mark.parametrize("database_url", ["sqlite"], indirect=True)
OFFICER = Personal("system", "officer")


def counted(services: Services, table: Any) -> int:
    """How many rows a table has."""
    with services.engine.connect() as conn:
        return int(conn.execute(select(func.count()).select_from(table)).scalar_one())


def test_an_account_lives_and_ends_on_either_database(
    services: Services,
    member: AddMember,
    passwords: Passwords,
    browser: NewBrowser,
    clock: FixedClock,
    entries: Any,
) -> None:
    """Added, signed in, changed, suspended, resumed, revoked: rows and entries, on SQLite and PostgreSQL."""
    ada, chrome = member("Ada", role="dpo"), browser()
    assert chrome.sign_in(ada).status_code == 303
    with pytest.raises(NameTaken):
        member("ADA")

    changed = change_person(
        services, ada.user_id, Proofs(has_totp=False), role=Role.AUDITOR, passwords=passwords
    )

    assert (changed.role, changed.totp_secret) == (Role.AUDITOR, None)
    assert not chrome.is_in()
    assert chrome.sign_in(ada, code="").status_code == 303
    for move in (Move.SUSPEND, Move.SUSPEND, Move.RESUME, Move.REVOKE):
        move_person(services, ada.user_id, move)
    with pytest.raises(Conflict):
        move_person(services, ada.user_id, Move.RESUME)
    assert person_of(services, ada.user_id) is None
    told = [entry["details"] for entry in entries("user.changed")]
    assert [(one["changed"], one.get("status")) for one in told] == [
        (["second_factor", "role"], None),
        (["status"], "suspended"),
        (["status"], "active"),
        (["status"], "revoked"),
    ]
    assert entries("user.added")[0]["details"] == {
        "user_id": ada.user_id,
        "role": "dpo",
        "auth": "password+totp",
    }
    assert "user_id" in entries("user.added")[0]["sealed"]


@pytest.mark.parametrize("database_url", ["sqlite", "postgresql"], indirect=True)
def test_one_code_sent_twice_at_once_opens_once(
    services: Services, app: Flask, member: AddMember, browser: NewBrowser
) -> None:
    """A thief who sees the code and sends it at the same moment: one of both comes in, on either database."""
    ada = member()
    browsers = [browser() for _ in range(6)]
    fields = {"name": ada.name, "password": ada.password, "code": ada.code()}
    tokens = [form_token(one.get("/console/sign-in")) for one in browsers]
    start, statuses = threading.Barrier(len(browsers)), []
    app.extensions["fl_gateway_passwords"] = Passwords(CHEAP, waiting=len(browsers))

    def send(one: Browser, token: str) -> None:
        start.wait(10)
        statuses.append(one.post("/console/sign-in", fields | {"form_token": token}).status_code)

    threads = [threading.Thread(target=send, args=pair) for pair in zip(browsers, tokens, strict=True)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

    assert sorted(statuses) == [303] + [403] * 5
    assert counted(services, sessions) == 1


@ON_SQLITE
@pytest.mark.parametrize(
    "change", [Proofs(password="another horse entirely"), Proofs(has_totp=True), Proofs(outside=("i", "s"))]
)
def test_who_is_changed_while_signing_in_does_not_come_in(
    services: Services, app: Flask, member: AddMember, browser: NewBrowser, change: Proofs
) -> None:
    """A stolen code that is being looked at while the operator gives a new secret begins no session after that."""
    ada, chrome = member(), browser()

    class Slow(Passwords):
        def is_right(self, password: str, stored: str | None, *, is_known: bool) -> bool:
            right = super().is_right(password, stored, is_known=is_known)
            change_person(services, ada.user_id, change, passwords=Passwords(CHEAP))
            return right

    app.extensions["fl_gateway_passwords"] = Slow(CHEAP)

    assert chrome.sign_in(ada).status_code == 403
    assert counted(services, sessions) == 0


@ON_SQLITE
def test_an_erasure_counts_all_that_it_ends(
    services: Services, member: AddMember, browser: NewBrowser
) -> None:
    """Art. 17: the receipt's number is that of the rows, sessions too."""
    ada, chrome, place = member(), browser(), PeoplePlace(services)
    chrome.sign_in(ada)

    assert place.erase(ada.subject_id).rows == 2
    assert place.count(ada.subject_id) == 0


@ON_SQLITE
def test_what_cannot_be_an_account_is_refused(services: Services, passwords: Passwords) -> None:
    """No machine's role, no proof, no name: and nothing is left behind."""
    right = Proofs(PASSWORD, has_totp=True)
    for name, role, proofs, error in (
        ("Ada", Role.PARTICIPANT, right, Conflict),
        ("Ada", Role.DPO, Proofs(), Conflict),
        (" ", Role.DPO, right, BadName),
        ("a\nb", Role.DPO, right, BadName),
        ("x" * 201, Role.DPO, right, BadName),
    ):
        with pytest.raises(error):
            add_person(services, name, role, proofs, passwords=passwords)

    assert counted(services, users) == 0


@ON_SQLITE
def test_what_would_change_nothing_is_refused(
    services: Services, member: AddMember, passwords: Passwords
) -> None:
    """A typing error is told, not carried out."""
    ada = member()
    outside = add_person(
        services, "Eve", Role.DPO, Proofs(outside=("https://a.example", "e")), passwords=passwords
    )
    taken = Proofs(outside=("https://a.example", "e"))

    for user_id, proofs, role, error in (
        (ada.user_id, Proofs(), None, Conflict),
        (ada.user_id, Proofs(), Role.OPERATOR, Conflict),
        (ada.user_id, Proofs(), Role.SIEM, Conflict),
        (ada.user_id, taken, None, NameTaken),
        (outside.user_id, Proofs(has_totp=True), None, Conflict),
        ("nobody", Proofs(), Role.DPO, NotFound),
    ):
        with pytest.raises(error):
            change_person(services, user_id, proofs, role=role, passwords=passwords)


@ON_SQLITE
def test_a_secret_is_in_no_repr(services: Services, member: AddMember, passwords: Passwords) -> None:
    """RULES 30: what is logged by accident names nobody and opens nothing."""
    account = add_person(
        services, "Ada Lovelace", Role.DPO, Proofs(PASSWORD, has_totp=True), passwords=passwords
    )
    person = person_of(services, account.user_id)

    shown = repr((account, person, Proofs(PASSWORD, has_totp=True), list_people(services)))

    assert isinstance(account, Account)
    assert account.totp_secret is not None
    assert not [text for text in (PASSWORD, account.totp_secret, "Lovelace") if text in shown]


@ON_SQLITE
def test_staff_are_exported_and_erased_like_anybody(
    services: Services, member: AddMember, browser: NewBrowser, entries: Any
) -> None:
    """Art. 15 and 17: account and sessions go with the keys; what was done stays in the log (RULES 19)."""
    ada, bob, chrome, place = member("Ada Canary"), member("Bob"), browser(), PeoplePlace(services)
    chrome.sign_in(ada)
    files = {part.category: [dict(row) for row in part.rows] for part in place.export(ada.subject_id)}
    desk = privacy_desk(services)
    case = desk.open("erasure", ada.subject_id, requested_by=OFFICER).id
    desk.approve(case, by=OFFICER)

    erased = desk.run(case)

    assert erased.status == "completed"
    assert entries("user.signed_in")[0]["actor"] == {"user_id": ada.user_id, "role": "operator"}
    assert files["staff_accounts"][0]["name"] == "Ada Canary"
    assert files["staff_sessions"][0]["method"] == "password"
    assert "totp" not in json.dumps(files).replace("has_second_factor", "")
    assert place.count(ada.subject_id) == 0
    assert not chrome.is_in()
    assert browser().sign_in(ada).status_code == 403
    assert [person.name for person in list_people(services)] == ["Bob"]
    assert place.count(bob.subject_id) == 1
