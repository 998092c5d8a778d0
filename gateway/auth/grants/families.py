"""Families of tokens: all that follows from one consent of a person, and ends together (RFC 9700, section 4.14.2).

The row of the family's code is its lock and its life: whoever adds tokens holds it, whoever ends the family deletes it.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum

from sqlalchemy import Connection, select

from audit.draft import Personal
from audit.entry import Draft
from audit.events import EventType
from audit.reading import reading
from gateway.auth.issuing import end_family
from gateway.auth.people import Person, person_of
from gateway.auth.proof import OAuthClient, confirm
from gateway.auth.scopes import read_given, scope_text
from gateway.auth.tokens import ACTIVE
from gateway.services import Services
from gateway.tables import authorization_codes, users


class Shown(StrEnum):
    """What was shown a second time."""

    CODE = "code"
    REFRESH_TOKEN = "refresh_token"  # noqa: S105 - a kind of token


class FamilyEnded(Exception):
    """It is too late to add a token: the family, or the person's access, has ended meanwhile."""


class ShownTwice(Exception):
    """Somebody else exchanged it, in this very moment or before."""


@dataclass(frozen=True, slots=True)
class Family:
    """All that follows from one consent."""

    family_id: str
    client_id: str
    user_id: str
    scope: str
    ends_at: datetime


def person_for(services: Services, family: Family) -> Person | None:
    """The person, if still there and still entitled to all that was allowed."""
    person = person_of(services, family.user_id)
    if person is None or not person.scopes.issuperset(family.scope.split()):
        return None
    return person


def shared_scope(scope: str, person: Person) -> str:
    """What of it the person may do too: nobody can allow more than that."""
    return scope_text(word for word in scope.split() if word in person.scopes)


def hold_parties(conn: Connection, client: OAuthClient, person: Person) -> None:
    """Keep client and person as they are until this transaction ends.

    Who locks several rows does so in the order clients, users, codes, tokens: so does who revokes or suspends.

    Raises:
        ClientRefused: the client may not come in any more, or proves itself otherwise now.
        FamilyEnded: the person may not come in any more, or has another role or other scopes now.
    """
    confirm(conn, client)
    user = select(users).where(users.c.user_id == person.user_id, users.c.status == ACTIVE)
    row = conn.execute(user.with_for_update(read=True)).one_or_none()
    if row is None or row.role != person.role or read_given(row.extra_scopes) != person.extra:
        raise FamilyEnded


def hold_family(conn: Connection, family: Family) -> None:
    """Keep the family alive until this transaction ends: who ends it waits, and then finds what was added.

    Raises:
        FamilyEnded: it has ended meanwhile.
    """
    code = select(authorization_codes.c.code_hash).where(authorization_codes.c.family_id == family.family_id)
    if conn.execute(code.with_for_update()).first() is None:
        raise FamilyEnded


def end(services: Services, family: Family) -> None:
    """End a family whose person is gone or has another role; that change has its own entry, and so has this.

    Raises:
        FamilyEnded: it has ended meanwhile.
    """
    entry = services.trail.draft(EventType.TOKEN_REVOKED, resource="tokens", details={"scope": family.scope})
    _end(services, family, entry)


def end_reused(services: Services, family: Family, client: OAuthClient, shown: Shown) -> None:
    """End a family of which something was shown twice, and sound the alarm, once: one of the two is a thief.

    Raises:
        FamilyEnded: it has ended meanwhile.
    """
    details = {"kind": shown.value, "client_id": Personal(client.subject_id, client.client_id)}
    if (subject := _subject_of(services, family.user_id)) is not None:
        details["user_id"] = Personal(subject, family.user_id)
    entry = services.trail.draft(EventType.TOKEN_REUSED, resource="tokens", details=details)
    _end(services, family, entry)


def _end(services: Services, family: Family, entry: Draft) -> None:
    with services.engine.begin() as conn:
        hold_family(conn, family)
        end_family(conn, family.family_id)
        services.trail.write(conn, entry)


def _subject_of(services: Services, user_id: str) -> str | None:
    with reading(services.engine) as conn:
        return conn.execute(select(users.c.subject_id).where(users.c.user_id == user_id)).scalar_one_or_none()
