"""The privacy ledger: epsilon spent never exceeds the budget, also with two writers racing and after a crash.

A line is `reserved -> spent | released` and holds the mechanism, not an epsilon (RULES 8). The accountant runs
outside of transactions; what it allowed is stored by compare-and-set on the lineage's ledger version.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from decimal import Decimal
from enum import StrEnum
from typing import Any

from sqlalchemy import Connection, insert, select, update

from aggregation.accountant import Mechanism, decimal_up, epsilon
from gateway.errors import BudgetExceeded, ValidationFailed
from gateway.rounds.lineage import Lineage
from gateway.rounds.record import RoundStatus
from gateway.services import Services
from gateway.storage.state import Spend
from gateway.tables import models, privacy_ledger, rounds

BARE = {"kind": "none"}


class LineStatus(StrEnum):
    """A ledger line is reserved first; then its noise was drawn, or never will be."""

    RESERVED = "reserved"
    SPENT = "spent"
    RELEASED = "released"


@dataclass(frozen=True, slots=True)
class Line:
    """One release's place in the ledger."""

    ledger_id: str
    model_id: str
    round_number: int
    status: LineStatus
    mechanism: Mechanism
    unit: str


class LedgerMoved(Exception):
    """Another writer changed the lineage's ledger since the budget was checked: check again."""


def mechanism_json(mechanism: Mechanism, unit: str) -> dict[str, Any]:
    """The mechanism as the ledger and the state keep it: decimal strings, no floats."""
    return {
        "noise_multiplier": repr(mechanism.noise_multiplier),
        "sampling_rate": repr(mechanism.sampling_rate),
        "count": mechanism.count,
        "distance": repr(mechanism.distance),
        "unit": unit,
    }


def mechanism_from_json(stored: Mapping[str, Any]) -> Mechanism:
    """The inverse of `mechanism_json`."""
    return Mechanism(
        noise_multiplier=float(stored["noise_multiplier"]),
        sampling_rate=float(stored["sampling_rate"]),
        count=int(stored["count"]),
        distance=float(stored["distance"]),
    )


def read_lines(conn: Connection, model_id: str) -> list[Line]:
    """The lines of a lineage that count: reserved and spent."""
    query = select(privacy_ledger).where(
        privacy_ledger.c.model_id == model_id,
        privacy_ledger.c.status.in_([LineStatus.RESERVED.value, LineStatus.SPENT.value]),
    )
    return [_line(row._mapping) for row in conn.execute(query.order_by(privacy_ledger.c.round_number))]


def check_budget(lineage: Lineage, lines: Sequence[Line], new: Mechanism, unit: str) -> None:
    """Whether the release fits into what is left; call it outside of transactions.

    Raises:
        BudgetExceeded: with it, epsilon would pass the budget.
        ValidationFailed: the lineage's claims are about another privacy unit.
    """
    if any(line.unit != unit for line in lines):
        said = f"this lineage's privacy ledger is about the unit {lines[0].unit}; claims of two units cannot be added"
        raise ValidationFailed([{"pointer": "/privacy/unit", "detail": said}])
    if lineage.epsilon_budget is None or lineage.delta is None:
        return
    total = epsilon([*(line.mechanism for line in lines), new], float(lineage.delta))
    if Decimal(total) > Decimal(lineage.epsilon_budget):
        raise BudgetExceeded(
            f"This round would bring epsilon to {decimal_up(total)}; the budget is {lineage.epsilon_budget} "
            f"at delta {lineage.delta}. Use a larger noise multiplier, or register a new model",
            epsilon_with_round=decimal_up(total),
            epsilon_budget=lineage.epsilon_budget,
        )


def reserve(conn: Connection, lineage: Lineage, line: Line, now: datetime) -> None:
    """Write the reservation, if the ledger is still the one that was checked.

    Raises:
        LedgerMoved: it is not.
    """
    moved = conn.execute(
        update(models)
        .where(models.c.model_id == lineage.model_id, models.c.ledger_version == lineage.ledger_version)
        .values(ledger_version=lineage.ledger_version + 1)
    )
    if moved.rowcount == 0:
        raise LedgerMoved
    _insert(conn, line, now)


def settle(conn: Connection, ledger_id: str, status: LineStatus, now: datetime) -> None:
    """Move a reserved line to its end, and let waiting checks see that the ledger moved."""
    moved = conn.execute(
        update(privacy_ledger)
        .where(privacy_ledger.c.ledger_id == ledger_id, privacy_ledger.c.status == LineStatus.RESERVED.value)
        .values(status=status.value, updated_at=now)
        .returning(privacy_ledger.c.model_id)
    ).scalar_one_or_none()
    if moved is not None:
        _bump(conn, moved)


def insist_spent(conn: Connection, line: Line, now: datetime) -> bool:
    """Make a line spent whatever a restored database says of it; True if that changed anything."""
    known = conn.execute(
        select(privacy_ledger.c.status).where(privacy_ledger.c.ledger_id == line.ledger_id)
    ).scalar_one_or_none()
    if known == LineStatus.SPENT.value:
        return False
    if known is None:
        _insert(conn, line, now)
    chosen = update(privacy_ledger).where(privacy_ledger.c.ledger_id == line.ledger_id)
    conn.execute(chosen.values(status=LineStatus.SPENT.value, updated_at=now))
    _bump(conn, line.model_id)
    return True


def claim_delta(lineage: Lineage) -> str:
    """The delta at which the lineage's epsilon is stated, a decimal string."""
    return lineage.delta or "0.00001"


def spent_epsilon(lineage: Lineage, lines: Sequence[Line]) -> float:
    """Epsilon of what was spent and reserved, at `claim_delta`."""
    if not lines:
        return 0.0
    return float(epsilon([line.mechanism for line in lines], float(claim_delta(lineage))))


def epsilon_if_cohort_known(lineage: Lineage, lines: Sequence[Line]) -> float:
    """The same without what sampling earned: it holds also against readers who see who took part (RULES 12)."""
    known = [replace(line, mechanism=replace(line.mechanism, sampling_rate=1.0)) for line in lines]
    return spent_epsilon(lineage, known)


def spend_facts(lineage: Lineage, lines: Sequence[Line], *, bare: bool) -> dict[str, str]:
    """What an entry says of a lineage's spend; where rounds sampled, the log's readers see who took part (RULES 12)."""
    spent = known = math.inf
    if not bare:
        spent, known = spent_epsilon(lineage, lines), epsilon_if_cohort_known(lineage, lines)
    told = {"epsilon_spent": decimal_up(spent), "delta": claim_delta(lineage)}
    is_sampled = any(line.mechanism.sampling_rate < 1 for line in lines)
    return told | ({"epsilon_if_cohort_known": decimal_up(known)} if is_sampled else {})


def bare_spend(model_id: str, round_number: int) -> Spend:
    """A release without noise, as the state keeps it: it spends everything, whatever a restored database knows."""
    return Spend(f"bare|{model_id}|{round_number}", model_id, round_number, BARE)


def has_bare_release(services: Services, conn: Connection, model_id: str, up_to: int | None = None) -> bool:
    """Whether a completed round of the lineage had no noise, so that no finite epsilon holds after it."""
    if any(
        spend.mechanism == BARE
        and spend.model_id == model_id
        and (up_to is None or spend.round_number <= up_to)
        for spend in services.state.spends()
    ):
        return True
    query = select(rounds.c.round_id).where(
        rounds.c.model_id == model_id,
        rounds.c.status == RoundStatus.COMPLETED.value,
        rounds.c.ledger_id.is_(None),
    )
    if up_to is not None:
        query = query.where(rounds.c.round_number <= up_to)
    return conn.execute(query.limit(1)).first() is not None


def _bump(conn: Connection, model_id: str) -> None:
    chosen = update(models).where(models.c.model_id == model_id)
    conn.execute(chosen.values(ledger_version=models.c.ledger_version + 1))


def _insert(conn: Connection, line: Line, now: datetime) -> None:
    conn.execute(
        insert(privacy_ledger).values(
            ledger_id=line.ledger_id,
            model_id=line.model_id,
            round_number=line.round_number,
            status=line.status.value,
            mechanism=mechanism_json(line.mechanism, line.unit),
            created_at=now,
            updated_at=now,
        )
    )


def _line(row: Mapping[Any, Any]) -> Line:
    return Line(
        ledger_id=row["ledger_id"],
        model_id=row["model_id"],
        round_number=row["round_number"],
        status=LineStatus(row["status"]),
        mechanism=mechanism_from_json(row["mechanism"]),
        unit=row["mechanism"]["unit"],
    )
