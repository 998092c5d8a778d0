"""A round gets its clients: drawn by the server's own secret randomness, in ONE transaction with all that follows.

Random and fair ask the planned number and keep reserves for those who do not answer. Poisson throws a coin for
every eligible subject and keeps no reserves: whatever depended on who was drawn would tell of it (RULES 12).
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from itertools import islice

from sqlalchemy import Connection, insert, update

from audit.entry import Draft
from audit.events import EventType
from audit.writing import writing
from gateway.rounds.coordinator import Draw, Looked, decide, state_of
from gateway.rounds.drawing import Entropy, coins, shuffled
from gateway.rounds.eligibility import Candidate, candidates, capable, still_eligible
from gateway.rounds.invitations import InvitationStatus, ask, new_invitation
from gateway.rounds.record import Round, RoundStatus, lock_round
from gateway.rounds.reserves import replace_dropouts
from gateway.rounds.strategy import Selection, Strategy, selection_of
from gateway.services import Services
from gateway.tables import invitations, rounds

__all__ = ["Drawn", "choose", "draw", "replace_dropouts"]


@dataclass(frozen=True, slots=True)
class Drawn:
    """The clients of a round in the order of the draw: the first `invited` are asked, the others are reserves.

    `eligible` counts the subjects whose capabilities were not yet looked at.
    """

    client_ids: tuple[str, ...]
    invited: int
    eligible: int

    @property
    def asked(self) -> tuple[str, ...]:
        """Those who are asked at once."""
        return self.client_ids[: self.invited]


def draw(services: Services, found: Round, *, entropy: Entropy = os.urandom) -> bool:
    """Give a round in `selecting` its clients and make it active; False: too few are eligible now.

    Safe to call twice at once: the second caller finds the round active.
    """
    selection, now = selection_of(found), services.clock()
    drawn = _choose(services, found, selection, now, entropy)
    if drawn is None:
        return False
    entry = _entry(services, found, selection, drawn)

    def write(conn: Connection) -> bool:
        locked = lock_round(conn, found.round_id)
        if locked.status is not RoundStatus.SELECTING:
            return locked.status is RoundStatus.ACTIVE
        if Draw() not in decide(state_of(locked), Looked(services.clock(), accepted=0))[1]:
            return False  # it was paused or closed meanwhile, or its time ran out
        still, asked = still_eligible(conn, drawn.client_ids), drawn
        if selection.strategy is Strategy.POISSON:
            asked = _without(drawn, still)  # no second throw: it would depend on the first
        elif len(still) < len(drawn.client_ids):
            return False  # somebody left at this moment: the next look draws again
        _write(conn, locked, asked, now)
        services.trail.write(conn, entry)
        return True

    done = writing(services.engine, write)  # after a conflict the same clients again, not others
    if done:
        services.crash("round.selected")
    return done


def choose(
    services: Services,
    population: Sequence[Candidate],
    selection: Selection,
    *,
    planned: int,
    least: int,
    entropy: Entropy,
) -> tuple[str, ...] | None:
    """The clients drawn from a population, in order; None if fewer than `least` are eligible."""
    ordered, wanted = shuffled(population, entropy), selection.capabilities
    if selection.strategy is Strategy.POISSON:
        if sum(1 for _ in islice(capable(services, wanted, ordered), least)) < least:
            return None  # a bound on the population: the coins are not yet thrown
        thrown = coins(len(ordered), selection.sampling_rate or 0.0, entropy)
        sampled = [one for one, heads in zip(ordered, thrown.tolist(), strict=True) if heads]
        return tuple(capable(services, wanted, sampled))
    if selection.strategy is Strategy.FAIR:
        ordered.sort(key=_last_chosen)  # keeps the random order of those who waited as long
    chosen = tuple(islice(capable(services, wanted, ordered), planned + selection.reserves))
    return chosen if len(chosen) >= least else None


def _choose(
    services: Services, found: Round, selection: Selection, now: datetime, entropy: Entropy
) -> Drawn | None:
    population = candidates(services, selection, now)
    if len(population) < found.min_clients:
        return None
    chosen = choose(
        services,
        population,
        selection,
        planned=found.planned_clients,
        least=found.min_clients,
        entropy=entropy,
    )
    if chosen is None:
        return None
    everybody = selection.strategy is Strategy.POISSON
    invited = len(chosen) if everybody else min(found.planned_clients, len(chosen))
    return Drawn(chosen, invited, len(population))


def _last_chosen(candidate: Candidate) -> float:
    at = candidate.last_chosen_at
    return float("-inf") if at is None else at.timestamp()


def _without(drawn: Drawn, still: set[str]) -> Drawn:
    left = tuple(client_id for client_id in drawn.client_ids if client_id in still)
    return Drawn(left, len(left), drawn.eligible)


def _write(conn: Connection, found: Round, drawn: Drawn, now: datetime) -> None:
    rows = [
        new_invitation(found.round_id, client_id, rank, _status(rank, drawn), now)
        for rank, client_id in enumerate(drawn.client_ids)
    ]
    if rows:
        conn.execute(insert(invitations), rows)
    ask(conn, found, [(row["invitation_id"], row["client_id"]) for row in rows[: drawn.invited]], now)
    conn.execute(
        update(rounds).where(rounds.c.round_id == found.round_id).values(status=RoundStatus.ACTIVE.value)
    )


def _status(rank: int, drawn: Drawn) -> InvitationStatus:
    return InvitationStatus.INVITED if rank < drawn.invited else InvitationStatus.RESERVE


def _entry(services: Services, found: Round, selection: Selection, drawn: Drawn) -> Draft:
    """What the log says of a draw; of a Poisson sample not even its size."""
    counts = {"chosen": drawn.invited, "reserves": len(drawn.client_ids) - drawn.invited}
    return services.trail.draft(
        EventType.ROUND_SELECTED,
        resource=f"round/{found.round_number}",
        details={
            "round_number": found.round_number,
            "strategy": selection.strategy.value,
            "eligible": drawn.eligible,
            "policy_hash": found.policy_hash,
            **({} if selection.strategy is Strategy.POISSON else counts),
        },
    )
