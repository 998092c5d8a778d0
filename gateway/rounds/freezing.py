"""The end of a round's intake: its cohort is fixed in ONE transaction, or the round fails (RULES 5, 6)."""

from __future__ import annotations

from datetime import datetime

from sqlalchemy import Connection, update

from audit.entry import Draft
from audit.events import EventType, Outcome
from compliance.keys import SeedState
from gateway.rounds.ledger import LineStatus, settle
from gateway.rounds.record import (
    Round,
    RoundStatus,
    UpdateStatus,
    accepted_count,
    accepted_ids,
    lock_round,
)
from gateway.services import Services
from gateway.storage.database import reading
from gateway.tables import client_updates, rounds


def is_due(found: Round, accepted: int, now: datetime) -> bool:
    """Whether the intake ends: enough came, time is over, or the operator closed the round."""
    return found.closing or accepted >= found.planned_clients or now >= found.deadline


def freeze(services: Services, found: Round) -> bool:
    """Fix the cohort of a round whose intake is over; True once it is fixed or the round has failed.

    Entries are sealed before the transaction; if an update came or went meanwhile, nothing is written and the
    next look tries again.
    """
    now = services.clock()
    with reading(services.engine) as conn:
        if not is_due(found, accepted_count(conn, found.round_id), now):
            return False
        cohort = accepted_ids(conn, found.round_id)
    if len(cohort) < found.min_clients:
        return fail(services, found, "TOO_FEW_UPDATES", expected=cohort)
    entry = services.trail.draft(
        EventType.ROUND_FROZEN,
        resource=f"round/{found.round_number}",
        details={
            "round_number": found.round_number,
            "num_updates": len(cohort),
            "planned_clients": found.planned_clients,
            "policy_hash": found.policy_hash,
        },
    )
    with services.engine.begin() as conn:
        if not _unchanged(conn, found, cohort):
            return False
        conn.execute(
            update(rounds)
            .where(rounds.c.round_id == found.round_id)
            .values(
                status=RoundStatus.AGGREGATING.value,
                cohort=list(cohort),
                num_updates=len(cohort),
                frozen_at=now,
            )
        )
        services.trail.write(conn, entry)
    services.crash("round.frozen")
    return True


def fail(services: Services, found: Round, reason: str, *, expected: tuple[str, ...] | None = None) -> bool:
    """End a round without a model. Its reservation is given back only if no noise can have been drawn (RULES 8).

    Args:
        services: the stores.
        found: the round.
        reason: a stable code.
        expected: the accepted updates on which the verdict rests; None if it rests on nothing of the kind.
    """
    now, stays = services.clock(), _spend_stays(services, found)
    entry = _failed_entry(services, found, reason, spend_stays=stays)
    with services.engine.begin() as conn:
        if expected is not None and not _unchanged(conn, found, expected):
            return False
        locked = lock_round(conn, found.round_id)
        if not locked.status.is_open:
            return True
        if locked.status is not found.status:
            return False  # another worker froze it: look again
        conn.execute(
            update(rounds)
            .where(rounds.c.round_id == found.round_id)
            .values(status=RoundStatus.FAILED.value, completed_at=now, failure=reason)
        )
        conn.execute(
            update(client_updates)
            .where(client_updates.c.round_id == found.round_id)
            .values(status=UpdateStatus.DROPPED.value)
        )
        if found.ledger_id:
            settle(conn, found.ledger_id, LineStatus.SPENT if stays else LineStatus.RELEASED, now)
        services.trail.write(conn, entry)
    if found.ledger_id:
        services.keystore.destroy_seed(found.ledger_id)
    return True


def _spend_stays(services: Services, found: Round) -> bool:
    """Whether noise may have been drawn: by a worker that has the frozen cohort at this moment, or ever before."""
    if not found.ledger_id:
        return False
    if found.status is RoundStatus.AGGREGATING:
        return True
    was_drawn = any(spend.ledger_id == found.ledger_id for spend in services.state.spends())
    return was_drawn or services.keystore.seed_state(found.ledger_id) is not SeedState.SEALED


def _unchanged(conn: Connection, found: Round, cohort: tuple[str, ...]) -> bool:
    locked = lock_round(conn, found.round_id)
    return locked.status is RoundStatus.ACTIVE and accepted_ids(conn, found.round_id) == cohort


def _failed_entry(services: Services, found: Round, reason: str, *, spend_stays: bool) -> Draft:
    return services.trail.draft(
        EventType.ROUND_FAILED,
        resource=f"round/{found.round_number}",
        outcome=Outcome.FAILURE,
        details={"round_number": found.round_number, "reason": reason, "spend_stays": spend_stays},
    )
