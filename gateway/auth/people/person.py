"""The people of the staff: who they are, found by id, by the name they sign in with, or by their provider's name.

A person is a subject under a random id; what names a person is sealed, and found by keyed indexes (RULES 16).
"""

from __future__ import annotations

import unicodedata
from dataclasses import dataclass, field
from datetime import datetime
from enum import StrEnum
from typing import Any

from sqlalchemy import ColumnElement, Row, select

from audit.draft import Personal
from audit.errors import KeyDestroyed
from audit.events import Retention
from audit.reading import reading
from gateway.auth.scopes import Role, Scope, read_given, scopes_with
from gateway.services import Services
from gateway.tables import users

STAFF = frozenset({Role.OPERATOR, Role.DPO, Role.AUDITOR})
LONGEST_NAME = 200


class PersonStatus(StrEnum):
    """Whether a person may come in."""

    ACTIVE = "active"
    SUSPENDED = "suspended"
    REVOKED = "revoked"


class BadName(ValueError):
    """What was given cannot be a name to sign in with."""

    def __init__(self) -> None:
        super().__init__(f"a name must have 1 to {LONGEST_NAME} printable characters")


@dataclass(frozen=True, slots=True)
class Person:
    """Somebody who may sign in."""

    user_id: str
    subject_id: str
    role: Role
    name: str = field(repr=False)
    extra: tuple[Scope, ...] = ()

    @property
    def scopes(self) -> frozenset[Scope]:
        """What the person may do: the role's bundle, and what was given by name."""
        return frozenset(scopes_with(self.role, self.extra))

    def acting(self) -> Personal:
        """The person as the actor of an entry."""
        return Personal(self.subject_id, {"user_id": self.user_id, "role": self.role.value})


@dataclass(frozen=True, slots=True)
class PersonRecord:
    """A person as an operator sees one; the name is None once an erasure destroyed it."""

    user_id: str
    subject_id: str
    role: Role
    status: PersonStatus
    name: str | None = field(repr=False)
    has_password: bool
    has_second_factor: bool
    has_provider: bool
    added_at: datetime
    last_seen_at: datetime | None
    extra: tuple[Scope, ...] = ()


def person_of(services: Services, user_id: str) -> Person | None:
    """The person of that id; None unless active."""
    row = find_user(services, users.c.user_id == user_id)
    return active_person(services, row)


def active_person(services: Services, row: Row[Any] | None) -> Person | None:
    """The person of a stored row; None unless active, and where an erasure has destroyed the name."""
    if row is None or row.status != PersonStatus.ACTIVE:
        return None
    name = open_of_person(services, row, "name")
    if name is None:
        return None
    return Person(row.user_id, row.subject_id, Role(row.role), name, read_given(row.extra_scopes))


def list_people(services: Services) -> list[PersonRecord]:
    """Everybody, oldest first."""
    with reading(services.engine) as conn:
        rows = conn.execute(select(users).order_by(users.c.added_at, users.c.user_id)).all()
    return [_record(services, row) for row in rows]


def find_user(services: Services, which: ColumnElement[bool]) -> Row[Any] | None:
    """The stored row of one person, whatever its status."""
    with reading(services.engine) as conn:
        return conn.execute(select(users).where(which)).one_or_none()


def read_name(text: str) -> str:
    """A name as it is kept: without blanks around it, in Unicode's composed form.

    Raises:
        BadName: nobody could sign in with it.
    """
    name = unicodedata.normalize("NFC", text).strip()
    if not 0 < len(name) <= LONGEST_NAME or not name.isprintable():
        raise BadName
    return name


def person_index(services: Services, name: str) -> str:
    """What a person is found by that signs in with this name; large and small letters are the same."""
    folded = unicodedata.normalize("NFKC", name).strip().casefold()
    return services.keystore.index(f"users.name:{folded}")


def outside_person_index(services: Services, issuer: str, subject: str) -> str:
    """What a person is found by that an OpenID provider knows under this `sub`."""
    return services.keystore.index(f"users.outside:{issuer} {subject}")


def _record(services: Services, row: Row[Any]) -> PersonRecord:
    return PersonRecord(
        user_id=row.user_id,
        subject_id=row.subject_id,
        role=Role(row.role),
        status=PersonStatus(row.status),
        name=open_of_person(services, row, "name"),
        has_password=row.password_hash is not None,
        has_second_factor=row.totp is not None,
        has_provider=row.outside_index is not None,
        added_at=row.added_at,
        last_seen_at=row.last_seen_at,
        extra=read_given(row.extra_scopes),
    )


def seal_of_person(
    services: Services, subject_id: str, user_id: str, column: str, value: str
) -> dict[str, str]:
    """A value as its column of `users` holds it (RULES 16)."""
    return services.sealer.seal_column(
        subject_id, Retention.PARTICIPATION, "users", column, user_id, value, services.clock()
    )


def open_of_person(services: Services, row: Row[Any], column: str) -> str | None:
    """What a sealed column of a person holds; None where there is nothing, or an erasure destroyed it."""
    sealed = getattr(row, column)
    if sealed is None:
        return None
    try:
        return str(services.sealer.open_column(sealed, "users", column, row.user_id))
    except KeyDestroyed:
        return None
