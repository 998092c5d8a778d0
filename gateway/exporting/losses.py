"""A person's privacy loss in each model that it helped to train: what bounds it, or that nothing does (promise 9)."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from sqlalchemy import func, select

from aggregation.accountant import ADJACENCY
from audit.reading import reading
from compliance.packages.columns import ExportColumn, Form
from compliance.places import ExportPart, ExportTable
from gateway.rounds.record import UpdateStatus
from gateway.services import Services
from gateway.tables import client_updates, clients, models, rounds

LOSSES = (
    ExportColumn("model_id", Form.ID, "the model"),
    ExportColumn("name", Form.TEXT, "what its operator calls it"),
    ExportColumn("rounds", Form.INTEGER, "in how many of its rounds an update of yours was counted"),
    ExportColumn("first_round", Form.INTEGER, "the first of them"),
    ExportColumn("last_round", Form.INTEGER, "the last of them"),
    ExportColumn("epsilon", Form.TEXT, "bounds what all its versions tell of a unit", is_optional=True),
    ExportColumn("delta", Form.TEXT, "goes with epsilon", is_optional=True),
    ExportColumn("unit", Form.TEXT, "whom it protects: a client, or a record", is_optional=True),
    ExportColumn("adjacency", Form.TEXT, "what is compared", is_optional=True),
    ExportColumn(
        "epsilon_if_cohort_known", Form.TEXT, "the bound for who knows who took part", is_optional=True
    ),
    ExportColumn("meaning", Form.TEXT, "the claim in words"),
)
_BOUNDED = (
    "Whatever anybody does with the versions of this model, they tell little more of a unit than without it: chances "
    "change by a factor of e^epsilon at most, but for a probability of delta."
)
_UNBOUNDED = "Nothing bounds what this model tells: a release of it had no noise, or its rule has no proof."
_TITLE = "What bounds your influence on each model, and what it can tell of you (differential privacy)"


def privacy_losses(services: Services, subject: str) -> Iterator[ExportPart]:
    """One row a model; nothing for who never took part."""
    from gateway.api.reports import budget_lines  # the API's modules know the desk, which knows this one

    took_part = _took_part(services, subject)
    if took_part:
        budgets = {line["model_id"]: line for line in budget_lines(services)}
        rows = [_loss(row, budgets[row.model_id]) for row in took_part]
        yield ExportTable("privacy_loss", "Art. 15", _TITLE, LOSSES, rows)


def _took_part(services: Services, subject: str) -> list[Any]:
    own = select(clients.c.client_id).where(clients.c.subject_id == subject)
    query = (
        select(
            models.c.model_id,
            models.c.name,
            func.count().label("rounds"),
            func.min(rounds.c.round_number).label("first"),
            func.max(rounds.c.round_number).label("last"),
        )
        .select_from(client_updates)
        .join(rounds, rounds.c.round_id == client_updates.c.round_id)
        .join(models, models.c.model_id == rounds.c.model_id)
        .where(client_updates.c.client_id.in_(own), client_updates.c.status == UpdateStatus.COUNTED.value)
        .group_by(models.c.model_id, models.c.name)
        .order_by(models.c.model_id)
    )
    with reading(services.engine) as conn:
        return list(conn.execute(query))


def _loss(row: Any, budget: dict[str, Any]) -> dict[str, Any]:
    is_bounded = budget["unit"] is not None and budget["epsilon_spent"] is not None
    claim = ("epsilon_spent", "delta", "unit", "epsilon_if_cohort_known")
    epsilon, delta, unit, if_known = (budget[name] if is_bounded else None for name in claim)
    return {
        "model_id": row.model_id,
        "name": row.name,
        "rounds": row.rounds,
        "first_round": row.first,
        "last_round": row.last,
        "epsilon": epsilon,
        "delta": delta,
        "unit": unit,
        "adjacency": ADJACENCY if is_bounded else None,
        "epsilon_if_cohort_known": if_known,
        "meaning": _BOUNDED if is_bounded else _UNBOUNDED,
    }
