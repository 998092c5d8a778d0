"""A round's moves from state to state: its cohort is fixed in ONE transaction, or the round fails (RULES 5, 6)."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from datetime import datetime
from types import MappingProxyType

from sqlalchemy import Connection, update

from audit.canonical import JsonValue
from audit.draft import Personal
from audit.events import EventType, Outcome
from audit.reading import reading
from audit.writing import writing
from compliance.keyring.keys import SeedState
from gateway.rounds.coordinator import Effect, Fail, Freeze, Looked, decide, state_of
from gateway.rounds.ledger import LineStatus, settle
from gateway.rounds.record import (
    Round,
    RoundStatus,
    UpdateStatus,
    accepted_count,
    accepted_ids,
    lock_round,
)
from gateway.rounds.strategy import is_poisson
from gateway.services import Services
from gateway.tables import client_updates, rounds


def still_wanted(conn: Connection, found: Round, effect: Effect, now: datetime) -> Round | None:
    """The round under its lock, if the coordinator still wants this effect; None if the world moved on."""
    locked = lock_round(conn, found.round_id)
    accepted = accepted_count(conn, found.round_id)
    _, wanted = decide(state_of(locked), Looked(now, accepted))
    return locked if effect in wanted else None


def begin(services: Services, found: Round, to: RoundStatus) -> bool:
    """Let a round leave its first state; False if another worker did it."""
    first = (rounds.c.round_id == found.round_id, rounds.c.status == RoundStatus.INITIALIZED.value)
    with services.engine.begin() as conn:
        return conn.execute(update(rounds).where(*first).values(status=to.value)).rowcount > 0


def freeze(services: Services, found: Round) -> bool:
    """Fix the cohort of a round whose intake is over; True once it is fixed.

    The entry is sealed before the transaction; if an update came or went meanwhile, nothing is written and the
    next look tries again.
    """
    now = services.clock()
    with reading(services.engine) as conn:
        cohort = accepted_ids(conn, found.round_id)
    if Freeze() not in decide(state_of(found), Looked(now, len(cohort)))[1]:
        return False
    entry = services.trail.draft(
        EventType.ROUND_FROZEN,
        resource=f"round/{found.round_number}",
        details={
            "round_number": found.round_number,
            **({} if is_poisson(found) else {"num_updates": len(cohort)}),  # RULES 12
            "planned_clients": found.planned_clients,
            "policy_hash": found.policy_hash,
        },
    )
    with services.engine.begin() as conn:
        locked = still_wanted(conn, found, Freeze(), now)
        if locked is None or accepted_ids(conn, found.round_id) != cohort:
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


def fail_as_decided(services: Services, found: Round, effect: Fail, now: datetime) -> bool:
    """End a round as the coordinator decided; False if that is no longer so under the lock."""
    return _end(
        services,
        found,
        effect.reason.value,
        is_right=lambda conn: still_wanted(conn, found, effect, now) is not None,
    )


def fail(services: Services, found: Round, reason: str, **facts: str) -> bool:
    """End a round without a model, whatever else is known of it; True once it has ended, by whomever.

    Args:
        services: the stores.
        found: the round.
        reason: a stable code.
        facts: what else the entry says, in clear.
    """
    return _end(services, found, reason, is_right=lambda _: True, facts=facts)


def _end(
    services: Services,
    found: Round,
    reason: str,
    *,
    is_right: Callable[[Connection], bool],
    facts: Mapping[str, str] = MappingProxyType({}),
) -> bool:
    """Fail a round. Its reservation is given back only if no noise can have been drawn (RULES 8)."""
    now, stays = services.clock(), _spend_stays(services, found)
    told: dict[str, JsonValue | Personal] = {
        "round_number": found.round_number,
        "reason": reason,
        "spend_stays": stays,
        **facts,
    }
    entry = services.trail.draft(
        EventType.ROUND_FAILED,
        resource=f"round/{found.round_number}",
        outcome=Outcome.FAILURE,
        details=told,
    )

    def write(conn: Connection) -> bool:
        locked = lock_round(conn, found.round_id)
        if not locked.status.is_open:
            return True
        if locked.status is not found.status or not is_right(conn):
            return False  # another worker was faster, or an update came or went: look again
        _write_failure(conn, found, reason, now)
        if found.ledger_id:
            settle(conn, found.ledger_id, LineStatus.SPENT if stays else LineStatus.RELEASED, now)
        services.trail.write(conn, entry)
        return True

    if not writing(services.engine, write):
        return False
    if found.ledger_id:  # also where another worker ended it: a round that has ended needs no seed
        services.keystore.destroy_seed(found.ledger_id)
    return True


def _write_failure(conn: Connection, found: Round, reason: str, now: datetime) -> None:
    ended = {"status": RoundStatus.FAILED.value, "completed_at": now, "failure": reason, "paused_at": None}
    conn.execute(update(rounds).where(rounds.c.round_id == found.round_id).values(**ended))
    conn.execute(
        update(client_updates)
        .where(client_updates.c.round_id == found.round_id)
        .values(status=UpdateStatus.DROPPED.value)
    )


def _spend_stays(services: Services, found: Round) -> bool:
    """Whether noise may have been drawn: by a worker that has the frozen cohort at this moment, or ever before."""
    if not found.ledger_id:
        return False
    if found.status is RoundStatus.AGGREGATING:
        return True
    was_drawn = any(spend.ledger_id == found.ledger_id for spend in services.state.spends())
    return was_drawn or services.keystore.seed_state(found.ledger_id) is not SeedState.SEALED
