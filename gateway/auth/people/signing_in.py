"""Signing in: one answer, in one time, for whatever was wrong; session, used code and entry commit together."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from flask import current_app, g
from sqlalchemy import Connection, Row, select, update

from audit.events import EventType
from compliance.errors import SubjectErased, SubjectErasing
from gateway.auth.people.attempts import count_attempt, known_browser, may_show_code, new_browser_cookie
from gateway.auth.people.passwords import Passwords
from gateway.auth.people.person import (
    Person,
    PersonStatus,
    active_person,
    find_user,
    open_of_person,
    person_index,
    seal_of_person,
)
from gateway.auth.people.second_factor import matching_step, take_step
from gateway.auth.people.sessions import SignInMethod, begin_session, end_session, new_cookie, origin_of
from gateway.errors import GatewayError
from gateway.services import Services
from gateway.tables import users

EXTENSION = "fl_gateway_passwords"


class SignInRefused(GatewayError):
    """The name, the password or the code is wrong, or the person may not come in: the answer does not say which.

    `user_id` names, for the log alone, whose name was used.
    """

    status, code, title = 403, "SIGN_IN_REFUSED", "The name, the password or the code is wrong"

    def __init__(self, user_id: str = "") -> None:
        super().__init__("Check all three; a code is taken once, so wait for the next one")
        self.user_id = user_id


class SecondFactorRefused(SignInRefused):
    """The same answer; the log says that the password was right: whoever typed the code may have stolen it."""

    code = "SECOND_FACTOR_REFUSED"


@dataclass(frozen=True, slots=True)
class Credentials:
    """What somebody typed into the form."""

    name: str = field(repr=False)
    password: str = field(repr=False)
    code: str = field(repr=False)


@dataclass(frozen=True, slots=True)
class Browser:
    """The cookies that came with the form."""

    session: str = field(repr=False)
    browser: str = field(repr=False)


@dataclass(frozen=True, slots=True)
class NewSession:
    """A session that has just begun, with the cookies for its browser."""

    person: Person
    cookie: str = field(repr=False)
    browser: str = field(repr=False)


@dataclass(frozen=True, slots=True)
class _Proof:
    """What was found right, and what must still be noted in the transaction."""

    method: SignInMethod
    step: int | None = None
    is_stepped: bool = False
    new_hash: dict[str, str] | None = field(default=None, repr=False)

    @property
    def told(self) -> str:
        """How the person proved who it is, as the log says it."""
        return f"{self.method}+totp" if self.is_stepped else self.method.value


def passwords() -> Passwords:
    """The hasher of the process, or one that was given to the application."""
    found: Passwords = current_app.extensions.get(EXTENSION, _OF_THIS_PROCESS)
    return found


_OF_THIS_PROCESS = Passwords()


def sign_in(services: Services, typed: Credentials, browser: Browser) -> NewSession:
    """Begin a session for who knows name, password and code.

    Raises:
        SignInRefused: one of them is wrong, or the person may not come in.
        SignInWaits: too many tries.
        Busy: too many at this moment.
    """
    account = person_index(services, typed.name)
    known = known_browser(services, account, browser.browser)
    with passwords().place(is_known=known is not None):
        count_attempt(services, account, known)  # in there: nobody counts more attempts than can be looked at
        row = find_user(services, users.c.name_index == account)
        proof = _check(services, row, typed, known)
    if row is None or proof is None:
        raise SignInRefused(row.user_id if row is not None else "")
    return _begin(services, row, proof, browser)


def sign_in_by_provider(services: Services, row: Row[Any] | None, browser: Browser) -> NewSession:
    """Begin a session for a person whom the OpenID provider vouches for. Raises SignInRefused."""
    if row is None:
        raise SignInRefused
    return _begin(services, row, _Proof(SignInMethod.OPENID), browser)


def sign_out(services: Services, person: Person, cookie: str) -> None:
    """End the session of this browser."""
    entry = services.trail.draft(EventType.USER_SIGNED_OUT, resource="sessions", actor=person.acting())
    with services.engine.begin() as conn:
        if end_session(conn, cookie):
            services.trail.write(conn, entry)


def _check(services: Services, row: Row[Any] | None, typed: Credentials, known: str | None) -> _Proof | None:
    """What the password and the code prove; both are always looked at, also where there is nobody."""
    stored = open_of_person(services, row, "password_hash") if row is not None else None
    is_right = passwords().is_right(typed.password, stored, is_known=known is not None)
    secret = open_of_person(services, row, "totp") if row is not None else None
    step = matching_step(secret, typed.code, services.clock())
    if row is None or stored is None or not is_right:
        return None
    has_totp = row.totp is not None
    if has_totp and (not may_show_code(stored, known) or step is None):
        raise SecondFactorRefused(row.user_id)
    renewed = None
    if passwords().is_outdated(stored):
        hashed = passwords().hash(typed.password)
        renewed = seal_of_person(services, row.subject_id, row.user_id, "password_hash", hashed)
    return _Proof(SignInMethod.PASSWORD, step if has_totp else None, has_totp, renewed)


def _begin(services: Services, row: Row[Any], proof: _Proof, browser: Browser) -> NewSession:
    person = active_person(services, row)
    if person is None:
        raise SignInRefused(row.user_id)
    cookie, unproven = new_cookie(), g.origin
    g.origin = origin_of(person, unproven)
    try:
        entry = services.trail.draft(
            EventType.USER_SIGNED_IN, resource="sessions", details={"auth": proof.told}
        )
        with services.engine.begin() as conn:
            _note(conn, services, row, proof)
            begin_session(
                conn,
                services,
                cookie,
                user_id=row.user_id,
                method=proof.method,
                old_cookie=browser.session,
            )
            services.trail.write(conn, entry)
    except (SignInRefused, SubjectErased, SubjectErasing) as error:
        g.origin = unproven
        raise SignInRefused(row.user_id) from error
    g.person = person
    return NewSession(person, cookie, new_browser_cookie(services, row.name_index))


def _note(conn: Connection, services: Services, row: Row[Any], proof: _Proof) -> None:
    """Write down the sign-in; refuse it if the account was changed, or its code used, since it was looked at."""
    user_id, judged = row.user_id, (PersonStatus.ACTIVE.value, row.password_hash, row.totp, row.outside_index)
    lock = select(users.c.status, users.c.password_hash, users.c.totp, users.c.outside_index)
    now = conn.execute(lock.where(users.c.user_id == user_id).with_for_update()).one_or_none()
    if now is None or tuple(now) != judged:
        raise SignInRefused(user_id)
    if proof.step is not None and not take_step(conn, user_id, proof.step):
        raise SignInRefused(user_id)
    renewed = {"password_hash": proof.new_hash} if proof.new_hash else {}
    seen = {"last_seen_at": services.clock()}
    conn.execute(update(users).where(users.c.user_id == user_id).values(**seen, **renewed))
