"""Invitations as rows: whom a round asked, who may answer, and what a client is asked for now."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from enum import StrEnum
from typing import Any
from uuid import uuid4

from sqlalchemy import ColumnElement, Connection, Select, exists, null, select, update

from gateway.auth.roster import ClientStatus
from gateway.errors import NotInvited
from gateway.messaging.outbox import Body, QueueName, post_all
from gateway.rounds.eligibility import batches
from gateway.rounds.record import Round, RoundStatus
from gateway.rounds.strategy import Strategy, selection_of
from gateway.tables import client_updates, clients, invitations, rounds


class InvitationStatus(StrEnum):
    """Where a drawn client stands."""

    RESERVE = "reserve"
    INVITED = "invited"
    REPLACED = "replaced"
    """Its time is over and a reserve was asked; what it sends while the round is open still counts."""
    WITHDRAWN = "withdrawn"
    """The client was suspended or ended."""


MAY_ANSWER = (InvitationStatus.INVITED.value, InvitationStatus.REPLACED.value)
_MOST_SHOWN = 100


@dataclass(frozen=True, slots=True)
class Invitation:
    """A round that asks a client for an update; `invitation_id` and `invited_at` are None where all may come."""

    invitation_id: str | None
    invited_at: datetime | None
    status: str
    round_number: int
    base_version: str
    policy_hash: str
    training_config: dict[str, Any]
    deadline: datetime


def new_invitation(
    round_id: int, client_id: str, rank: int, status: InvitationStatus, now: datetime
) -> dict[str, Any]:
    """The row of a client just drawn."""
    return {
        "invitation_id": str(uuid4()),
        "round_id": round_id,
        "client_id": client_id,
        "rank": rank,
        "status": status.value,
        "created_at": now,
        "invited_at": now if status is InvitationStatus.INVITED else None,
    }


def ask(conn: Connection, found: Round, asked: Sequence[tuple[str, str]], now: datetime) -> None:
    """Post the invitations (id, client) and, where it is no secret, remember when their clients were chosen."""
    bodies: list[Body] = [
        {"invitation_id": invitation_id, "round_number": found.round_number} for invitation_id, _ in asked
    ]
    post_all(conn, QueueName.TRAINING_INVITATIONS, bodies, now)
    if selection_of(found).strategy is Strategy.POISSON:
        return  # a later fair round would tell who was sampled
    for batch in batches(sorted(client_id for _, client_id in asked)):
        chosen = update(clients).where(clients.c.client_id.in_(batch))
        conn.execute(chosen.values(last_chosen_at=now))


def insist_invited(conn: Connection, found: Round, client_id: str) -> None:
    """Raise NotInvited if the round chose its clients, and not this one."""
    if found.selection is None:
        return
    query = select(invitations.c.status).where(
        invitations.c.round_id == found.round_id, invitations.c.client_id == client_id
    )
    if conn.execute(query).scalar_one_or_none() not in MAY_ANSWER:
        raise NotInvited(
            "This round chose other clients: GET /api/v1/invitations shows the rounds that ask you"
        )


def open_invitations(conn: Connection, client_id: str, now: datetime) -> list[Invitation]:
    """The rounds that ask this client for an update now, the newest first; those it has answered are left out."""
    own = _open(client_id, now).join(invitations, invitations.c.round_id == rounds.c.round_id)
    chosen = own.add_columns(
        invitations.c.invitation_id, invitations.c.invited_at, invitations.c.status
    ).where(invitations.c.client_id == client_id, invitations.c.status.in_(MAY_ANSWER))
    for_all = (
        _open(client_id, now)
        .add_columns(null().label("invitation_id"), null().label("invited_at"), null().label("status"))
        .where(rounds.c.selection.is_(None))
    )
    rows = [row for query in (chosen, for_all) for row in conn.execute(query.limit(_MOST_SHOWN))]
    found = [_invitation(row) for row in rows]
    return sorted(found, key=lambda one: one.round_number, reverse=True)


def grant_time(conn: Connection, round_id: int, more: timedelta) -> None:
    """Let a round's waiting clients have this much longer to answer, as after a pause."""
    waiting = (invitations.c.round_id == round_id, invitations.c.status == InvitationStatus.INVITED.value)
    asked = (
        select(invitations.c.invited_at).where(*waiting).distinct().order_by(invitations.c.invited_at.desc())
    )
    for invited_at in conn.execute(asked).scalars().all():  # the latest first: none is moved twice
        chosen = update(invitations).where(*waiting, invitations.c.invited_at == invited_at)
        conn.execute(chosen.values(invited_at=invited_at + more))


def has_answered(client_id: Any) -> ColumnElement[bool]:
    """Whether that client has an update in the round of the same query."""
    return exists().where(
        client_updates.c.round_id == rounds.c.round_id, client_updates.c.client_id == client_id
    )


def _open(client_id: str, now: datetime) -> Select[Any]:
    return (
        select(
            rounds.c.round_number,
            rounds.c.global_model_version,
            rounds.c.policy_hash,
            rounds.c.training_config,
            rounds.c.deadline,
        )
        .where(
            rounds.c.status == RoundStatus.ACTIVE.value,
            rounds.c.closing.is_(False),
            rounds.c.paused_at.is_(None),
            rounds.c.deadline > now,
            ~has_answered(client_id),
            exists().where(  # a poll may have begun before the client was suspended, ended or erased
                clients.c.client_id == client_id, clients.c.status == ClientStatus.ACTIVE.value
            ),
        )
        .order_by(rounds.c.round_number.desc())
    )


def _invitation(row: Any) -> Invitation:
    return Invitation(
        invitation_id=row.invitation_id,
        invited_at=row.invited_at,
        status=row.status or InvitationStatus.INVITED.value,
        round_number=row.round_number,
        base_version=row.global_model_version,
        policy_hash=row.policy_hash,
        training_config=row.training_config,
        deadline=row.deadline,
    )
