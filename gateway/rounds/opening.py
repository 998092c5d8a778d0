"""A new round: its policy is fixed, its spend reserved, and it is there, all in one transaction (RULES 7, 8).

It takes updates at once where every client may come; otherwise the worker first draws its clients.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Any
from uuid import uuid4

from sqlalchemy import Connection, insert
from sqlalchemy.exc import IntegrityError

from aggregation.accountant import Mechanism
from aggregation.grid import plan_grid
from aggregation.policy import Policy
from aggregation.policy_request import policy_from_request
from aggregation.wire import dimension, schema_from_json
from audit.events import EventType
from audit.reading import reading
from audit.writing import writing
from gateway.errors import BudgetExceeded, Conflict, RoundOpen, ValidationFailed
from gateway.rounds.intake_switch import insist_intake
from gateway.rounds.ledger import LedgerMoved, Line, LineStatus, check_budget, read_lines, reserve
from gateway.rounds.lineage import (
    Lineage,
    ModelVersion,
    find_lineage,
    find_version,
    lock_lineage,
    newest_lineage,
)
from gateway.rounds.portable import WHAT, is_portable
from gateway.rounds.record import Round, RoundStatus, has_open_round, next_round_number
from gateway.rounds.strategy import Selection, Strategy
from gateway.services import Services
from gateway.storage.bell import Channel
from gateway.tables import rounds

_TRIES = 5
_LONGEST = timedelta(days=3650)


@dataclass(frozen=True, slots=True)
class Extension:
    """By how much, and how often, the deadline is put off while too few have come."""

    seconds: int
    times: int


@dataclass(frozen=True, slots=True)
class RoundRequest:
    """What an operator asks for.

    `policy` is the wire form of aggregation and privacy, `acceptance` what the new model must reach
    (`metric`, `threshold`, `max_worsening`; the latter two may be None).
    """

    base_version: str | None
    deadline: datetime
    planned_clients: int
    min_clients: int
    training_config: Mapping[str, Any]
    policy: Mapping[str, Any]
    selection: Selection = field(default_factory=Selection)
    acceptance: Mapping[str, Any] | None = None
    extension: Extension | None = None


@dataclass(frozen=True, slots=True)
class _Plan:
    lineage: Lineage
    base: ModelVersion
    policy: Policy
    line: Line | None
    round_number: int


def open_round(
    services: Services,
    wish: RoundRequest,
    *,
    remember: Callable[[Round], Callable[[Connection], None]],
) -> Round:
    """Open a round: active at once where every client may come, else selecting until its clients are drawn.

    Args:
        services: the stores.
        wish: what the operator asks for.
        remember: makes, from the round to be, what stores its answer for an idempotent repetition.

    Raises:
        BudgetExceeded: the lineage's privacy budget does not allow it; nothing was reserved.
        RoundOpen: the lineage has an open round.
        IntakeStopped: the operator stopped all intake.
        NotFound: there is no such model.
        PolicyError, ValidationFailed: a value is wrong.
    """
    now = services.clock()
    if not now < wish.deadline < now + _LONGEST:
        detail = f"must lie in the future, within {_LONGEST.days} days"
        raise ValidationFailed([{"pointer": "/deadline", "detail": detail}])
    if not is_portable(wish.training_config):
        raise ValidationFailed([{"pointer": "/training_config", "detail": WHAT}])
    for _ in range(_TRIES):
        plan = _plan(services, wish)
        try:
            return _commit(services, wish, plan, now, remember)
        except (LedgerMoved, _BaseMoved, _NumberTaken):
            if plan.line:
                services.keystore.destroy_seed(plan.line.ledger_id)
    raise Conflict("Other rounds are being opened at the same time: try again")


class _BaseMoved(Exception):
    """Another version became the current one since the plan was made, as by a roll-back: plan again."""


class _NumberTaken(Exception):
    """Another round was given the number first."""


def _plan(services: Services, wish: RoundRequest) -> _Plan:
    with reading(services.engine) as conn:
        lineage, base = _base(conn, wish.base_version)
        if has_open_round(conn, lineage.model_id):
            raise RoundOpen("Close the lineage's open round first, or wait for it")
        lines = read_lines(conn, lineage.model_id)
        number = next_round_number(conn)
    coordinates = dimension(schema_from_json(lineage.schema))
    rate = wish.selection.sampling_rate
    policy = policy_from_request(
        _with_lineage_delta(wish.policy, lineage), coordinates=coordinates, sampling_rate=rate
    )
    if not policy.is_noised:
        _refuse_without_noise(lineage)
        return _Plan(lineage, base, policy, None, number)
    mechanism = plan_grid(policy, coordinates).mechanism(rate or 1.0)  # no other strategy earns amplification
    check_budget(lineage, lines, mechanism, policy.unit.value)
    line = _line(lineage, number, mechanism, policy)
    services.keystore.new_seed(line.ledger_id)  # committed before the reservation is
    return _Plan(lineage, base, policy, line, number)


def _base(conn: Connection, version: str | None) -> tuple[Lineage, ModelVersion]:
    if version is not None:
        base = find_version(conn, version)
        return find_lineage(conn, base.model_id), base
    lineage = newest_lineage(conn)
    return lineage, find_version(conn, lineage.current_version or "")


def _with_lineage_delta(wish: Mapping[str, Any], lineage: Lineage) -> dict[str, Any]:
    privacy = dict(wish.get("privacy") or {})
    if privacy.get("mechanism") == "gaussian" and privacy.get("delta") is None and lineage.delta:
        privacy["delta"] = float(lineage.delta)
    return {**wish, "privacy": privacy}


def _refuse_without_noise(lineage: Lineage) -> None:
    if lineage.epsilon_budget is not None:
        raise BudgetExceeded(
            "This model has a privacy budget, and a round without noise would spend all of it: "
            "use mechanism gaussian, or register the model without a budget",
            epsilon_budget=lineage.epsilon_budget,
        )


def _line(lineage: Lineage, number: int, mechanism: Mechanism, policy: Policy) -> Line:
    return Line(
        ledger_id=str(uuid4()),
        model_id=lineage.model_id,
        round_number=number,
        status=LineStatus.RESERVED,
        mechanism=mechanism,
        unit=policy.unit.value,
    )


def _commit(
    services: Services,
    wish: RoundRequest,
    plan: _Plan,
    now: datetime,
    remember: Callable[[Round], Callable[[Connection], None]],
) -> Round:
    row = _row(wish, plan, now)
    entry = services.trail.draft(
        EventType.ROUND_CREATED,
        resource=f"round/{plan.round_number}",
        details={
            "round_number": plan.round_number,
            "model_id": plan.lineage.model_id,
            "model_version": plan.base.version,
            "policy_hash": row["policy_hash"],
            "policy": json.dumps(row["policy"], sort_keys=True, separators=(",", ":")),
            "selection": json.dumps(
                row["selection"] or {"strategy": "all"}, sort_keys=True, separators=(",", ":")
            ),
        },
    )
    made = _as_round(row)
    store_answer = remember(made)

    def write(conn: Connection) -> None:
        locked = lock_lineage(conn, plan.lineage.model_id)
        insist_intake(conn)
        if wish.base_version is None and locked.current_version != plan.base.version:
            raise _BaseMoved
        if has_open_round(conn, plan.lineage.model_id):
            raise RoundOpen("Close the lineage's open round first, or wait for it")
        if plan.line:
            reserve(conn, plan.lineage, plan.line, now)
        conn.execute(insert(rounds).values(**row))
        store_answer(conn)
        services.trail.write(conn, entry)

    try:
        writing(services.engine, write)
    except IntegrityError as error:
        raise _NumberTaken from error
    if made.status is RoundStatus.ACTIVE:
        services.bell.ring(Channel.INVITATIONS)  # every client is invited
    return made


def _row(wish: RoundRequest, plan: _Plan, now: datetime) -> dict[str, Any]:
    return {
        "round_number": plan.round_number,
        "status": _first_status(wish.selection).value,
        "started_at": now,
        "global_model_version": plan.base.version,
        "model_id": plan.lineage.model_id,
        "policy": json.loads(plan.policy.canonical()),
        "policy_hash": plan.policy.digest(),
        "training_config": dict(wish.training_config),
        "deadline": wish.deadline,
        "planned_clients": plan.policy.planned_clients,
        "min_clients": plan.policy.min_clients,
        "closing": False,
        "ledger_id": plan.line.ledger_id if plan.line else None,
        "selection": wish.selection.stored(),
        "acceptance": dict(wish.acceptance) if wish.acceptance else None,
        "extension_s": wish.extension.seconds if wish.extension else None,
        "extensions_left": wish.extension.times if wish.extension else None,
    }


def _first_status(selection: Selection) -> RoundStatus:
    return RoundStatus.ACTIVE if selection.strategy is Strategy.ALL else RoundStatus.SELECTING


def _as_round(row: Mapping[str, Any]) -> Round:
    return Round(
        round_id=0,  # the database's own; nothing outside of it needs one
        round_number=row["round_number"],
        status=RoundStatus(row["status"]),
        model_id=row["model_id"],
        base_version=row["global_model_version"],
        result_version=None,
        policy=row["policy"],
        policy_hash=row["policy_hash"],
        training_config=row["training_config"],
        deadline=row["deadline"],
        started_at=row["started_at"],
        completed_at=None,
        planned_clients=row["planned_clients"],
        min_clients=row["min_clients"],
        closing=False,
        num_updates=None,
        cohort=(),
        ledger_id=row["ledger_id"],
        failure=None,
        selection=row["selection"],
        acceptance=row["acceptance"],
        extension_s=row["extension_s"],
        extensions_left=row["extensions_left"],
    )
