"""What the gateway keeps of a person of the staff, as export and erasure see it.

Entries of what the person did stay in the log: they are accountability (RULES 19).
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from sqlalchemy import ColumnElement, Connection, Table, delete, func, select

from audit.errors import KeyDestroyed
from audit.reading import reading
from compliance.packages.columns import ExportColumn, Form, text_of
from compliance.places import ErasedCount, ExportPart, ExportTable
from gateway.auth.people.accounts import end_access_of
from gateway.auth.roster import is_client_id
from gateway.exporting.identity import CONSENTS, TOKENS, shown_consent, shown_token
from gateway.services import Services
from gateway.tables import authorization_codes, sessions, tokens, users

PERSON_TABLES = (sessions, users)
"""The tables whose rows are nobody's but such people's."""

_ACCOUNTS = (
    ExportColumn("user_id", Form.ID, "names the account, at random"),
    ExportColumn("name", Form.TEXT, "what you sign in with", is_optional=True),
    ExportColumn("role", Form.TEXT, "which scopes you have"),
    ExportColumn("extra_scopes", Form.TEXT, "scopes given to you by name", is_optional=True),
    ExportColumn("status", Form.TEXT, "active, suspended or revoked"),
    ExportColumn("has_password", Form.FLAG, "whether a password lets you in"),
    ExportColumn("has_second_factor", Form.FLAG, "whether one-time codes are asked for"),
    ExportColumn("is_known_to_the_provider", Form.FLAG, "whether an OpenID provider lets you in"),
    ExportColumn("added_at", Form.TIME, "since when you may sign in"),
    ExportColumn("last_seen_at", Form.TIME, "when you last signed in", is_optional=True),
)
_SESSIONS = (
    ExportColumn("method", Form.TEXT, "password or openid"),
    ExportColumn("started_at", Form.TIME, "when it began"),
    ExportColumn("seen_at", Form.TIME, "when it was last used"),
    ExportColumn("expires_at", Form.TIME, "when it ends"),
)


class PeoplePlace:
    """A person's account, sessions, and what clients got to act for it."""

    name = "users"

    def __init__(self, services: Services) -> None:
        self._services = services

    def export(self, subject: str) -> Iterator[ExportPart]:
        """The account and since when, its sessions, and what tools were given; nothing for who is no staff."""
        own = select(users.c.user_id).where(users.c.subject_id == subject)
        shown = [self._shown(row._mapping) for row in self._all(users, users.c.subject_id == subject)]
        begun = [_session(row) for row in self._all(sessions, sessions.c.user_id.in_(own))]
        allowed = self._all(authorization_codes, authorization_codes.c.user_id.in_(own))
        given = self._all(tokens, tokens.c.user_id.in_(own))
        for category, title, columns, rows in (
            ("staff_accounts", "Your account as one of the staff", _ACCOUNTS, shown),
            ("staff_sessions", "When you signed in", _SESSIONS, begun),
            (
                "staff_consents",
                "What you allowed programs to do",
                CONSENTS,
                list(map(shown_consent, allowed)),
            ),
            ("staff_tokens", "What programs got to act for you", TOKENS, list(map(shown_token, given))),
        ):
            if rows:
                yield ExportTable(category, "Art. 15", title, columns, rows)

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

    def _all(self, table: Table, which: ColumnElement[bool]) -> list[Any]:
        with reading(self._services.engine) as conn:
            return list(conn.execute(select(table).where(which).order_by(*table.primary_key.columns)))

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
            "extra_scopes": row["extra_scopes"],
            "has_password": row["password_hash"] is not None,
            "has_second_factor": row["totp"] is not None,
            "is_known_to_the_provider": row["outside_index"] is not None,
            "added_at": text_of(row["added_at"]),
            "last_seen_at": text_of(row["last_seen_at"]),
        }


def subject_of_user(services: Services, user_id: str) -> str | None:
    """Whose account it is; None also for what is no id."""
    if not is_client_id(user_id):
        return None
    with reading(services.engine) as conn:
        query = select(users.c.subject_id).where(users.c.user_id == user_id)
        return conn.execute(query).scalar_one_or_none()


def _session(row: Any) -> dict[str, Any]:
    return {
        "method": row.method,
        "started_at": text_of(row.started_at),
        "seen_at": text_of(row.seen_at),
        "expires_at": text_of(row.expires_at),
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
