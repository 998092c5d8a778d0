"""Dropouts: who was asked and does not answer in time, or went away, makes room for a reserve.

Only as many lose their place as reserves take one, and what they still send while the round is open counts.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

from sqlalchemy import Connection, Row, exists, select, update

from audit.events import EventType
from audit.reading import reading
from audit.writing import writing
from compliance.subjects import UNRESTRICTED, SubjectState
from compliance.tables import subjects
from gateway.auth.roster import ClientStatus
from gateway.rounds.eligibility import batches, still_eligible
from gateway.rounds.invitations import InvitationStatus, ask
from gateway.rounds.record import Round, RoundStatus, lock_round
from gateway.rounds.strategy import selection_of
from gateway.services import Services
from gateway.tables import client_updates, clients, invitations

_Ids = tuple[str, ...]


@dataclass(frozen=True, slots=True)
class _Change:
    """What is to be done, as ids of invitations: whom to ask, who loses the place, who is gone."""

    asked: tuple[tuple[str, str], ...]
    replaced: _Ids
    withdrawn: _Ids
    left: int


def replace_dropouts(services: Services, found: Round) -> int:
    """Ask reserves of an active round for every place that is empty; returns how many were asked."""
    if not selection_of(found).reserves:
        return 0
    now = services.clock()
    with reading(services.engine) as conn:
        planned = _plan(conn, found, now)
    if not planned.asked:
        return 0
    entry = services.trail.draft(
        EventType.ROUND_SELECTED,
        resource=f"round/{found.round_number}",
        details={
            "round_number": found.round_number,
            "strategy": selection_of(found).strategy.value,
            "reason": "dropouts",
            "chosen": len(planned.asked),
            "reserves": planned.left,
            "policy_hash": found.policy_hash,
        },
    )

    def write(conn: Connection) -> int:
        locked = lock_round(conn, found.round_id)
        if _plan(conn, locked, now) != planned:
            return 0  # an update came, or another worker was faster: the next look plans again
        if len(still_eligible(conn, [client_id for _, client_id in planned.asked])) < len(planned.asked):
            return 0
        _write(conn, locked, planned, now)
        services.trail.write(conn, entry)
        return len(planned.asked)

    return writing(services.engine, write)


def _is_waiting(found: Round, now: datetime) -> bool:
    is_open = found.status is RoundStatus.ACTIVE and not found.closing and found.paused_at is None
    return is_open and now < found.deadline


def _plan(conn: Connection, found: Round, now: datetime) -> _Change:
    if not _is_waiting(found, now):
        return _Change((), (), (), 0)
    reserves = _rows(conn, found, InvitationStatus.RESERVE)
    if not reserves:
        return _Change((), (), (), 0)
    asked = _rows(conn, found, InvitationStatus.INVITED, InvitationStatus.REPLACED)
    answered = sum(row.has_answered for row in asked)
    waiting = [row for row in asked if row.status == InvitationStatus.INVITED and not row.has_answered]
    gone = [row for row in waiting if not _is_active(row)]
    late = [row for row in waiting if _is_active(row) and _is_late(found, row, now)]
    vacant = max(found.planned_clients - answered - (len(waiting) - len(gone)), 0)
    ready = [row for row in reserves if _is_active(row)]
    taken = ready[: vacant + len(late)]
    return _Change(
        asked=tuple((row.invitation_id, row.client_id) for row in taken),
        replaced=tuple(row.invitation_id for row in late[: max(len(taken) - vacant, 0)]),
        withdrawn=tuple(row.invitation_id for row in [*gone, *reserves] if not _is_active(row)),
        left=len(ready) - len(taken),
    )


def _rows(conn: Connection, found: Round, *statuses: InvitationStatus) -> list[Row[Any]]:
    """The invitations of these statuses in the order of the draw, with what has become of their clients."""
    answered = exists().where(
        client_updates.c.round_id == invitations.c.round_id,
        client_updates.c.client_id == invitations.c.client_id,
    )
    query = (
        select(
            invitations.c.invitation_id,
            invitations.c.client_id,
            invitations.c.status,
            invitations.c.invited_at,
            clients.c.status.label("client_status"),
            subjects.c.state,
            UNRESTRICTED.label("is_free"),
            answered.label("has_answered"),
        )
        .outerjoin(clients, clients.c.client_id == invitations.c.client_id)
        .outerjoin(subjects, subjects.c.subject_id == clients.c.subject_id)
        .where(
            invitations.c.round_id == found.round_id,
            invitations.c.status.in_([status.value for status in statuses]),
        )
        .order_by(invitations.c.rank)
    )
    return list(conn.execute(query))


def _is_active(row: Row[Any]) -> bool:
    is_there = row.client_status == ClientStatus.ACTIVE.value and row.state == SubjectState.ACTIVE.value
    return bool(is_there and row.is_free)


def _is_late(found: Round, row: Row[Any], now: datetime) -> bool:
    patience_s = selection_of(found).respond_within_s
    return patience_s is not None and bool(row.invited_at <= now - timedelta(seconds=patience_s))


def _write(conn: Connection, found: Round, change: _Change, now: datetime) -> None:
    _move(conn, change.replaced, {"status": InvitationStatus.REPLACED.value})
    _move(conn, change.withdrawn, {"status": InvitationStatus.WITHDRAWN.value})
    taken = tuple(invitation_id for invitation_id, _ in change.asked)
    _move(conn, taken, {"status": InvitationStatus.INVITED.value, "invited_at": now})
    ask(conn, found, change.asked, now)


def _move(conn: Connection, ids: _Ids, values: dict[str, Any]) -> None:
    for batch in batches(ids):
        conn.execute(update(invitations).where(invitations.c.invitation_id.in_(batch)).values(values))
