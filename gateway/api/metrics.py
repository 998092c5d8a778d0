"""`/metrics` for Prometheus: no token, so it is shown to the addresses of `FLG_METRICS` alone."""

from __future__ import annotations

from flask import Blueprint, Response, current_app, request
from prometheus_client import CollectorRegistry
from prometheus_client.exposition import CONTENT_TYPE_PLAIN_0_0_4, generate_latest
from prometheus_client.openmetrics import exposition as openmetrics

from gateway.auth.peer import client_address, comes_from_front
from gateway.errors import NotFound
from gateway.metrics import Measures, parse_readers
from gateway.openapi import Media, operation
from gateway.services import Services, current_services

EXTENSION = "fl_gateway_measures"
metrics = Blueprint("metrics", __name__)
_FORWARDED = ("Forwarded", "Via", "X-Forwarded-For", "X-Forwarded-Host", "X-Forwarded-Proto", "X-Real-IP")


@metrics.get("/metrics")
@operation("Measures for Prometheus", answers={200: Media.TEXT}, headers=("Accept",), errors=(NotFound,))
def show_metrics() -> Response:
    """Prometheus' text form, or OpenMetrics for who asks for it."""
    services = current_services()
    if not _may_read(services):
        raise NotFound("Measures are not shown to this address (FLG_METRICS)")
    if openmetrics.CONTENT_TYPE_LATEST.partition(";")[0] in request.headers.get("Accept", ""):
        return Response(
            openmetrics.generate_latest(_registry(services)),  # type: ignore[no-untyped-call]
            content_type=openmetrics.CONTENT_TYPE_LATEST,
        )
    return Response(generate_latest(_registry(services)), content_type=CONTENT_TYPE_PLAIN_0_0_4)


def _may_read(services: Services) -> bool:
    """A proxy that nobody trusts may pass on a stranger from an address of ours: then nothing is shown."""
    is_passed_on = any(name in request.headers for name in _FORWARDED)
    if is_passed_on and not comes_from_front() and not parse_readers(services.config.metrics).are_all:
        return False
    return parse_readers(services.config.metrics).have(client_address())


def _registry(services: Services) -> CollectorRegistry:
    """One for each application, kept with what the accountant said."""
    found: CollectorRegistry | None = current_app.extensions.get(EXTENSION)
    if found is None:
        found = current_app.extensions[EXTENSION] = CollectorRegistry()
        found.register(Measures(services))
    return found
