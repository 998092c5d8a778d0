"""What the gateway keeps of a person of the staff, as export and erasure see it.

Entries of what the person did stay in the log: they are accountability (RULES 19).
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from datetime import datetime
from typing import Any

from sqlalchemy import ColumnElement, Connection, delete, func, select

from audit.errors import KeyDestroyed
from audit.reading import reading
from compliance.places import ErasedCount, ExportFile
from gateway.auth.people.accounts import end_access_of
from gateway.services import Services
from gateway.tables import authorization_codes, sessions, tokens, users

PERSON_TABLES = (sessions, users)
"""The tables whose rows are nobody's but such people's."""


class PeoplePlace:
    """A person's account, sessions, and what clients got to act for it."""

    name = "users"

    def __init__(self, services: Services) -> None:
        self._services = services

    def export(self, subject: str) -> Iterator[ExportFile]:
        """The account and since when, its sessions, and what tools were given; nothing for who is no staff."""
        own = select(users.c.user_id).where(users.c.subject_id == subject)
        allowed = select(authorization_codes).where(authorization_codes.c.user_id.in_(own))
        with reading(self._services.engine) as conn:
            consents = list(conn.execute(allowed))
            given = list(conn.execute(select(tokens).where(tokens.c.user_id.in_(own))))
            accounts = list(conn.execute(select(users).where(users.c.subject_id == subject)))
            begun = list(conn.execute(select(sessions).where(sessions.c.user_id.in_(own))))
        if accounts:
            shown = [self._shown(row._mapping) for row in accounts]  # type: ignore[arg-type]
            yield ExportFile("staff/accounts.jsonl", "Art. 15", rows=shown)
            yield ExportFile("staff/sessions.jsonl", "Art. 15", rows=[_session(row) for row in begun])
        if consents:
            yield ExportFile("staff/consents.jsonl", "Art. 15", rows=[_consent(row) for row in consents])
        if given:
            yield ExportFile("staff/tokens.jsonl", "Art. 15", rows=[shown_token(row) for row in given])

    def erase(self, subject: str) -> ErasedCount:
        """Remove the account, its sessions, and every token that acts for it."""
        with self._services.engine.begin() as conn:
            own_ids = select(users.c.user_id).where(users.c.subject_id == subject)
            own = list(conn.execute(own_ids.with_for_update()).scalars())  # users before codes and tokens
            found = _counted(conn, subject)
            for user_id in own:
                end_access_of(conn, user_id)
            for table, which in _rows_of(subject):
                conn.execute(delete(table).where(which))
        return ErasedCount(rows=found)

    def count(self, subject: str) -> int:
        """How many rows there are."""
        with reading(self._services.engine) as conn:
            return _counted(conn, subject)

    def _shown(self, row: Mapping[str, Any]) -> dict[str, Any]:
        try:
            name = self._services.sealer.open_column(row["name"], "users", "name", row["user_id"])
        except KeyDestroyed:
            name = None
        return {
            "user_id": row["user_id"],
            "name": name,
            "role": row["role"],
            "status": row["status"],
            "has_password": row["password_hash"] is not None,
            "has_second_factor": row["totp"] is not None,
            "is_known_to_the_provider": row["outside_index"] is not None,
            "added_at": _text(row["added_at"]),
            "last_seen_at": _text(row["last_seen_at"]),
        }


def subject_of_user(services: Services, user_id: str) -> str | None:
    """Whose account it is."""
    with reading(services.engine) as conn:
        query = select(users.c.subject_id).where(users.c.user_id == user_id)
        return conn.execute(query).scalar_one_or_none()


def shown_token(row: Any) -> dict[str, Any]:
    """A token as an export tells of it: nothing that lets anybody in."""
    return {
        "client_id": row.client_id,
        "kind": row.kind,
        "scope": row.scope,
        "issued_at": _text(row.issued_at),
        "expires_at": _text(row.expires_at),
        "used_at": _text(row.used_at),
        "is_bound_to_a_certificate": row.thumbprint is not None,
    }


def _session(row: Any) -> dict[str, Any]:
    return {
        "method": row.method,
        "started_at": _text(row.started_at),
        "seen_at": _text(row.seen_at),
        "expires_at": _text(row.expires_at),
    }


def _consent(row: Any) -> dict[str, Any]:
    return {
        "client_id": row.client_id,
        "scope": row.scope,
        "allowed_at": _text(row.issued_at),
        "exchanged_at": _text(row.used_at),
    }


def _counted(conn: Connection, subject: str) -> int:
    return sum(
        int(conn.execute(select(func.count()).select_from(table).where(which)).scalar_one())
        for table, which in _rows_of(subject)
    )


def _rows_of(subject: str) -> tuple[tuple[Any, ColumnElement[bool]], ...]:
    own = select(users.c.user_id).where(users.c.subject_id == subject).scalar_subquery()
    return (
        (authorization_codes, authorization_codes.c.user_id.in_(own)),
        (tokens, tokens.c.user_id.in_(own)),
        (sessions, sessions.c.user_id.in_(own)),
        (users, users.c.subject_id == subject),
    )


def _text(at: datetime | None) -> str | None:
    return at.isoformat().replace("+00:00", "Z") if at else None
