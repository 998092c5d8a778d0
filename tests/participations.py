"""Rows of rounds, updates and invitations, as if a client had taken part very often; no bytes lie behind them."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import datetime
from itertools import islice
from typing import Any
from uuid import UUID

from sqlalchemy import func, insert, select

from audit.events import Retention
from audit.reading import reading
from gateway.services import Services
from gateway.tables import client_updates, clients, invitations, models, rounds

_FIRST_NUMBER = 1000
_AT_ONCE = 200


def subject_of(services: Services, client_id: str) -> str:
    """Whose client it is."""
    with reading(services.engine) as conn:
        found: str = conn.execute(
            select(clients.c.subject_id).where(clients.c.client_id == client_id)
        ).scalar_one()
    return found


def add_participations(services: Services, client_id: str, count: int) -> list[int]:
    """Let the client have taken part in so many rounds; their numbers."""
    with reading(services.engine) as conn:
        first = (conn.scalar(select(func.max(rounds.c.round_id))) or 0) + 1
    subject, now, model_id = subject_of(services, client_id), services.clock(), _model(services)
    numbers = iter(range(count))
    while some := list(islice(numbers, _AT_ONCE)):
        made = [_round(first + n, model_id, now) for n in some]
        sent = list(_updates(services, subject, client_id, made))
        with services.engine.begin() as conn:
            conn.execute(insert(rounds), made)
            conn.execute(insert(client_updates), sent)
            conn.execute(insert(invitations), [_invitation(client_id, one, now) for one in made])
    return [_FIRST_NUMBER + first + n for n in range(count)]


def _model(services: Services) -> str:
    """A model for the rounds: one that is there, or a new one."""
    new: dict[str, Any] = {"name": "m", "major": 1, "schema": {}, "ledger_version": 0}
    with services.engine.begin() as conn:
        found = conn.execute(select(models.c.model_id)).scalars().first()
        if found is None:
            found = str(UUID(int=1))
            conn.execute(insert(models).values(model_id=found, created_at=services.clock(), **new))
    return found


def _round(round_id: int, model_id: str, now: datetime) -> dict[str, Any]:
    return {
        "round_id": round_id,
        "round_number": _FIRST_NUMBER + round_id,
        "status": "completed",
        "started_at": now,
        "global_model_version": "1.0.0",
        "model_id": model_id,
        "policy": {},
        "policy_hash": "0" * 64,
        "training_config": {},
        "deadline": now,
        "planned_clients": 1,
        "min_clients": 1,
        "closing": False,
    }


def _updates(
    services: Services, subject: str, client_id: str, made: list[dict[str, Any]]
) -> Iterator[dict[str, Any]]:
    now = services.clock()
    for one in made:
        update_id = str(UUID(int=one["round_id"]))
        seal = (subject, Retention.PARTICIPATION, "client_updates")
        key, _ = services.sealer.new_blob_key(subject, Retention.PARTICIPATION, update_id, now)
        yield {
            "update_id": update_id,
            "round_id": one["round_id"],
            "client_id": client_id,
            "submitted_at": now,
            "update_size_bytes": 1000,
            "status": "counted",
            "blob_id": f"{one['round_id']:064x}",
            "blob_key": key,
            "norm": services.sealer.seal_column(*seal, "norm", update_id, "1.5", now),
            "receipt": services.sealer.seal_column(*seal, "receipt", update_id, "a.b.c", now),
            "entry_id": update_id,
        }


def _invitation(client_id: str, one: dict[str, Any], now: datetime) -> dict[str, Any]:
    return {
        "invitation_id": str(UUID(int=one["round_id"])),
        "round_id": one["round_id"],
        "client_id": client_id,
        "rank": 0,
        "status": "invited",
        "created_at": now,
    }
