"""What the tests of client selection share: rounds that are about to draw, clients, and who was asked."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from federation import Federation, Silo
from sqlalchemy import select

from audit.reading import reading
from gateway.rounds.record import Round, find_round
from gateway.services import Services
from gateway.tables import clients, invitations

Entries = Callable[..., list[dict[str, Any]]]
RANDOM: dict[str, Any] = {"strategy": "random"}


def found(services: Services, number: int = 1) -> Round:
    """The round as it stands."""
    with reading(services.engine) as conn:
        return find_round(conn, number)


def invited(services: Services, *statuses: str) -> set[str]:
    """The clients whose invitations have one of these statuses."""
    wanted = statuses or ("invited",)
    with reading(services.engine) as conn:
        rows = conn.execute(select(invitations.c.client_id).where(invitations.c.status.in_(wanted)))
        return set(rows.scalars())


def open_selecting(federation: Federation, selection: dict[str, Any], **wish: Any) -> Round:
    """A round that is about to draw its clients."""
    answer = federation.open_round(selection=selection, **wish)
    assert answer.status_code == 201, answer.text
    assert answer.json["status"] == "selecting"
    return found(federation.services, answer.json["round_number"])


def people(federation: Federation, count: int, **device: Any) -> list[Silo]:
    """So many registered clients."""
    return [federation.register(f"silo-{place}", **device) for place in range(count)]


def subject_of(services: Services, silo: Silo) -> str:
    """Whose client it is."""
    with reading(services.engine) as conn:
        query = select(clients.c.subject_id).where(clients.c.client_id == silo.client_id)
        return str(conn.execute(query).scalar_one())
