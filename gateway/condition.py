"""How the stores and the log of this gateway are, in the words that its probes and its console show."""

from __future__ import annotations

from sqlalchemy import Engine, text
from sqlalchemy.exc import SQLAlchemyError

from audit.reading import reading
from audit.store import oldest_pending
from gateway.services import Services

READY_LAG_S = 60.0
GOOD = "healthy"  # the words of the data format's earlier phase, which its clients read


def part_states(services: Services) -> dict[str, str]:
    """How each store and part of the gateway is, by name: healthy, or what else."""
    return {
        "database": _database_state(services.engine),
        "keystore": _database_state(services.keystore_engine),
        "blobs": GOOD if services.blobs.usable() else "unhealthy",
        "cache": services.models.state(),
        "queue": services.queue.state(),
    }


def _database_state(engine: Engine) -> str:
    try:
        with reading(engine) as conn:
            conn.execute(text("SELECT 1"))
    except SQLAlchemyError:
        return "unhealthy"
    return GOOD


def log_state(services: Services) -> str:
    """Whether entries get their places in time."""
    try:
        with reading(services.engine) as conn:
            oldest = oldest_pending(conn)
    except SQLAlchemyError:
        return "unhealthy"
    lag_s = 0.0 if oldest is None else (services.clock() - oldest).total_seconds()
    return GOOD if lag_s < READY_LAG_S else "behind"
