"""What a start, and every minute after it, puts right: the union of state and ledger, old seeds, nameless blobs."""

from __future__ import annotations

import logging
import time

from sqlalchemy import Connection, select

from aggregation.accountant import ADJACENCY
from audit.errors import AuditError
from audit.events import EventType
from audit.reading import reading
from audit.sequencer import succeeded_in
from audit.store import tree_size
from audit.tree import root
from gateway.rounds.blob_names import batches, named_blobs
from gateway.rounds.freezing import fail
from gateway.rounds.ledger import (
    BARE,
    Line,
    LineStatus,
    has_bare_release,
    insist_spent,
    mechanism_from_json,
    read_lines,
    spend_facts,
)
from gateway.rounds.lineage import find_lineage
from gateway.rounds.record import OPEN_STATUSES, RoundStatus, open_rounds
from gateway.rounds.release import model_blob_name
from gateway.services import Services
from gateway.tables import models, privacy_ledger, rounds

log = logging.getLogger(__name__)
ORPHAN_AGE_S = 60.0
RESTORED_AFTER_SPEND = "RESTORED_AFTER_SPEND"


class OrphanSeeds:
    """Seeds that no ledger line names, and since when: a reservation may be about to commit."""

    def __init__(self) -> None:
        self._since: dict[str, float] = {}

    def ripe(self, orphans: set[str]) -> set[str]:
        """Those of the orphans that were already seen a minute ago."""
        now = time.monotonic()
        self._since = {seed: self._since.get(seed, now) for seed in orphans}
        return {seed for seed, since in self._since.items() if now - since >= ORPHAN_AGE_S}


def unite_spends(services: Services) -> int:
    """Make every release whose seed was ever opened count as spent, whatever a restored database says (RULES 1).

    Returns how many lines that changed.
    """
    changed = 0
    # The spends first: a round that another worker is drawing for is then seen as frozen.
    spends = services.state.spends()
    with reading(services.engine) as conn:
        known_models = set(conn.execute(select(models.c.model_id)).scalars())
        waiting = {found.ledger_id: found for found in open_rounds(conn) if found.ledger_id}
    for spend in spends:
        if spend.mechanism == BARE:
            continue  # it has no line: reports ask the state for it
        found = waiting.get(spend.ledger_id)
        if spend.model_id not in known_models or (found and found.status is RoundStatus.AGGREGATING):
            continue  # an interrupted release draws the same noise again
        if found:
            fail(services, found, RESTORED_AFTER_SPEND)
        line = Line(
            spend.ledger_id,
            spend.model_id,
            spend.round_number,
            LineStatus.SPENT,
            mechanism_from_json(spend.mechanism),
            spend.mechanism["unit"],
        )
        changed += _make_spent(services, line)
    return changed


def _make_spent(services: Services, line: Line) -> bool:
    """Make a line spent, with its entry; True if it was not."""
    with reading(services.engine) as conn:
        lines = {known.ledger_id: known for known in read_lines(conn, line.model_id)}
        lineage = find_lineage(conn, line.model_id)
        bare = has_bare_release(services, conn, line.model_id)
    known = lines.get(line.ledger_id)
    if known and known.status is LineStatus.SPENT:
        return False
    after = [*lines.values()] if known else [*lines.values(), line]
    entry = services.trail.draft(
        EventType.PRIVACY_SPENT,
        resource=f"round/{line.round_number}",
        details={
            "round_number": line.round_number,
            "model_id": line.model_id,
            "state": LineStatus.SPENT.value,
            "reason": RESTORED_AFTER_SPEND,
            **spend_facts(lineage, after, bare=bare),
            "unit": line.unit,
            "mechanism": "gaussian",
            "noise_multiplier": repr(line.mechanism.noise_multiplier),
            "sampling_rate": repr(line.mechanism.sampling_rate),
            "adjacency": ADJACENCY,
        },
    )
    with services.engine.begin() as conn:
        if not insist_spent(conn, line, services.clock()):
            return False
        services.trail.write(conn, entry)
    return True


def destroy_settled_seeds(services: Services, orphans: OrphanSeeds) -> int:
    """Destroy the seeds of rounds completed, failed or never reserved (RULES 7); returns how many."""
    seeds = set(services.keystore.seeds())
    if not seeds:
        return 0
    with reading(services.engine) as conn:
        # The lines before the rounds: a round that opens in between is then open, or unknown.
        known = set(
            conn.execute(
                select(privacy_ledger.c.ledger_id).where(privacy_ledger.c.ledger_id.in_(seeds))
            ).scalars()
        )
        open_lines = set(
            conn.execute(select(rounds.c.ledger_id).where(rounds.c.status.in_(OPEN_STATUSES))).scalars()
        )
        never_reserved = seeds - known if _is_ours(conn, services) else set()
    settled = (seeds & known) - open_lines
    doomed = settled | orphans.ripe(never_reserved)
    for seed in doomed:
        services.keystore.destroy_seed(seed)
    return len(doomed)


def sweep_blobs(services: Services) -> int:
    """Remove uploads that were cut off, and blobs that no row names, once they are older than the grace period.

    Nothing is removed while the database is not the one whose log was signed last. What no row names is looked up
    once more right before it goes.
    """
    grace_s = services.config.blob_grace_s
    swept = services.blobs.sweep_incoming(older_than_s=grace_s)
    # A new model has no row while it is evaluated.
    least_s = max(grace_s, 2 * services.config.evaluate_timeout_s)
    old = (blob.name for blob in services.blobs.stored() if blob.age_s >= least_s)
    for batch in batches(old):
        nameless = _nameless(services, batch)
        if nameless is None:
            log.error("this database is not the one whose log was signed last: no blob is removed")
            return swept
        swept += sum(_remove(services, name) for name in nameless)
    return swept


def _nameless(services: Services, names: list[str]) -> list[str] | None:
    """Those that no row names; None if this database cannot tell."""
    with reading(services.engine) as conn:
        if not _is_ours(conn, services):
            return None
        named = named_blobs(conn, names)
        nameless = [name for name in names if name not in named]
        # A round that has published since then is seen by the look right before the removal.
        being_made = _being_made(conn) if nameless else set()
    return [name for name in nameless if name not in being_made]


def _being_made(conn: Connection) -> set[str]:
    """The models of releases that may be under way: they get their row last, however long that takes."""
    frozen = [found for found in open_rounds(conn) if found.status is RoundStatus.AGGREGATING]
    return {model_blob_name(found) for found in frozen}


def _remove(services: Services, name: str) -> bool:
    with reading(services.engine) as conn:
        if named_blobs(conn, [name]):
            return False
    return services.blobs.delete(name)


def _is_ours(conn: Connection, services: Services) -> bool:
    """Whether the database has the log that was signed last; a wrong or older one knows too little to judge by."""
    last = services.state.last_checkpoint()
    if last is None:
        before = services.state.predecessor()  # a restore that was cut off left a database without its log
        return before is None or succeeded_in(conn) == before
    try:
        return tree_size(conn) >= last.size and root(conn, last.size) == last.root
    except AuditError:
        return False
