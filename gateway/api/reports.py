"""Privacy evidence from the ledger: what each lineage spent, and what a model version may claim (promise 9).

The report of a version carries the proof that the log says the same; reading them needs the ledger, the version, its
round, and of the log the entries about this lineage alone.
"""

from __future__ import annotations

import json
from typing import Any

from sqlalchemy import Connection, select

from aggregation.accountant import ADJACENCY, decimal_up
from audit.errors import NoCheckpoint
from audit.events import EventType
from audit.reading import reading
from audit.tables import audit_log
from audit.tree import prove
from compliance.evidence.model_report import Evidence, LedgerFacts, ProvenEntry, model_report, signed_report
from compliance.evidence.release_report import ReleaseFacts
from compliance.keyring.keys import SigningUse
from gateway.errors import NotFound
from gateway.log_key import log_keys
from gateway.paths import insist_version
from gateway.rounds.ledger import (
    Line,
    LineStatus,
    claim_delta,
    epsilon_if_cohort_known,
    has_bare_release,
    mechanism_json,
    read_lines,
    spent_epsilon,
)
from gateway.rounds.lineage import Lineage, find_lineage, find_version, lineages
from gateway.rounds.record import find_round
from gateway.rounds.strategy import selection_of
from gateway.services import Services
from gateway.tables import model_versions

_CERTIFICATE = select(model_versions.c.certificate)


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


def report_of(services: Services, version: str) -> dict[str, Any]:
    """The signed report of a version, with every ledger line and its proofs.

    Raises:
        NotFound: there is no such version, or no round made it.
    """
    facts = version_facts(services, version)
    with reading(services.engine) as conn:
        model = find_version(conn, version)
        made_by = find_round(conn, model.round_number or 0)
        ledger = _ledger(services, conn, model.model_id, made_by.round_number)
        certificate = conn.scalar(_CERTIFICATE.where(model_versions.c.version == version))
    evidence = Evidence(
        facts=facts,
        parameters={
            "policy_hash": made_by.policy_hash,
            "policy": made_by.policy,
            "certificate": certificate or {},
        },
        ledger=ledger,
        origin=services.origin,
        vkey=_vkey(services),
        made_at=services.clock(),
    )
    return signed_report(model_report(evidence), services.keystore.signing_key(SigningUse.RECEIPT))


def _ledger(services: Services, conn: Connection, model_id: str, up_to: int) -> list[LedgerFacts]:
    quorum = services.config.quorum_shown
    told = _entries_of(conn, model_id, up_to)
    found = []
    for line in read_lines(conn, model_id):
        if not _is_spent_by(line, up_to):
            continue
        entries = told.get(line.round_number, [])
        spent = [one for one in entries if one["event_type"] == EventType.PRIVACY_SPENT.value]
        found.append(
            LedgerFacts(
                round_number=line.round_number,
                status=line.status.value,
                mechanism=mechanism_json(line.mechanism, line.unit),
                epsilon_in_log=spent[-1]["details"]["epsilon_spent"] if spent else None,
                entries=[_proven(conn, one, quorum) for one in entries],
            )
        )
    return found


def _vkey(services: Services) -> str | None:
    try:
        return log_keys(services).vkey
    except NoCheckpoint:  # the log has no key before its first signature
        return None


def _proven(conn: Connection, entry: dict[str, Any], quorum: int) -> ProvenEntry:
    proof = prove(conn, entry["seq"], quorum)
    return ProvenEntry(entry["event_type"], entry["seq"], proof.text() if proof else None)


def _entries_of(conn: Connection, model_id: str, up_to: int) -> dict[int, list[dict[str, Any]]]:
    """What the log says of the lineage's releases, by round; found by the index of event types."""
    found: dict[int, list[dict[str, Any]]] = {}
    for event_type in (EventType.PRIVACY_SPENT, EventType.ROUND_COMPLETED):
        query = select(audit_log.c.canonical).where(
            audit_log.c.event_type == event_type.value,
            audit_log.c.canonical.contains(f'"model_id":"{model_id}"', autoescape=True),
        )
        for canonical in conn.scalars(query.order_by(audit_log.c.seq)):
            entry = json.loads(canonical)
            if entry["details"]["round_number"] <= up_to:
                found.setdefault(entry["details"]["round_number"], []).append(entry)
    return found


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
