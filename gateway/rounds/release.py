"""From a frozen cohort to a published model: sums, noise, evaluation, and ONE transaction that publishes all of it.

A release that was killed anywhere runs again and draws the same noise: the noise key is derived from the sealed
seed and the frozen cohort (RULES 5). The spend is written into the state before the seed is opened (RULES 1, 8).
"""

from __future__ import annotations

import json
import logging
from collections.abc import Mapping
from contextlib import ExitStack
from dataclasses import dataclass
from datetime import datetime
from hashlib import sha256
from typing import Any

from sqlalchemy import Connection, select, update

from aggregation.accountant import ADJACENCY
from aggregation.combine import UpdateSource
from aggregation.engines import local as local_engine
from aggregation.errors import AggregationError
from aggregation.noise import noise_key
from aggregation.policy import MAX_RECORDS, Policy
from audit.entry import Draft
from audit.errors import KeyDestroyed
from audit.events import EventType
from audit.reading import reading
from audit.writing import writing
from compliance.errors import SeedGone
from gateway.rounds.acceptance import Acceptance, Rejection, Verdict
from gateway.rounds.evaluation import Evaluation, evaluate
from gateway.rounds.filing import file_model
from gateway.rounds.freezing import fail
from gateway.rounds.ledger import (
    LineStatus,
    bare_spend,
    has_bare_release,
    mechanism_json,
    read_lines,
    settle,
    spend_facts,
)
from gateway.rounds.lineage import (
    ModelVersion,
    add_version,
    find_lineage,
    find_version,
    lock_lineage,
    next_version,
)
from gateway.rounds.record import Round, RoundStatus, UpdateStatus, find_round, lock_round
from gateway.rounds.strategy import is_poisson
from gateway.services import Services
from gateway.storage.blobs import BlobCorrupt, ClearReader
from gateway.storage.state import Spend
from gateway.tables import client_updates, rounds

log = logging.getLogger(__name__)
_MOST_HELD = 64  # updates of which a chunk each is held in memory


@dataclass(frozen=True, slots=True)
class _Written:
    """The new model's bytes, durable under a name that a repetition would give them again."""

    blob_id: str
    checksum: str
    size_bytes: int
    certificate: dict[str, Any]
    evaluation: Evaluation


class _BaseUnreadable(Exception):
    """The base's blob is missing, or not what was published."""


def release(services: Services, found: Round) -> None:
    """Make the round's model, or fail the round with a reason; safe to repeat after a crash anywhere."""
    try:
        base = _base_figures(services, found)  # first: a blob without a row is swept after a while
        written = _write_model(services, found)
    except SeedGone:
        fail(services, found, "SEED_GONE")
    except (KeyDestroyed, BlobCorrupt, FileNotFoundError):
        fail(services, found, "UPDATE_UNREADABLE")
    except _BaseUnreadable:
        fail(services, found, "BASE_UNREADABLE")
    except AggregationError as error:
        log.error("round %s cannot be aggregated: %s", found.round_number, error.code)
        fail(services, found, error.code)
    else:
        _conclude(services, found, written, base)
    if found.ledger_id:
        services.keystore.destroy_seed(found.ledger_id)


def _write_model(services: Services, found: Round) -> _Written:
    policy = Policy.from_canonical(json.dumps(found.policy))
    with reading(services.engine) as conn:
        base = find_version(conn, found.base_version)
        rows = _cohort_rows(conn, found)
    key = _open_noise(services, found) if policy.is_noised else None
    blob_id = model_blob_name(found)
    blob = services.blobs.incoming(blob_id)
    try:
        with ExitStack() as stack:
            made = local_engine.aggregate(
                policy,
                _base_blob(services, stack, base).read_at,
                [_source(services, stack, row, hold=len(rows) <= _MOST_HELD) for row in rows],
                write=blob.write,
                noise_key=key,
                threads=services.config.engine_threads,
            )
        services.crash("round.noised")
        blob.keep()
    except BaseException:
        blob.discard()
        raise
    services.crash("round.model_blob")
    evaluation = _evaluated(services, blob_id)
    return _Written(blob_id, made.checksum, made.size_bytes, made.certificate.details(), evaluation)


def _base_blob(services: Services, stack: ExitStack, base: ModelVersion) -> ClearReader:
    """The base's bytes, compared with what was published before anything is built on them."""
    try:
        reader = stack.enter_context(services.blobs.clear_reader(base.blob_id))
        reader.insist(base.checksum)
    except (BlobCorrupt, FileNotFoundError):
        raise _BaseUnreadable from None
    return reader


def _evaluated(services: Services, blob_id: str) -> Evaluation:
    if not services.config.evaluate:
        return Evaluation()  # no copy is fetched for nobody
    with services.blobs.as_file(blob_id) as path:
        return evaluate(services.config.evaluate, path, timeout_s=services.config.evaluate_timeout_s)


def _base_figures(services: Services, found: Round) -> Evaluation:
    """What the base reached, where the round's acceptance asks for it: as recorded, or evaluated now."""
    asked = Acceptance.from_json(found.acceptance) if found.acceptance else None
    if asked is None or not asked.needs_base:
        return Evaluation()
    with reading(services.engine) as conn:
        base = find_version(conn, found.base_version)
    recorded = Evaluation(base.accuracy, base.loss)
    return recorded if asked.figure(recorded) is not None else _evaluated(services, base.blob_id)


def _conclude(services: Services, found: Round, written: _Written, base: Evaluation) -> None:
    """Publish the model, or reject it by the round's acceptance test."""
    verdict = Verdict(None, {})
    if found.acceptance:
        verdict = Acceptance.from_json(found.acceptance).judge(written.evaluation, base)
    if verdict.rejection is None:
        _publish(services, found, written, verdict.facts)
    else:
        _reject(services, found, written.blob_id, verdict.rejection, verdict.facts)


def _reject(
    services: Services, found: Round, blob_id: str, rejection: Rejection, facts: Mapping[str, str]
) -> None:
    """Fail the round and remove its model; the base stays the current version, and the spend stays spent."""
    if not found.ledger_id and "model_metric" in facts:
        # What the entry tells of the model is a release without noise, as the model itself would have been.
        services.state.add_spend(bare_spend(found.model_id, found.round_number))
    fail(services, found, rejection.value, **facts)
    services.crash("round.rejected")
    with reading(services.engine) as conn:
        ended = find_round(conn, found.round_number)
    if ended.status is RoundStatus.FAILED:  # another worker may have published the same bytes
        services.blobs.delete(blob_id)


def model_blob_name(found: Round) -> str:
    """The model's blob: the same for a repetition, and another one for any other cohort, also after a restore."""
    facts = [found.model_id, str(found.round_number), found.ledger_id or "", *found.cohort]
    return sha256("|".join(facts).encode()).hexdigest()[:32]


def _cohort_rows(conn: Connection, found: Round) -> list[Any]:
    query = select(client_updates).where(client_updates.c.round_id == found.round_id)
    by_id = {row.update_id: row for row in conn.execute(query)}
    missing = [update_id for update_id in found.cohort if update_id not in by_id]
    if missing:
        raise FileNotFoundError(f"{len(missing)} updates of the frozen cohort")
    return [by_id[update_id] for update_id in found.cohort]


def _open_noise(services: Services, found: Round) -> bytes:
    """The noise key of the frozen cohort; from here on the spend counts, whatever happens."""
    if found.ledger_id is None:
        raise SeedGone(str(found.round_number))
    with reading(services.engine) as conn:
        line = next(
            (one for one in read_lines(conn, found.model_id) if one.ledger_id == found.ledger_id), None
        )
    if line is None:
        raise SeedGone(found.ledger_id)
    told = mechanism_json(line.mechanism, line.unit)
    services.state.add_spend(Spend(found.ledger_id, found.model_id, found.round_number, told))
    seed = services.keystore.open_seed(found.ledger_id)
    return noise_key(seed, found.cohort, found.model_id, found.policy_hash)


def _source(services: Services, stack: ExitStack, row: Any, *, hold: bool) -> UpdateSource:
    def opened(column: str) -> Any:
        return services.sealer.open_column(row._mapping[column], "client_updates", column, row.update_id)

    key = services.sealer.blob_key(row.blob_key, row.blob_id)
    reader = stack.enter_context(services.blobs.reader(row.blob_id, key, hold=hold))
    samples = opened("training_metrics").get("num_samples")
    stated = samples if isinstance(samples, int) and not isinstance(samples, bool) and samples > 0 else 1
    weight = min(stated, MAX_RECORDS)  # a number of any length may have been stated
    return UpdateSource(row.update_id, reader.read_at, norm=float(opened("norm")), weight=weight)


def _publish(services: Services, found: Round, written: _Written, judged: Mapping[str, str]) -> None:
    """Model version, round, ledger line and entries in one transaction, once, whoever is first."""
    now = services.clock()
    with reading(services.engine) as conn:
        lineage = find_lineage(conn, found.model_id)
        version = _version(found, written, next_version(conn, lineage), now)
        bare = has_bare_release(services, conn, found.model_id)
        lines = read_lines(conn, found.model_id)
    claim = spend_facts(lineage, lines, bare=bare)
    entries = _entries(services, found, written, version, claim, judged)
    if not found.ledger_id:
        services.state.add_spend(bare_spend(found.model_id, found.round_number))

    def publish(conn: Connection) -> bool:
        if lock_round(conn, found.round_id).status is not RoundStatus.AGGREGATING:
            return False  # another worker published the same bytes
        lock_lineage(conn, found.model_id)
        add_version(conn, version, certificate=written.certificate)
        _complete(conn, found, version, now)
        if found.ledger_id:
            settle(conn, found.ledger_id, LineStatus.SPENT, now)
        services.trail.write(conn, *entries)
        return True

    if not writing(services.engine, publish):
        return
    services.crash("round.published")
    file_model(services, version)


def _version(found: Round, written: _Written, name: str, now: datetime) -> ModelVersion:
    return ModelVersion(
        version=name,
        model_id=found.model_id,
        round_number=found.round_number,
        blob_id=written.blob_id,
        checksum=written.checksum,
        size_bytes=written.size_bytes,
        accuracy=written.evaluation.accuracy,
        loss=written.evaluation.loss,
        created_at=now,
    )


def _complete(conn: Connection, found: Round, version: ModelVersion, now: datetime) -> None:
    conn.execute(
        update(rounds)
        .where(rounds.c.round_id == found.round_id)
        .values(status=RoundStatus.COMPLETED.value, completed_at=now, result_version=version.version)
    )
    conn.execute(
        update(client_updates)
        .where(  # after the freeze these are the cohort, which may be too long for a list of parameters
            client_updates.c.round_id == found.round_id,
            client_updates.c.status == UpdateStatus.ACCEPTED.value,
        )
        .values(status=UpdateStatus.COUNTED.value)
    )


def _entries(
    services: Services,
    found: Round,
    written: _Written,
    version: ModelVersion,
    claim: Mapping[str, str],
    judged: Mapping[str, str],
) -> list[Draft]:
    facts = {
        "round_number": found.round_number,
        "model_id": found.model_id,
        "result_version": version.version,
        "checksum": version.checksum,
        "policy_hash": found.policy_hash,
        **({} if is_poisson(found) else {"cohort_size": len(found.cohort)}),  # RULES 12
        **written.certificate,
        **judged,
    }
    resource = f"round/{found.round_number}"
    entries = [services.trail.draft(EventType.ROUND_COMPLETED, resource=resource, details=facts)]
    if found.ledger_id:
        told = {
            "round_number": found.round_number,
            "model_id": found.model_id,
            "state": LineStatus.SPENT.value,
            **claim,
            "unit": found.policy["unit"],
            "mechanism": found.policy["mechanism"],
            "noise_multiplier": written.certificate["noise_multiplier"],
            "sampling_rate": written.certificate.get("sampling_rate", "1"),
            "adjacency": ADJACENCY,
        }
        entries.append(services.trail.draft(EventType.PRIVACY_SPENT, resource=resource, details=told))
    return entries
