"""Privacy evidence from the ledger: what each lineage spent, and what a model version may claim (promise 9)."""

from __future__ import annotations

from typing import Any

from aggregation.accountant import ADJACENCY, decimal_up
from audit.reading import reading
from compliance.evidence.release_report import ReleaseFacts
from gateway.api.paths import insist_version
from gateway.errors import NotFound
from gateway.rounds.ledger import (
    Line,
    LineStatus,
    claim_delta,
    epsilon_if_cohort_known,
    has_bare_release,
    read_lines,
    spent_epsilon,
)
from gateway.rounds.lineage import Lineage, find_lineage, find_version, lineages
from gateway.rounds.record import find_round
from gateway.rounds.strategy import selection_of
from gateway.services import Services


def budget_lines(services: Services) -> list[dict[str, Any]]:
    """Every lineage's budget and spend; a lineage with a release without noise has no finite epsilon."""
    with reading(services.engine) as conn:
        found = [
            (one, read_lines(conn, one.model_id), has_bare_release(services, conn, one.model_id))
            for one in lineages(conn)
        ]
    return [_budget(lineage, lines, bare=bare) for lineage, lines, bare in found]


def version_facts(services: Services, version: str) -> ReleaseFacts:
    """What may be said of a version: everything spent on its lineage up to its round.

    Raises:
        NotFound: there is no such version, or no round made it.
    """
    with reading(services.engine) as conn:
        model = find_version(conn, insist_version(version))
        if model.round_number is None:
            raise NotFound("This version was uploaded: no round made it, so there is no release to report on")
        lineage, made_by = find_lineage(conn, model.model_id), find_round(conn, model.round_number)
        lines = [one for one in read_lines(conn, model.model_id) if _is_spent_by(one, model.round_number)]
        bare = has_bare_release(services, conn, model.model_id, model.round_number)
    claims = bool(lines) and not bare
    return ReleaseFacts(
        model_id=model.model_id,
        version=version,
        epsilon=decimal_up(spent_epsilon(lineage, lines)) if claims else None,
        delta=claim_delta(lineage) if claims else None,
        unit=made_by.policy["unit"],
        mechanism=made_by.policy["mechanism"],
        adjacency=ADJACENCY,
        planned_clients=made_by.planned_clients,
        selection=selection_of(made_by).strategy.value,
        sampling_rate=made_by.policy.get("sampling_rate"),
        epsilon_if_cohort_known=decimal_up(epsilon_if_cohort_known(lineage, lines)) if claims else None,
    )


def _budget(lineage: Lineage, lines: list[Line], *, bare: bool) -> dict[str, Any]:
    return {
        "model_id": lineage.model_id,
        "epsilon_budget": lineage.epsilon_budget,
        "epsilon_spent": None if bare else decimal_up(spent_epsilon(lineage, lines)),
        "epsilon_if_cohort_known": None if bare else decimal_up(epsilon_if_cohort_known(lineage, lines)),
        "delta": claim_delta(lineage) if lines else lineage.delta,
        "unit": lines[0].unit if lines else None,
    }


def _is_spent_by(line: Line, round_number: int) -> bool:
    return line.status is LineStatus.SPENT and line.round_number <= round_number
