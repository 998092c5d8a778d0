"""Which rounds the clients of a subject sent updates for: the facts of a statement under Art. 11."""

from __future__ import annotations

from sqlalchemy import select

from audit.reading import reading
from compliance.parts import TakenPart
from gateway.rounds.record import UpdateStatus
from gateway.services import Services
from gateway.tables import client_updates, clients, rounds


def participation_of(services: Services, subject: str) -> list[TakenPart]:
    """The rounds in order, each with the model version that the update went into, if it did."""
    query = (
        select(
            rounds.c.round_number,
            rounds.c.result_version,
            client_updates.c.submitted_at,
            client_updates.c.status,
        )
        .join(client_updates, client_updates.c.round_id == rounds.c.round_id)
        .join(clients, clients.c.client_id == client_updates.c.client_id)
        .where(clients.c.subject_id == subject)
        .order_by(rounds.c.round_number, client_updates.c.submitted_at)
    )
    with reading(services.engine) as conn:
        rows = conn.execute(query).all()
    return [
        TakenPart(
            row.round_number,
            row.submitted_at,
            row.result_version if row.status == UpdateStatus.COUNTED.value else None,
        )
        for row in rows
    ]
