"""How long this gateway keeps what: its kinds of data, the schedule of `FLG_RETENTION`, and the daily run."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any

import schedule
from sqlalchemy import Connection, Row, Select, and_, delete, exists, or_, select

from compliance.errors import BadSchedule
from compliance.keeping.retention import Kind, Over, Retention, desk_kinds
from compliance.keeping.terms import Term, parse_schedule, shown
from compliance.parts import DeskParts
from gateway.auth.roster import ClientStatus
from gateway.auth.scopes import Role
from gateway.auth.tokens import shut_out
from gateway.errors import ConfigError
from gateway.services import Services
from gateway.tables import (
    authorization_codes,
    client_updates,
    clients,
    idempotency_keys,
    invitations,
    revoked_tokens,
    rounds,
    tokens,
    used_assertions,
)

log = logging.getLogger(__name__)
_EVERY_STATUS = [status.value for status in ClientStatus]  # named, so that an index finds who was not seen
_LET_IN = (idempotency_keys, tokens, authorization_codes, revoked_tokens, used_assertions)


def kinds(services: Services | None = None) -> tuple[Kind, ...]:
    """Every kind of data with a term of its own, those that refer to others first.

    Args:
        services: where files of updates are removed; None where only names and bounds are asked for.
    """

    def remove_files(rows: Sequence[Row[Any]]) -> None:
        for row in rows:
            if services is not None:
                services.blobs.delete(row.blob_id)

    return (
        Kind("updates", client_updates, "client_updates", _updates, afterwards=remove_files),
        Kind("invitations", invitations, "clients", _invitations),
        Kind("clients", clients, "clients", _clients, ("updates", "invitations"), remove=_remove_clients),
        *desk_kinds(),
    )


def terms_of(text: str) -> Mapping[str, Term]:
    """The schedule of `FLG_RETENTION`.

    Raises:
        ConfigError: it contradicts itself or what must be kept.
    """
    try:
        return parse_schedule(text, [kind.bounds for kind in kinds()])
    except BadSchedule as error:
        raise ConfigError(f"FLG_RETENTION: {error}") from error


def schedule_shown(text: str) -> list[dict[str, Any]]:
    """The schedule in days, for the record of processing and the answers under Art. 15."""
    return shown(terms_of(text), [kind.bounds for kind in kinds()])


def retention(services: Services, parts: DeskParts) -> Retention:
    """The schedule in force, ready to be run."""
    return Retention(parts, kinds(services), terms_of(services.config.retention))


class DailyRetention:
    """Runs the schedule once a day, first when the worker starts: a restart may have missed the hour."""

    def __init__(self, services: Services, parts: DeskParts) -> None:
        self._applies = services.config.retention_apply
        self._retention = retention(services, parts)
        self._diary = schedule.Scheduler()
        self._diary.every().day.do(self.run)
        self._has_run = False

    def run_pending(self) -> None:
        """Run it, if its time has come."""
        if self._has_run:
            self._diary.run_pending()
        else:
            self.run()

    def run(self) -> None:
        """Remove what is over, or only say what would go while `FLG_RETENTION_APPLY` is off."""
        self._has_run = True
        for over in self._retention.run() if self._applies else self._retention.look():
            if over.rows or over.kept_back:
                log.info(told(over, applied=self._applies))


def told(over: Over, *, applied: bool) -> str:
    """One line for people; it names nobody."""
    verb = "removed" if applied else "would be removed"
    held = f", {over.kept_back} kept back by holds, restrictions and open requests" if over.kept_back else ""
    return f"{over.category}: {over.rows} older than {over.before:%Y-%m-%d} {verb}{held}"


def _updates(before: datetime) -> Select[Any]:
    """Updates of rounds that ended; none that a frozen cohort needs."""
    return (
        select(client_updates.c.update_id.label("id"), clients.c.subject_id, client_updates.c.blob_id)
        .join(rounds, rounds.c.round_id == client_updates.c.round_id)
        .join(clients, clients.c.client_id == client_updates.c.client_id)
        .where(rounds.c.completed_at < before)
    )


def _invitations(before: datetime) -> Select[Any]:
    return (
        select(invitations.c.invitation_id.label("id"), clients.c.subject_id)
        .join(rounds, rounds.c.round_id == invitations.c.round_id)
        .join(clients, clients.c.client_id == invitations.c.client_id)
        .where(rounds.c.completed_at < before)
    )


def _clients(before: datetime) -> Select[Any]:
    """Devices and silos that were not seen since then, and of which nothing else is kept; staff stays."""
    seen, since = clients.c.last_seen_at, clients.c.registered_at
    return select(clients.c.client_id.label("id"), clients.c.subject_id).where(
        clients.c.status.in_(_EVERY_STATUS),
        clients.c.role == Role.PARTICIPANT.value,
        or_(seen < before, and_(seen.is_(None), since < before)),
        ~exists().where(client_updates.c.client_id == clients.c.client_id),
        ~exists().where(invitations.c.client_id == clients.c.client_id),
    )


def _remove_clients(conn: Connection, ids: Sequence[str]) -> None:
    for table in _LET_IN:
        conn.execute(delete(table).where(table.c.client_id.in_(ids)))
    conn.execute(delete(clients).where(clients.c.client_id.in_(ids)))
    shut_out(conn)
