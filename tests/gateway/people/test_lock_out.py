"""Guessing is slow, and no stranger's guesses keep the owner out (issue 6, point 7; decision 0132)."""

from __future__ import annotations

import re
from dataclasses import replace
from datetime import timedelta
from threading import Event, Thread
from typing import Any

import pytest
from flask import Flask
from services.clock import FixedClock
from staff import CHEAP, AddMember, Browser, Member, NewBrowser, form_token

from gateway.auth.people.accounts import Proofs, change_person
from gateway.auth.people.attempts import known_browser, new_browser_cookie
from gateway.auth.people.passwords import Passwords
from gateway.auth.people.signing_in import EXTENSION
from gateway.auth.rate_limits import parse_limits
from gateway.auth.rules import LimitClass
from gateway.config import Config
from gateway.services import Services

ON_SQLITE = pytest.mark.parametrize("database_url", ["sqlite"], indirect=True)


@pytest.fixture
def config(config: Config) -> Config:
    """Behind a TLS front, with fewer attempts than usual: the tests are about who waits, not about how many."""
    limits = "sign_ins=4/minute;account_sign_ins=8/hour;auth_addresses=12/minute;account_codes=3/day"
    return replace(config, trusted_proxy="true", rate_limits=limits)


@pytest.fixture
def browser(app: Flask) -> NewBrowser:
    """Makes a browser somewhere in the world."""
    return lambda address="198.51.100.7", **headers: Browser(app.test_client(), address, headers, is_far=True)


def attack(browser: NewBrowser, target: Member, *, tries: int = 12) -> list[int]:
    """Guess the target's password, each time from another network; all that it takes is the owner's name."""
    bot = browser()
    token = form_token(bot.get("/console/sign-in"))
    statuses = []
    for number in range(tries):
        bot.address = f"203.0.{number}.5"
        guess = {"name": target.name, "password": f"guess number {number}", "code": "000000"}
        statuses.append(bot.post("/console/sign-in", guess | {"form_token": token}).status_code)
    return statuses


def leave_home(member: Member, browser: Browser, clock: FixedClock) -> None:
    """Sign in, so that the browser is known, and out again."""
    assert browser.sign_in(member).status_code == 303
    browser.send("/console/", "/console/sign-out")
    clock.advance(timedelta(seconds=30))


@ON_SQLITE
def test_a_botnet_cannot_keep_the_owner_out(
    member: AddMember, browser: NewBrowser, clock: FixedClock
) -> None:
    """The attack itself: strangers from many networks are made to wait; the owner's own browser is not."""
    ada, laptop = member(), browser("198.51.100.7")
    leave_home(ada, laptop, clock)

    answers = attack(browser, ada)

    assert answers == [403] * 7 + [429] * 5  # her own first visit was a stranger's
    assert laptop.sign_in(ada).status_code == 303


@ON_SQLITE
def test_a_botnet_with_a_browser_cookie_of_its_own_account_gains_nothing(
    member: AddMember, browser: NewBrowser, clock: FixedClock
) -> None:
    """The cookie is good for the account that it was given for, and for no other."""
    ada, mallory, theirs = member(), member("Mallory", role="auditor"), browser("203.0.113.9")
    leave_home(mallory, theirs, clock)
    attack(browser, ada)

    answer = theirs.sign_in(ada, password="a guess", code="000000")

    assert answer.status_code == 429


@ON_SQLITE
@pytest.mark.parametrize(
    "change",
    [
        lambda text: text[:-1] + ("0" if text[-1] != "0" else "1"),
        lambda text: "9" + text,
        lambda text: text.replace(".", ".0", 1),
        lambda text: text.rpartition(".")[0] + ".",
        lambda text: text * 30,
        lambda _text: "..",
        lambda _text: "9" * 150 + ".a.b",
    ],
)
def test_a_browser_cookie_cannot_be_made_up(
    member: AddMember, browser: NewBrowser, clock: FixedClock, change: Any
) -> None:
    """A changed cookie is a stranger's."""
    ada, laptop = member(), browser("198.51.100.7")
    leave_home(ada, laptop, clock)
    attack(browser, ada)

    laptop.put_cookie("flg_browser", change(laptop.cookie("flg_browser")))

    assert laptop.sign_in(ada).status_code == 429


@ON_SQLITE
def test_a_stolen_browser_cookie_guesses_no_faster(
    member: AddMember, browser: NewBrowser, clock: FixedClock
) -> None:
    """A known browser has a count of its own."""
    ada, laptop = member(), browser("198.51.100.7")
    leave_home(ada, laptop, clock)

    answers = [laptop.sign_in(ada, password="a guess", code="0").status_code for _ in range(6)]

    assert answers == [403] * 4 + [429] * 2


@ON_SQLITE
def test_a_browser_is_known_for_half_a_year(services: Services, clock: FixedClock) -> None:
    """A cookie that was copied long ago is a stranger's."""
    cookie = new_browser_cookie(services, "an account")

    known = []
    for days in (0, 179, 2):
        clock.advance(timedelta(days=days))
        known.append(known_browser(services, "an account", cookie) is not None)

    assert known == [True, True, False]


@ON_SQLITE
def test_one_network_alone_cannot_use_up_the_account_s_attempts(
    member: AddMember, browser: NewBrowser
) -> None:
    """What a network tries beyond its share does not count for the others: a new browser still comes in."""
    ada = member()
    near = [browser("203.0.113.9").sign_in(ada, password="a guess", code="0").status_code for _ in range(9)]

    assert near == [403] * 4 + [429] * 5
    assert browser("198.51.100.7").sign_in(ada).status_code == 303


@ON_SQLITE
def test_who_waits_long_enough_may_try_again(
    member: AddMember, browser: NewBrowser, clock: FixedClock
) -> None:
    """Nobody has to be unlocked by hand: the answer says how long to wait, and that is enough."""
    ada = member()
    attack(browser, ada)
    refused = browser("198.51.100.7").sign_in(ada)

    clock.advance(timedelta(seconds=int(refused.headers["Retry-After"])))

    assert "Try again in 60 minutes" in refused.text
    assert browser("198.51.100.7").sign_in(ada).status_code == 303


@ON_SQLITE
def test_names_that_nobody_has_wait_alike(member: AddMember, browser: NewBrowser) -> None:
    """Being made to wait tells no stranger that somebody has this name."""
    ada = member()
    nobody = Member(ada.services, "Nobody", "", "", None)

    assert attack(browser, ada) == attack(browser, nobody)


@ON_SQLITE
def test_a_waiting_attempt_is_an_entry(member: AddMember, browser: NewBrowser, entries: Any) -> None:
    """The log tells of an attack under way; a flood of one kind is folded (RULES 25)."""
    ada = member()

    attack(browser, ada)

    told = entries("user.refused")
    assert [entry["details"]["reason"] for entry in told] == ["SIGN_IN_REFUSED"] * 8 + ["SIGN_IN_WAITS"] * 4


@ON_SQLITE
def test_the_attempts_of_an_address_are_bounded_over_all_names(
    services: Services, member: AddMember, browser: NewBrowser
) -> None:
    """Guessing one password for many names: failures are counted by address too, and a right answer passes still."""
    ada, chrome = member(has_totp=False), browser("203.0.113.9")
    form = form_token(chrome.get("/console/sign-in"))
    statuses = [
        chrome.post(
            "/console/sign-in", {"name": f"n{n}", "password": "Summer", "form_token": form}
        ).status_code
        for n in range(14)
    ]

    assert statuses == [403] * 12 + [429] * 2
    assert chrome.sign_in(ada).status_code == 303


@ON_SQLITE
def test_strangers_who_keep_the_hasher_busy_do_not_keep_a_known_browser_waiting(
    app: Flask, member: AddMember, browser: NewBrowser, clock: FixedClock
) -> None:
    """Processor and memory are bounded: beyond the places there is 503, and known browsers have their own."""
    ada, laptop = member(), browser("198.51.100.7")
    leave_home(ada, laptop, clock)
    app.extensions[EXTENSION] = crowded = Passwords(CHEAP, waiting=1)
    inside, leave = Event(), Event()

    def stay() -> None:
        with crowded.place(is_known=False):
            inside.set()
            leave.wait(10)

    stranger = Thread(target=stay)
    stranger.start()
    assert inside.wait(10)
    try:
        turned_away, owner = browser("203.0.113.9").sign_in(ada), laptop.sign_in(ada)
    finally:
        leave.set()
        stranger.join()

    assert (turned_away.status_code, owner.status_code) == (503, 303)
    assert turned_away.headers["Retry-After"] == "2"


@ON_SQLITE
def test_a_stolen_password_does_not_open_the_second_factor_by_patience(
    services: Services,
    member: AddMember,
    browser: NewBrowser,
    passwords: Passwords,
    clock: FixedClock,
    entries: Any,
) -> None:
    """ASVS 2.2.1: 720 guesses a day at three codes of a million would open it within a year; few a day do not."""
    ada, laptop = member(), browser("198.51.100.7")
    leave_home(ada, laptop, clock)
    wrong = [browser(f"203.0.{n}.5").sign_in(ada, code="000000") for n in range(2)]
    clock.advance(timedelta(hours=2))

    right = browser("203.0.9.5").sign_in(ada)

    assert (right.status_code, right.headers.get("Retry-After")) == (403, None)
    shown = [re.sub(r'(?:value|nonce)="[^"]*"', "", answer.text) for answer in (*wrong, right)]
    assert len(set(shown)) == 1, "that the password was right is told"
    assert {entry["details"]["reason"] for entry in entries("user.refused")} == {"SECOND_FACTOR_REFUSED"}
    assert laptop.sign_in(ada).status_code == 303
    change_person(services, ada.user_id, Proofs(password="another horse entirely"), passwords=passwords)
    clock.advance(timedelta(seconds=30))
    assert browser("203.0.9.5").sign_in(ada, password="another horse entirely").status_code == 303


@ON_SQLITE
def test_a_new_password_is_no_way_around_the_wait(
    services: Services, member: AddMember, browser: NewBrowser, passwords: Passwords
) -> None:
    """The count goes with the name, whatever happens to the account."""
    ada = member()
    attack(browser, ada)

    change_person(services, ada.user_id, Proofs(password="another horse entirely"), passwords=passwords)

    assert browser("198.51.100.7").sign_in(ada, password="another horse entirely").status_code == 429


def test_guessing_is_slow_unless_the_operator_says_otherwise() -> None:
    """Ten a minute from one network or known browser, thirty an hour for one account from all strangers together."""
    limits = parse_limits("")

    assert (limits[LimitClass.SIGN_INS].count, limits[LimitClass.SIGN_INS].period_s) == (10, 60)
    assert (limits[LimitClass.ACCOUNT_SIGN_INS].count, limits[LimitClass.ACCOUNT_SIGN_INS].period_s) == (
        30,
        3600,
    )
    assert (limits[LimitClass.ACCOUNT_CODES].count, limits[LimitClass.ACCOUNT_CODES].period_s) == (30, 86_400)
