"""The check of the witnesses: each answers and follows this log, and has cosigned what is not quite new."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

from sqlalchemy import Engine, func, select

from audit.reading import reading
from audit.store import last_cosigned, newest_checkpoint
from audit.tables import audit_checkpoints
from gateway.config import Config
from gateway.doctor.errors import Ailing
from gateway.doctor.stores import LATER, is_to_be_made, opened
from gateway.storage.migrating import is_current
from gateway.witnessing import Asker, Standing, WitnessAddress, witnesses_of

_PATIENCE = timedelta(minutes=5)


def witnesses(config: Config) -> str:
    """They are asked nothing that they would cosign."""
    if config.witness_interval_s <= 0:
        raise Ailing("FLG_WITNESS_INTERVAL_S must be more than 0")
    found = witnesses_of(config)
    if not found:
        return "none: nobody outside would see a log that was restored or forked"
    if is_to_be_made(config.database_url):
        return f"{len(found)} of them; the log {LATER}"
    with opened(config, config.database_url) as engine:
        if not is_current(engine, "main"):
            return f"{len(found)} of them; the check of the database comes first"
        told = [_told(engine, witness) for witness in found]
    return f"{', '.join(told)}; {config.witness_quorum} of {len(found)} are needed"


def _told(engine: Engine, witness: WitnessAddress) -> str:
    asker = Asker(engine, engine, witness, lambda: datetime.now(UTC))
    try:
        trouble = asker.knock()
    finally:
        asker.close()
    name = witness.verifier.name
    if trouble and trouble.standing is Standing.UNWILLING:
        raise Ailing(
            f"the witness {name} does not follow this log: its operator must give it the key (--log)"
        )
    if trouble:
        raise Ailing(f"the witness {name} cannot be asked: {trouble.reason}; look at FLG_WITNESSES")
    return _cosigned(engine, witness)


def _cosigned(engine: Engine, witness: WitnessAddress) -> str:
    with reading(engine) as conn:
        newest, size = newest_checkpoint(conn, cosigned=False), last_cosigned(conn, witness.name) or 0
        waiting = select(func.min(audit_checkpoints.c.created_at)).where(audit_checkpoints.c.size > size)
        since = conn.scalar(waiting)
    total = newest.size if newest else 0
    if since is not None and datetime.now(UTC) - since > _PATIENCE:
        raise Ailing(
            f"the witness {witness.verifier.name} has cosigned {size} of {total} entries, and nothing for minutes: "
            "it refuses this log if there is an entry witness.refused; or nobody sequences"
        )
    return f"{witness.verifier.name} has cosigned {size} of {total} entries"
