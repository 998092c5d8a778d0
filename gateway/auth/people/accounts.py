"""The accounts of people: added, changed, suspended and revoked by an operator; row, subject and entry commit together.

Whatever weakens what a session was begun with ends the person's sessions and tokens in the same transaction.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from functools import partial
from typing import Any
from uuid import UUID, uuid4

from sqlalchemy import Connection, Row, insert, select, update
from sqlalchemy.exc import IntegrityError

from audit.canonical import JsonValue
from audit.draft import Personal
from audit.events import EventType
from compliance.subjects import new_subject
from gateway.auth.people.passwords import Passwords, check_password
from gateway.auth.people.person import (
    STAFF,
    PersonStatus,
    find_user,
    outside_person_index,
    person_index,
    read_name,
    seal_of_person,
)
from gateway.auth.people.second_factor import new_totp_secret, totp_uri
from gateway.auth.people.sessions import end_sessions_of
from gateway.auth.scopes import Role, Scope, given_by_name, read_given, scope_text
from gateway.auth.tokens import end_tokens_of_user
from gateway.errors import Conflict, NotFound
from gateway.services import Services
from gateway.tables import users


class Move(StrEnum):
    """What an operator does to a person's account."""

    SUSPEND = "suspend"
    RESUME = "resume"
    REVOKE = "revoke"


class NameTaken(Conflict):
    """Somebody else has this name, or this name at the OpenID provider."""

    code, title = "NAME_TAKEN", "Somebody else has this name here or at the provider: choose another"


@dataclass(frozen=True, slots=True)
class Proofs:
    """What a person will prove itself with; what is None stays as it is.

    Args:
        password: a new one.
        has_totp: True for a new second factor, False for none.
        outside: the OpenID provider's issuer and the `sub` that it knows the person under.
    """

    password: str | None = field(default=None, repr=False)
    has_totp: bool | None = None
    outside: tuple[str, str] | None = field(default=None, repr=False)


@dataclass(frozen=True, slots=True)
class Account:
    """An account just added or changed; a new second factor is shown this once."""

    user_id: str
    subject_id: str
    role: Role
    totp_secret: str | None = field(repr=False)
    totp_uri: str | None = field(repr=False)
    extra: tuple[Scope, ...] = ()


_ALLOWED_FROM = {
    Move.SUSPEND: (PersonStatus.ACTIVE,),
    Move.RESUME: (PersonStatus.SUSPENDED,),
    Move.REVOKE: (PersonStatus.ACTIVE, PersonStatus.SUSPENDED),
}
_TO = {
    Move.SUSPEND: PersonStatus.SUSPENDED,
    Move.RESUME: PersonStatus.ACTIVE,
    Move.REVOKE: PersonStatus.REVOKED,
}


def add_person(
    services: Services,
    name: str,
    role: Role,
    proofs: Proofs,
    *,
    passwords: Passwords,
    extra: Sequence[str] = (),
) -> Account:
    """Add a person of the staff.

    Args:
        services: the stores.
        name: what the person signs in with; sealed.
        role: its bundle of scopes.
        proofs: a password, with or without a second factor, or the provider's name for the person, or both.
        passwords: makes the hash.
        extra: scopes that the person gets by name, beyond the bundle.

    Raises:
        BadName, BadPassword: the name or the password cannot be one.
        Conflict: the role is none of the staff's, or nothing to prove oneself with was given.
        ScopeRefused: a scope is not given by name, or not to this role.
        NameTaken: somebody else has the name.
    """
    name, user_id, subject_id, now = read_name(name), str(uuid4()), str(uuid4()), services.clock()
    _insist_staff(role)
    if proofs.password is None and proofs.outside is None:
        raise Conflict("Give the person a password, or the name that the OpenID provider knows it under")
    given = given_by_name(role, extra)
    secret = new_totp_secret() if proofs.password is not None and proofs.has_totp else None
    row = {
        "user_id": user_id,
        "subject_id": subject_id,
        "role": role.value,
        "name": seal_of_person(services, subject_id, user_id, "name", name),
        "name_index": person_index(services, name),
        "status": PersonStatus.ACTIVE.value,
        "added_at": now,
        "extra_scopes": scope_text(given) or None,
        **_kept(services, subject_id, user_id, name, proofs, secret, passwords),
    }
    told: dict[str, JsonValue | Personal] = {
        "user_id": Personal(subject_id, user_id),
        "role": role.value,
        "auth": _auth_of(row),
        **({"extra_scopes": [*given]} if given else {}),
    }
    entry = services.trail.draft(EventType.USER_ADDED, resource="users", details=told)
    try:
        with services.engine.begin() as conn:
            new_subject(conn, subject_id, now)
            conn.execute(insert(users).values(row))
            services.trail.write(conn, entry)
    except IntegrityError:
        raise NameTaken from None
    return Account(user_id, subject_id, role, secret, totp_uri(secret, name) if secret else None, given)


def change_person(
    services: Services,
    user_id: str,
    proofs: Proofs,
    *,
    role: Role | None = None,
    passwords: Passwords,
    extra: Sequence[str] | None = None,
) -> Account:
    """Give a person another password, second factor, provider's name, role or scopes; its sessions and tokens end.

    What was given by name ends with the role, unless `extra` gives it anew; None leaves it as it is.

    Raises:
        NotFound: there is no such person.
        BadPassword: the password cannot be one.
        Conflict: nothing would change, the role is none of the staff's, or the account is revoked.
        NameTaken: somebody else has the name at the provider.
        ScopeRefused: a scope is not given by name, or not to this role.
    """
    found = _row_of(services, user_id)
    name = str(services.sealer.open_column(found.name, "users", "name", user_id))
    secret = new_totp_secret() if proofs.has_totp else None
    kept = _kept(services, found.subject_id, user_id, name, proofs, secret, passwords)
    if role is not None and role != found.role:
        _insist_staff(role)
        kept["role"] = role.value
    given = _given(found, role or Role(found.role), extra)
    if scope_text(given) != (found.extra_scopes or ""):
        kept["extra_scopes"] = scope_text(given) or None
    if found.password_hash is None and proofs.password is None and secret is not None:
        raise Conflict("The person has no password here, which a second factor could stand beside")
    changed = _changed(kept)
    if not changed:
        raise Conflict("Nothing would change")
    told: dict[str, JsonValue | Personal] = {
        "user_id": Personal(found.subject_id, user_id),
        "role": (role or Role(found.role)).value,
        "changed": [*changed],
        **({"extra_scopes": [*given]} if "extra_scopes" in kept else {}),
    }
    entry = services.trail.draft(EventType.USER_CHANGED, resource="users", details=told)
    try:
        with services.engine.begin() as conn:
            _insist_status(conn, user_id, (PersonStatus.ACTIVE, PersonStatus.SUSPENDED))
            conn.execute(update(users).where(users.c.user_id == user_id).values(kept))
            end_access_of(conn, user_id)
            services.trail.write(conn, entry)
    except IntegrityError:
        raise NameTaken from None
    return Account(
        user_id,
        found.subject_id,
        role or Role(found.role),
        secret,
        totp_uri(secret, name) if secret else None,
        given,
    )


def move_person(services: Services, user_id: str, move: Move) -> PersonStatus:
    """Suspend, resume or revoke an account; its sessions and tokens end with the commit. What is so stays so.

    Raises:
        NotFound: there is no such person.
        Conflict: a revoked account cannot be suspended or resumed.
    """
    found, to = _row_of(services, user_id), _TO[move]
    told = {
        "user_id": Personal(found.subject_id, user_id),
        "role": found.role,
        "changed": ["status"],
        "status": to.value,
    }
    entry = services.trail.draft(EventType.USER_CHANGED, resource="users", details=told)
    with services.engine.begin() as conn:
        if _insist_status(conn, user_id, (*_ALLOWED_FROM[move], to)) is to:
            return to
        conn.execute(update(users).where(users.c.user_id == user_id).values(status=to.value))
        end_access_of(conn, user_id)
        services.trail.write(conn, entry)
    return to


def end_access_of(conn: Connection, user_id: str) -> None:
    """End every session of a person, and every token that clients got to act for it; every process hears of it."""
    end_tokens_of_user(conn, user_id)
    end_sessions_of(conn, user_id)


def user_id_of(services: Services, wanted: str) -> str:
    """The id of the person with that id or name. Raises NotFound."""
    try:
        which = users.c.user_id == wanted if str(UUID(wanted)) == wanted else None
    except ValueError:
        which = None
    row = find_user(
        services, users.c.name_index == person_index(services, wanted) if which is None else which
    )
    if row is None:
        raise NotFound("There is no such person: `fl-gateway user list` shows them all")
    return str(row.user_id)


def _kept(
    services: Services,
    subject_id: str,
    user_id: str,
    name: str,
    proofs: Proofs,
    secret: str | None,
    passwords: Passwords,
) -> dict[str, Any]:
    """The columns of what a person proves itself with, as far as they change."""
    sealed, kept = partial(seal_of_person, services, subject_id, user_id), dict[str, Any]()
    if proofs.password is not None:
        check_password(proofs.password, name)
        kept["password_hash"] = sealed("password_hash", passwords.hash(proofs.password))
    if proofs.has_totp is not None and (secret is not None or proofs.has_totp is False):
        kept["totp"] = sealed("totp", secret) if secret else None
        kept["totp_step"] = None
    if proofs.outside is not None:
        kept["outside_index"] = outside_person_index(services, *proofs.outside)
    return kept


def _given(found: Row[Any], role: Role, extra: Sequence[str] | None) -> tuple[Scope, ...]:
    """What a person has by name after a change."""
    if extra is not None:
        return given_by_name(role, extra)
    return read_given(found.extra_scopes) if role == found.role else ()


_WORDS = {
    "password_hash": "password",
    "totp": "second_factor",
    "outside_index": "provider",
    "role": "role",
    "extra_scopes": "scopes",
}


def _changed(kept: Mapping[str, Any]) -> list[str]:
    return [word for column, word in _WORDS.items() if column in kept]


def _auth_of(row: Mapping[str, Any]) -> str:
    """How the person may sign in, as the log says it."""
    ways = ["password+totp" if row.get("totp") else "password"] if row.get("password_hash") else []
    return " ".join([*ways, "openid"] if row.get("outside_index") else ways)


def _insist_staff(role: Role) -> None:
    if role not in STAFF:
        raise Conflict("A person can be operator, dpo or auditor; machines are clients")


def _insist_status(conn: Connection, user_id: str, allowed: tuple[PersonStatus, ...]) -> PersonStatus:
    """Lock the account and say how it stands. Raises NotFound, Conflict."""
    lock = select(users.c.status).where(users.c.user_id == user_id).with_for_update()
    status = conn.execute(lock).scalar_one_or_none()
    if status is None:
        raise NotFound("There is no such person")
    if status not in allowed:
        raise Conflict(f"An account that is {status} cannot be changed so")
    return PersonStatus(status)


def _row_of(services: Services, user_id: str) -> Row[Any]:
    row = find_user(services, users.c.user_id == user_id)
    if row is None:
        raise NotFound("There is no such person")
    return row
