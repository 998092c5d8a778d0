"""Where a client or person stands, for tokens that speak for themselves but cannot know it (RFC 9068, section 5)."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime

from sqlalchemy import bindparam, select

from gateway.auth.scopes import Role
from gateway.services import Services
from gateway.storage.lookup import LookUp
from gateway.storage.verdicts import PART_S
from gateway.tables import clients, users

_CLIENT = LookUp(
    select(clients.c.subject_id, clients.c.role, clients.c.status, clients.c.last_seen_at).where(
        clients.c.client_id == bindparam("id")
    ),
    "id",
)
_PERSON = LookUp(
    select(users.c.subject_id, users.c.role, users.c.status).where(users.c.user_id == bindparam("id")), "id"
)


@dataclass(frozen=True, slots=True)
class Standing:
    """Who somebody is, and whether they may come in."""

    subject_id: str
    role: Role
    status: str
    last_seen_at: datetime | None = None


def client_standing(services: Services, client_id: str) -> Standing | None:
    """A client's, at most a quarter of a second old; None if there is no such client."""

    def load() -> Standing | None:
        row = _CLIENT.one(services.engine, client_id)
        return row and Standing(row.subject_id, Role(row.role), row.status, row.last_seen_at)

    return services.verdicts.find(f"{client_id} client", load, longest_s=PART_S)


def person_standing(services: Services, user_id: str) -> Standing | None:
    """A person's, at most a quarter of a second old; None if there is no such person."""

    def load() -> Standing | None:
        row = _PERSON.one(services.engine, user_id)
        return row and Standing(row.subject_id, Role(row.role), row.status)

    return services.verdicts.find(f"{user_id} person", load, longest_s=PART_S)
