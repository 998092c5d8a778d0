"""Invitations on their way to the webhook: sent until taken, given up after a limit, found where no message came.

What counts is the row: `invited`, not delivered, in an open round. A withdrawn or erased invitation is not sent.
"""

from __future__ import annotations

import logging
import random
import time
from dataclasses import dataclass
from datetime import timedelta
from typing import Any

from sqlalchemy import ColumnElement, Row, Select, select, update

from audit.reading import reading
from gateway.messaging.outbox import QueueName
from gateway.messaging.queue import Message
from gateway.messaging.webhook import Webhook
from gateway.rounds.invitations import InvitationStatus
from gateway.rounds.record import RoundStatus
from gateway.services import Services
from gateway.tables import invitations, rounds

log = logging.getLogger(__name__)
MOST_TRIES = 20
SWEEP_S = 30.0
_MOST_WAITING = 200
_FIRST_PAUSE_S, _LONGEST_PAUSE_S = 0.5, 60.0
_LOOK_S = 0.5
_SWEPT = 500


@dataclass(slots=True)
class _Waiting:
    """An invitation that is to be sent; the sweep finds some that no message announced."""

    message: Message | None
    tries: int = 0
    due_s: float = 0.0


class Deliveries:
    """Sends invitations one after the other; when the webhook fails, all wait, since all go to the same place."""

    def __init__(self, services: Services, webhook: Webhook) -> None:
        self._services = services
        self._webhook = webhook
        self._waiting: dict[str, _Waiting] = {}
        self._given_up: set[str] = set()
        self._failures = 0
        self._quiet_until_s = self._next_sweep_s = 0.0

    def look(self) -> int:
        """Take what came, and send what is due; returns how many the webhook took."""
        self._take()
        self._sweep()
        taken = 0
        for invitation_id, waiting in list(self._waiting.items()):
            if time.monotonic() < max(self._quiet_until_s, waiting.due_s):
                continue
            taken += self._try(invitation_id, waiting)
        return taken

    def _take(self) -> None:
        room = _MOST_WAITING - len(self._waiting)
        queue = self._services.queue
        for message in queue.receive(QueueName.TRAINING_INVITATIONS, limit=room, wait_s=_LOOK_S):
            invitation_id = str(message.body["invitation_id"])
            if invitation_id in self._waiting:
                queue.ack([message])  # a double
            else:
                self._waiting[invitation_id] = _Waiting(message)

    def _sweep(self) -> None:
        """Find undelivered invitations that no message announced, or whose message was lost (RULES 4)."""
        if time.monotonic() < self._next_sweep_s or self._waiting:
            return
        self._next_sweep_s = time.monotonic() + SWEEP_S
        before = self._services.clock() - timedelta(seconds=SWEEP_S)
        query = self._due().where(invitations.c.invited_at < before).limit(_SWEPT)
        with reading(self._services.engine) as conn:
            found = {row.invitation_id for row in conn.execute(query)}
        self._given_up &= found
        for invitation_id in sorted(found - self._given_up)[:_MOST_WAITING]:
            self._waiting[invitation_id] = _Waiting(None)

    def _try(self, invitation_id: str, waiting: _Waiting) -> bool:
        with reading(self._services.engine) as conn:
            row = conn.execute(self._due(invitations.c.invitation_id == invitation_id)).one_or_none()
        taken = row is not None and self._webhook.post(self._notice(row), key=invitation_id)
        if taken:
            self._note_delivered(invitation_id)
            self._failures = 0
        if taken or row is None:
            self._settle(invitation_id, waiting)
        else:
            self._note_failure(invitation_id, waiting, int(row.round_number))
        return taken

    def _due(self, *more: ColumnElement[bool]) -> Select[Any]:
        """Invitations that are to be sent."""
        return (
            select(invitations, rounds.c.round_number, rounds.c.policy_hash, rounds.c.deadline)
            .join(rounds, rounds.c.round_id == invitations.c.round_id)
            .where(
                invitations.c.status == InvitationStatus.INVITED.value,
                invitations.c.delivered_at.is_(None),
                rounds.c.status == RoundStatus.ACTIVE.value,
                rounds.c.deadline > self._services.clock(),
                *more,
            )
        )

    def _notice(self, row: Row[Any]) -> dict[str, str | int]:
        return {
            "invitation_id": row.invitation_id,
            "round_number": row.round_number,
            "client_id": row.client_id,
            "status": row.status,
            "policy_hash": row.policy_hash,
            "deadline": row.deadline.isoformat().replace("+00:00", "Z"),
            "url": f"{self._services.config.public_url}/api/v1/rounds/{row.round_number}",
        }

    def _note_delivered(self, invitation_id: str) -> None:
        chosen = invitations.c.invitation_id == invitation_id
        with self._services.engine.begin() as conn:
            conn.execute(update(invitations).where(chosen).values(delivered_at=self._services.clock()))

    def _settle(self, invitation_id: str, waiting: _Waiting) -> None:
        if waiting.message:
            self._services.queue.ack([waiting.message])
        del self._waiting[invitation_id]

    def _note_failure(self, invitation_id: str, waiting: _Waiting, round_number: int) -> None:
        now_s = time.monotonic()
        waiting.tries += 1
        self._failures += 1
        waiting.due_s = now_s + _pause_s(waiting.tries)
        self._quiet_until_s = now_s + _pause_s(self._failures)
        if waiting.tries >= MOST_TRIES:
            log.error("the webhook never took an invitation to round %s: it is given up", round_number)
            if waiting.message:
                self._services.queue.reject([waiting.message])
            self._given_up.add(invitation_id)
            del self._waiting[invitation_id]


def _pause_s(failures: int) -> float:
    longest: float = min(_LONGEST_PAUSE_S, _FIRST_PAUSE_S * 2 ** min(failures - 1, 10))
    return longest * random.uniform(0.5, 1.0)  # noqa: S311 - spreads load, keeps no secret
