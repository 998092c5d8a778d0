"""A round as the database keeps it, and the questions that the API and the worker ask about rounds."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum
from typing import Any

from sqlalchemy import Connection, bindparam, func, select

from gateway.errors import NoOpenRound, NotFound
from gateway.tables import client_updates, rounds


class RoundStatus(StrEnum):
    """The states of a round (the design's names)."""

    INITIALIZED = "initialized"
    SELECTING = "selecting"
    ACTIVE = "active"
    AGGREGATING = "aggregating"
    COMPLETED = "completed"
    FAILED = "failed"

    @property
    def is_open(self) -> bool:
        """Whether a lineage may have no other round beside it."""
        return self not in (RoundStatus.COMPLETED, RoundStatus.FAILED)


class UpdateStatus(StrEnum):
    """What became of an update."""

    ACCEPTED = "accepted"
    COUNTED = "counted"
    DROPPED = "dropped"


_SHOWN = [
    column for column in rounds.c if column is not rounds.c.cohort
]  # a cohort may be a hundred thousand ids
_BY_NUMBER = select(*_SHOWN).where(rounds.c.round_number == bindparam("number"))
_LOCKED = select(rounds).where(rounds.c.round_id == bindparam("id")).with_for_update()
_LOCKED_SHARED = select(rounds).where(rounds.c.round_id == bindparam("id")).with_for_update(read=True)
OPEN_STATUSES = tuple(status.value for status in RoundStatus if status.is_open)


@dataclass(frozen=True, slots=True)
class Round:
    """One round. `policy` is the aggregation policy's JSON, `selection` None where every client may come.

    `cohort` is the frozen update ids in order, read by `open_rounds`, `whole_round` and `lock_round` alone.
    """

    round_id: int
    round_number: int
    status: RoundStatus
    model_id: str
    base_version: str
    result_version: str | None
    policy: dict[str, Any]
    policy_hash: str
    training_config: dict[str, Any]
    deadline: datetime
    started_at: datetime
    completed_at: datetime | None
    planned_clients: int
    min_clients: int
    closing: bool
    num_updates: int | None
    cohort: tuple[str, ...]
    ledger_id: str | None
    failure: str | None
    selection: dict[str, Any] | None = None
    acceptance: dict[str, Any] | None = None
    paused_at: datetime | None = None
    extension_s: int | None = None
    extensions_left: int | None = None


def find_round(conn: Connection, round_number: int) -> Round:
    """The round of that number.

    Raises:
        NotFound: there is none.
    """
    row = conn.execute(_BY_NUMBER, {"number": round_number}).one_or_none()
    if row is None:
        raise NotFound("There is no such round")
    return _round(row._mapping)


def lock_round(conn: Connection, round_id: int, *, shared: bool = False) -> Round:
    """The round as it is now, locked until the transaction ends (RULES 5)."""
    query = _LOCKED_SHARED if shared else _LOCKED
    return _round(conn.execute(query, {"id": round_id}).one()._mapping)


def whole_round(conn: Connection, round_id: int) -> Round:
    """The round as it is now, with its cohort."""
    return _round(conn.execute(select(rounds).where(rounds.c.round_id == round_id)).one()._mapping)


def current_round(conn: Connection) -> Round:
    """The newest round that takes updates.

    Raises:
        NoOpenRound: there is none.
    """
    query = select(*_SHOWN).where(rounds.c.status == RoundStatus.ACTIVE.value)
    row = conn.execute(query.order_by(rounds.c.round_number.desc()).limit(1)).one_or_none()
    if row is None:
        raise NoOpenRound("No round takes updates now: ask again later")
    return _round(row._mapping)


def list_rounds(conn: Connection, *, limit: int, offset: int) -> tuple[list[Round], int]:
    """Rounds, the newest first, and how many there are."""
    query = select(*_SHOWN).order_by(rounds.c.round_number.desc()).limit(limit).offset(offset)
    total = conn.execute(select(func.count()).select_from(rounds)).scalar_one()
    return [_round(row._mapping) for row in conn.execute(query)], total


def newest_open_rounds(conn: Connection, *, limit: int) -> list[Round]:
    """Rounds that have not ended, the newest first, without their cohorts."""
    query = select(*_SHOWN).where(rounds.c.status.in_(OPEN_STATUSES))
    return [
        _round(row._mapping)
        for row in conn.execute(query.order_by(rounds.c.round_number.desc()).limit(limit))
    ]


def open_rounds(conn: Connection) -> list[Round]:
    """Every round that has not ended, the oldest first."""
    query = select(rounds).where(rounds.c.status.in_(OPEN_STATUSES)).order_by(rounds.c.round_number)
    return [_round(row._mapping) for row in conn.execute(query)]


def has_open_round(conn: Connection, model_id: str) -> bool:
    """Whether the lineage has a round that has not ended."""
    query = select(rounds.c.round_id).where(rounds.c.model_id == model_id, rounds.c.status.in_(OPEN_STATUSES))
    return conn.execute(query.limit(1)).first() is not None


def next_round_number(conn: Connection) -> int:
    """The number that the next round gets; unique across lineages."""
    return (conn.execute(select(func.max(rounds.c.round_number))).scalar_one() or 0) + 1


def accepted_count(conn: Connection, round_id: int) -> int:
    """How many updates the round has accepted."""
    query = select(func.count()).where(
        client_updates.c.round_id == round_id, client_updates.c.status == UpdateStatus.ACCEPTED.value
    )
    return int(conn.execute(query).scalar_one())


def accepted_ids(conn: Connection, round_id: int) -> tuple[str, ...]:
    """The ids of the round's accepted updates, in the order in which they are summed."""
    query = select(client_updates.c.update_id).where(
        client_updates.c.round_id == round_id, client_updates.c.status == UpdateStatus.ACCEPTED.value
    )
    return tuple(sorted(str(found) for found in conn.execute(query).scalars()))


def _round(row: Mapping[Any, Any]) -> Round:
    return Round(
        round_id=row["round_id"],
        round_number=row["round_number"],
        status=RoundStatus(row["status"]),
        model_id=row["model_id"],
        base_version=row["global_model_version"],
        result_version=row["result_version"],
        policy=row["policy"],
        policy_hash=row["policy_hash"],
        training_config=row["training_config"],
        deadline=row["deadline"],
        started_at=row["started_at"],
        completed_at=row["completed_at"],
        planned_clients=row["planned_clients"],
        min_clients=row["min_clients"],
        closing=row["closing"],
        num_updates=row["num_updates"],
        cohort=tuple(row.get("cohort") or ()),
        ledger_id=row["ledger_id"],
        failure=row["failure"],
        selection=row["selection"],
        acceptance=row["acceptance"],
        paused_at=row["paused_at"],
        extension_s=row["extension_s"],
        extensions_left=row["extensions_left"],
    )
