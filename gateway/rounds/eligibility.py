"""Who may be chosen: active participants whose data may be used, seen lately, with the capabilities asked for.

A subject is one candidate however many clients it has, so that it is chosen once at most (RULES 12). What a device
registered is sealed: it is opened only where capabilities are asked for, in the order of the draw, until enough
are found.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from itertools import islice
from typing import Any, TypeVar

from sqlalchemy import Connection, Select, select

from audit.errors import KeyDestroyed
from audit.reading import reading
from compliance.subjects import UNRESTRICTED, SubjectState
from compliance.tables import subjects
from gateway.auth.roster import ClientStatus
from gateway.auth.scopes import Role
from gateway.rounds.strategy import Scalar, Selection
from gateway.services import Services
from gateway.tables import clients

BATCH = 500
_STREAMED = 5_000
_ROLES = (Role.PARTICIPANT.value, Role.EDGE.value)
T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Candidate:
    """A subject with its eligible clients, and when a round last chose one of them."""

    subject_id: str
    client_ids: tuple[str, ...]
    last_chosen_at: datetime | None


def candidates(services: Services, selection: Selection, now: datetime) -> list[Candidate]:
    """Every eligible subject, its capabilities not yet looked at."""
    query = select(clients.c.client_id, clients.c.subject_id, clients.c.last_chosen_at)
    since = selection.seen_since(now)
    if since is not None:
        query = query.where(clients.c.last_seen_at >= since)
    found: dict[str, Candidate] = {}
    with reading(services.engine) as conn:
        streamed = conn.execute(_active(query), execution_options={"yield_per": _STREAMED})
        for client_id, subject_id, chosen_at in streamed:
            known = found.get(subject_id)
            found[subject_id] = (
                Candidate(subject_id, (client_id,), chosen_at)
                if known is None
                else Candidate(
                    subject_id, (*known.client_ids, client_id), _later(known.last_chosen_at, chosen_at)
                )
            )
    return list(found.values())


def capable(services: Services, wanted: Mapping[str, Scalar], ordered: Sequence[Candidate]) -> Iterator[str]:
    """One client of each candidate that has what is wanted, in the candidates' order; looked up as far as asked."""
    for batch in batches(ordered):
        fit = _fit_clients(services, wanted, batch) if wanted else None
        for candidate in batch:
            own = [one for one in candidate.client_ids if fit is None or one in fit]
            if own:
                yield own[0]


def still_eligible(conn: Connection, client_ids: Sequence[str]) -> set[str]:
    """Those that are still active; their subjects are locked shared, so that no erasure overtakes this (RULES 18)."""
    still: set[str] = set()
    for batch in batches(sorted(client_ids)):
        own = select(clients.c.client_id, clients.c.subject_id, clients.c.status)
        rows = conn.execute(own.where(clients.c.client_id.in_(batch))).all()
        held = _held(conn, sorted({row.subject_id for row in rows}))
        still.update(
            row.client_id
            for row in rows
            if row.status == ClientStatus.ACTIVE.value and row.subject_id in held
        )
    return still


def _held(conn: Connection, subject_ids: list[str]) -> set[str]:
    """Lock subjects shared; those that may be used. By primary keys alone: a planner without statistics errs."""
    about = (subjects.c.subject_id, subjects.c.state, UNRESTRICTED.label("is_free"))
    query = select(*about).where(subjects.c.subject_id.in_(subject_ids))
    locked = conn.execute(query.order_by(subjects.c.subject_id).with_for_update(read=True))
    return {row.subject_id for row in locked if row.state == SubjectState.ACTIVE.value and row.is_free}


def batches(items: Sequence[T]) -> Iterator[list[T]]:
    """The items in lists that a statement can name."""
    rest = iter(items)
    while batch := list(islice(rest, BATCH)):
        yield batch


def offers(device: Any, wanted: Mapping[str, Scalar]) -> bool:
    """Whether what a device registered holds every wanted member: as much where it is a number, else the same."""
    if not isinstance(device, dict):
        return False
    registered = device.get("capabilities")
    told = {"platform": device.get("platform"), **(registered if isinstance(registered, dict) else {})}
    return all(_suffices(told.get(name), least) for name, least in wanted.items())


def _active(query: Select[Any]) -> Select[Any]:
    return query.join(subjects, subjects.c.subject_id == clients.c.subject_id).where(
        clients.c.status == ClientStatus.ACTIVE.value,
        clients.c.role.in_(_ROLES),
        subjects.c.state == SubjectState.ACTIVE.value,
        UNRESTRICTED,
    )


def _fit_clients(
    services: Services, wanted: Mapping[str, Scalar], batch: Iterable[Candidate]
) -> frozenset[str]:
    ids = [client_id for candidate in batch for client_id in candidate.client_ids]
    rows: list[Any] = []
    with reading(services.engine) as conn:
        for some in batches(ids):
            query = select(clients.c.client_id, clients.c.device).where(clients.c.client_id.in_(some))
            rows += conn.execute(query.where(clients.c.device.is_not(None)))
    return frozenset(row.client_id for row in rows if offers(_opened(services, row), wanted))


def _opened(services: Services, row: Any) -> Any:
    try:
        return services.sealer.open_column(row.device, "clients", "device", row.client_id)
    except KeyDestroyed:
        return None  # erased: it offers nothing


def _suffices(told: Any, least: Scalar) -> bool:
    if isinstance(least, bool) or isinstance(told, bool):
        return told is least
    if isinstance(least, int | float):
        return isinstance(told, int | float) and told >= least
    return bool(told == least)


def _later(first: datetime | None, second: datetime | None) -> datetime | None:
    known = [at for at in (first, second) if at is not None]
    return max(known) if known else None
