"""`/health`, `/ready` and the OpenAPI document: for probes and tools, without a token."""

from __future__ import annotations

import time
from importlib.metadata import version

from flask import Blueprint, Response, current_app
from pydantic.dataclasses import dataclass
from sqlalchemy import Engine, text
from sqlalchemy.exc import SQLAlchemyError

from audit.reading import reading
from audit.store import oldest_pending
from gateway.openapi import Media, document, operation
from gateway.services import Services, current_services
from gateway.wire import WIRE, answer, json_response

health = Blueprint("health", __name__)
VERSION = version("fl-gateway")
READY_LAG_S = 60.0
_GOOD = "healthy"  # the words of the data format's earlier phase, which its clients read
_SLOWER = "degraded"  # something that the gateway does without is away
_STARTED = time.monotonic()


@dataclass(frozen=True, slots=True, config=WIRE)
class Health:
    """What `/health` and `/ready` answer."""

    status: str
    version: str
    uptime_seconds: int
    services: dict[str, str]


@health.get("/health")
@operation("Whether the gateway and each store it needs answers", answers={200: Health, 503: Health})
def show_health() -> Response:
    """200 while this process lives and its stores answer, else 503."""
    return _told(_states(current_services()))


@health.get("/ready")
@operation("Whether the gateway can take work", answers={200: Health, 503: Health})
def show_ready() -> Response:
    """As `/health`, and red once the log lags by a minute (RULES 21)."""
    services = current_services()
    return _told({**_states(services), "audit_log": _log_state(services)})


@health.get("/api/v1/openapi.json")
@operation("This API, as an OpenAPI 3.1 document", answers={200: Media.JSON})
def show_openapi() -> Response:
    """The document, made from the code that answers."""
    return json_response(document(current_app, version=VERSION))


def _told(states: dict[str, str]) -> Response:
    found = set(states.values())
    status = "unhealthy" if found - {_GOOD, _SLOWER} else _SLOWER if _SLOWER in found else _GOOD
    told = Health(status, VERSION, int(time.monotonic() - _STARTED), states)
    return answer(told, 503 if status == "unhealthy" else 200)


def _states(services: Services) -> dict[str, str]:
    return {
        "database": _database_state(services.engine),
        "keystore": _database_state(services.keystore_engine),
        "blobs": _GOOD if services.blobs.usable() else "unhealthy",
        "cache": services.models.state(),
        "queue": services.queue.state(),
    }


def _database_state(engine: Engine) -> str:
    try:
        with reading(engine) as conn:
            conn.execute(text("SELECT 1"))
    except SQLAlchemyError:
        return "unhealthy"
    return _GOOD


def _log_state(services: Services) -> str:
    try:
        with reading(services.engine) as conn:
            oldest = oldest_pending(conn)
    except SQLAlchemyError:
        return "unhealthy"
    lag_s = 0.0 if oldest is None else (services.clock() - oldest).total_seconds()
    return _GOOD if lag_s < READY_LAG_S else "behind"
