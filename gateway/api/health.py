"""`/health`, `/ready` and the OpenAPI document: for probes and tools, without a token."""

from __future__ import annotations

import time
from importlib.metadata import version

from flask import Blueprint, Response, current_app
from pydantic.dataclasses import dataclass

from gateway.condition import GOOD, log_state, part_states
from gateway.openapi import Media, document, operation
from gateway.services import current_services
from gateway.wire import WIRE, answer, json_response

health = Blueprint("health", __name__)
VERSION = version("fl-gateway")
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
    return _told(part_states(current_services()))


@health.get("/ready")
@operation("Whether the gateway can take work", answers={200: Health, 503: Health})
def show_ready() -> Response:
    """As `/health`, and red once the log lags by a minute (RULES 21)."""
    services = current_services()
    return _told({**part_states(services), "audit_log": log_state(services)})


@health.get("/api/v1/openapi.json")
@operation("This API, as an OpenAPI 3.1 document", answers={200: Media.JSON})
def show_openapi() -> Response:
    """The document, made from the code that answers."""
    return json_response(document(current_app, version=VERSION))


def _told(states: dict[str, str]) -> Response:
    found = set(states.values())
    status = "unhealthy" if found - {GOOD, _SLOWER} else _SLOWER if _SLOWER in found else GOOD
    told = Health(status, VERSION, int(time.monotonic() - _STARTED), states)
    return answer(told, 503 if status == "unhealthy" else 200)
