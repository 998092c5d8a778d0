"""Signing in and out: what the pages take, what they tell, what they write down (issue 6, point 7)."""

from __future__ import annotations

import re
from datetime import timedelta
from typing import Any

import pytest
from services.clock import FixedClock
from sqlalchemy import func, select
from staff import AddMember, NewBrowser

from gateway.auth.people.accounts import Move, Proofs, change_person, move_person
from gateway.auth.people.passwords import Passwords
from gateway.auth.people.person import open_of_person
from gateway.services import Services
from gateway.tables import sessions, users

pytestmark = pytest.mark.parametrize("database_url", ["sqlite"], indirect=True)


def test_a_person_signs_in_with_name_password_and_code(
    member: AddMember, browser: NewBrowser, entries: Any
) -> None:
    """A session begins, the browser is sent on, and the log names the person and how it proved itself."""
    ada, chrome = member("Ada", role="dpo"), browser()

    answer = chrome.sign_in(ada)

    assert (answer.status_code, answer.location) == (303, "/console/")
    page = chrome.get("/console/")
    assert "Ada" in page.text
    assert "Data-protection officer" in page.text
    told = entries("user.signed_in")[0]
    assert told["actor"] == {"user_id": ada.user_id, "role": "dpo"}
    assert told["details"] == {"auth": "password+totp"}
    assert told["ip_address"] == "127.0.0.1"


def test_names_and_passwords_are_the_same_from_every_keyboard(
    services: Services, member: AddMember, browser: NewBrowser, passwords: Passwords
) -> None:
    """RFC 8265: composed and decomposed accents, odd blanks, large and small letters of a name."""
    zoe = member("Zoë")
    change_person(services, zoe.user_id, Proofs(password="été à la plage"), passwords=passwords)
    typed = "e\u0301te\u0301\u00a0a\u0300 la\u2003plage"

    answer = browser().send(
        "/console/sign-in", "/console/sign-in", name="ZOE\u0308 ", password=typed, code=zoe.code()
    )

    assert answer.status_code == 303


@pytest.mark.parametrize(
    "wrong",
    [
        {"name": "Bob"},
        {"name": ""},
        {"name": "x" * 5000},
        {"password": "a horse of another color"},
        {"password": ""},
        {"password": "p" * 5000},
        {"password": "\ud83d\udca9 \x00"},
        {"code": "000000"},
        {"code": ""},
        {"code": "\uff19" * 6},
        {"name": "Ada", "password": "wrong for a long time", "code": "1"},
    ],
    ids=lambda wrong: "-".join(wrong),
)
def test_whatever_was_wrong_gets_the_same_answer(
    member: AddMember, browser: NewBrowser, entries: Any, wrong: dict[str, str]
) -> None:
    """The page does not tell which of the three was wrong, nor whether anybody has that name."""
    ada = member()
    typed = {"name": ada.name, "password": ada.password, "code": ada.code()}
    typed |= {name: value.encode("utf-8", "replace").decode() for name, value in wrong.items()}

    answer = browser().send("/console/sign-in", "/console/sign-in", **typed)

    assert answer.status_code == 403
    shown = re.sub(r'value="[^"]*"', "", answer.text)
    assert "The name, the password or the code is wrong" in shown
    assert "Ada" not in answer.text
    assert not entries("user.signed_in")


def test_all_refusals_look_the_same_byte_for_byte(member: AddMember, browser: NewBrowser) -> None:
    """A stranger learns from a refusal nothing of who has an account; only the policy's nonce is new each time."""
    ada = member()
    chrome = browser()

    answers = [
        chrome.send("/console/sign-in", "/console/sign-in", name=name, password=password, code=code)
        for name, password, code in (
            ("Bob", ada.password, "000000"),
            (ada.name, "not this password", ada.code()),
            (ada.name, ada.password, "000000"),
        )
    ]

    pages = [re.sub(r'nonce="[\w-]{24}"', "", answer.text) for answer in answers]
    assert len({(answer.status_code, page) for answer, page in zip(answers, pages, strict=True)}) == 1


def test_a_refusal_is_an_entry_without_name_and_password(
    member: AddMember, browser: NewBrowser, entries: Any
) -> None:
    """RULES 25, 30: the account is named for who may open it; what was typed stands nowhere."""
    ada = member("Ada Lovelace")

    browser().sign_in(ada, password="my bank's password")

    told = entries("user.refused")[0]
    assert told["details"]["reason"] == "SIGN_IN_REFUSED"
    assert told["details"]["claimed_user_id"] == ada.user_id
    assert "claimed_user_id" in told["sealed"]
    assert told["actor"] == "unproven"
    assert not [text for text in ("Lovelace", "bank") if text in str(told)]


def test_a_code_opens_once(member: AddMember, browser: NewBrowser) -> None:
    """RFC 6238, section 5.2: the second use of a code is refused, from this or another browser."""
    ada = member()
    code = ada.code()

    first, second = browser().sign_in(ada, code=code), browser().sign_in(ada, code=code)

    assert (first.status_code, second.status_code) == (303, 403)


def test_a_code_of_before_a_used_one_is_refused(
    member: AddMember, browser: NewBrowser, clock: FixedClock
) -> None:
    """Steps are taken in order: an older code that somebody saw is worth nothing after a newer one."""
    ada = member()

    newer, older = browser().sign_in(ada), browser().sign_in(ada, code=ada.code(steps=-1))
    clock.advance(timedelta(seconds=30))
    next_one = browser().sign_in(ada)

    assert (newer.status_code, older.status_code, next_one.status_code) == (303, 403, 303)


@pytest.mark.parametrize(("steps", "status"), [(-2, 403), (-1, 303), (1, 303), (2, 403)])
def test_a_clock_may_be_half_a_minute_off(
    member: AddMember, browser: NewBrowser, steps: int, status: int
) -> None:
    """One step on either side is taken, and no more."""
    ada = member()

    assert browser().sign_in(ada, code=ada.code(steps=steps)).status_code == status


def test_a_wrong_password_does_not_use_up_the_code(member: AddMember, browser: NewBrowser) -> None:
    """Who mistypes the password tries again with the code that is still shown."""
    ada, chrome = member(), browser()

    chrome.sign_in(ada, password="a horse of an other colour")

    assert chrome.sign_in(ada).status_code == 303


def test_a_person_without_second_factor_needs_no_code(
    member: AddMember, browser: NewBrowser, entries: Any
) -> None:
    """`--no-totp`: the log says that a password was all."""
    ada = member(has_totp=False)

    assert browser().sign_in(ada).status_code == 303
    assert entries("user.signed_in")[0]["details"] == {"auth": "password"}


@pytest.mark.parametrize("move", [Move.SUSPEND, Move.REVOKE])
def test_who_is_shut_out_is_out_at_once_and_stays_out(
    services: Services, member: AddMember, browser: NewBrowser, clock: FixedClock, move: Move
) -> None:
    """Suspending or revoking ends every session, and the right password is answered like a wrong one."""
    ada, chrome = member(), browser()
    chrome.sign_in(ada)
    assert chrome.is_in()

    move_person(services, ada.user_id, move)

    assert not chrome.is_in()
    clock.advance(timedelta(seconds=30))
    assert chrome.sign_in(ada).status_code == 403


def test_a_session_is_over_after_its_time(
    services: Services, member: AddMember, browser: NewBrowser, clock: FixedClock
) -> None:
    """`FLG_SESSION_TTL_S`: however busy the person was."""
    ada, chrome = member(), browser()
    chrome.sign_in(ada)

    lasted = 0
    while chrome.is_in():
        clock.advance(timedelta(minutes=20))
        lasted += 1

    assert lasted == services.config.session_ttl_s // 1200


def test_an_idle_session_is_over_sooner(member: AddMember, browser: NewBrowser, clock: FixedClock) -> None:
    """`FLG_SESSION_IDLE_S`: who did nothing for half an hour signs in anew; who did something goes on."""
    ada, chrome, idle = member(), browser(), browser()
    chrome.sign_in(ada)
    clock.advance(timedelta(seconds=30))
    idle.sign_in(ada)

    clock.advance(timedelta(minutes=29))
    assert chrome.is_in()
    clock.advance(timedelta(minutes=2))

    assert (chrome.is_in(), idle.is_in()) == (True, False)


def test_being_there_is_written_once_a_minute(
    services: Services, member: AddMember, browser: NewBrowser, clock: FixedClock
) -> None:
    """Reading pages does not write to the database each time."""
    ada, chrome = member(), browser()
    chrome.sign_in(ada)
    seen = []

    for _ in range(4):
        clock.advance(timedelta(seconds=25))
        chrome.get("/console/")
        with services.engine.connect() as conn:
            seen.append(conn.execute(select(sessions.c.seen_at)).scalar_one())

    assert len(set(seen)) == 2


def test_a_session_begins_anew_at_each_sign_in(
    services: Services, member: AddMember, browser: NewBrowser, clock: FixedClock
) -> None:
    """No fixation: a cookie from before does not become the session, and the browser's old session ends."""
    ada, chrome = member(), browser()
    chrome.put_cookie("flg_session", "planted" * 6)
    chrome.sign_in(ada)
    first = chrome.cookie("flg_session")
    clock.advance(timedelta(seconds=30))
    token = chrome.get("/console/")  # the form of a page that is open in another tab
    chrome.post("/console/sign-out", {"form_token": re.findall(r'value="([0-9a-f]{64})"', token.text)[0]})

    assert first not in ("", "planted" * 6)
    with services.engine.connect() as conn:
        assert conn.execute(select(func.count()).select_from(sessions)).scalar_one() == 0


def test_signing_in_again_ends_the_session_of_before(
    services: Services, member: AddMember, browser: NewBrowser, clock: FixedClock
) -> None:
    """One browser has one session."""
    ada, bob, chrome = member(), member("Bob"), browser()
    page = chrome.get("/console/sign-in")
    chrome.sign_in(ada)
    old = chrome.cookie("flg_session")
    chrome.http.delete_cookie("flg_session", domain="localhost")
    fields = {"name": bob.name, "password": bob.password, "code": bob.code()}
    form = chrome.get("/console/sign-in")
    chrome.put_cookie("flg_session", old)

    # the form was tied to the form cookie, and the browser now sends the session's: so it is refused
    refused = chrome.post("/console/sign-in", fields | {"form_token": _token(form)})
    chrome.post("/console/sign-in", fields | {"form_token": _token(refused)})

    assert page.status_code == 200
    with services.engine.connect() as conn:
        assert conn.execute(select(sessions.c.user_id)).scalars().all() == [bob.user_id]


def _token(page: Any) -> str:
    found = re.search(r'name="form_token" value="([0-9a-f]{64})"', page.text)
    assert found
    return found[1]


def test_signing_out_ends_the_session_in_the_database(
    services: Services, member: AddMember, browser: NewBrowser, entries: Any
) -> None:
    """A copied cookie is worth nothing afterwards."""
    ada, chrome = member(), browser()
    chrome.sign_in(ada)
    copied = chrome.cookie("flg_session")

    answer = chrome.send("/console/", "/console/sign-out")

    thief = browser()
    thief.put_cookie("flg_session", copied)
    assert (answer.status_code, answer.location) == (303, "/console/sign-in")
    assert not chrome.is_in()
    assert not thief.is_in()
    assert entries("user.signed_out")[0]["actor"] == {"user_id": ada.user_id, "role": "operator"}


def test_a_password_kept_at_another_cost_is_hashed_anew_at_sign_in(
    services: Services, app: Any, member: AddMember, browser: NewBrowser
) -> None:
    """RFC 9106: parameters can be raised, and every account follows when its person comes."""
    from gateway.auth.people.passwords import Cost
    from gateway.auth.people.signing_in import EXTENSION

    ada = member()
    app.extensions[EXTENSION] = Passwords(Cost(time=2, memory_kib=16, lanes=1))

    assert browser().sign_in(ada).status_code == 303

    with services.engine.connect() as conn:
        row = conn.execute(select(users)).one()
    stored = open_of_person(services, row, "password_hash")
    assert stored is not None
    assert stored.startswith("$argon2id$v=19$m=16,t=2,p=1$")


def test_nothing_that_lets_in_is_stored_in_clear(
    services: Services, member: AddMember, browser: NewBrowser, tmp_path: Any
) -> None:
    """Promise 8: no byte of password, code secret, name or cookie is in the database file."""
    ada, chrome = member("Ada Canary"), browser()
    chrome.sign_in(ada)
    assert ada.secret is not None

    kept = b"".join(path.read_bytes() for path in tmp_path.rglob("*") if path.is_file())

    for text in (ada.password, ada.secret, "Ada Canary", chrome.cookie("flg_session"), "$argon2id$"):
        assert text.encode() not in kept


@pytest.mark.parametrize(
    ("asked", "led"),
    [
        ("/oauth/authorize?client_id=a&state=b", "/oauth/authorize?client_id=a&state=b"),
        ("/console/", "/console/"),
        ("https://evil.example/", "/console/"),
        ("//evil.example/console/", "/console/"),
        ("/\\evil.example", "/console/"),
        ("/console/\\..\\x", "/console/"),
        ("/console/../api", "/console/"),
        ("/console/sign-in", "/console/"),
        ("/api/v1/rounds", "/console/"),
        ("javascript:alert(1)", "/console/"),
        ("/console/\r\nSet-Cookie: a=b", "/console/"),
        ("/oauth/authorize?" + "x" * 5000, "/console/"),
    ],
)
def test_after_signing_in_nobody_is_sent_elsewhere(
    member: AddMember, browser: NewBrowser, asked: str, led: str
) -> None:
    """RFC 9700, section 4.11.2: `next` is a page of ours, or the console."""
    ada, chrome = member(), browser()

    answer = chrome.sign_in(ada, after=asked)

    assert (answer.status_code, answer.location) == (303, led)
    again = chrome.get("/console/sign-in", query_string={"next": asked})
    assert again.location == led
