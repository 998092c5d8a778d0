"""The application factory: services, request ids, problem documents, and the blueprints of the API."""

from __future__ import annotations

import re
import threading
import time
from collections.abc import Callable
from secrets import token_hex
from typing import Any
from uuid import UUID, uuid4

from flask import Flask, Response, g, has_request_context, request

from audit.draft import Personal
from audit.reading import reading
from audit.store import oldest_pending
from gateway import console
from gateway.api import blueprints as api
from gateway.api.bodies import EXTENSION as PLACES
from gateway.api.invitations import EXTENSION as POLLS
from gateway.api.invitations import NEWEST, NewestPolls, poll_places
from gateway.api.stream import install_streams
from gateway.auth.admission import install_auth
from gateway.auth.fronts import parse_fronts
from gateway.auth.peer import client_address
from gateway.auth.people.openid_settings import read_provider
from gateway.auth.rules import check_rules
from gateway.errors import LogBehind
from gateway.preference import install_preference
from gateway.problems import install_problems
from gateway.retention import terms_of
from gateway.services import EXTENSION, Services
from gateway.trail import UNPROVEN, Origin

_TRACEPARENT = re.compile(r"00-([0-9a-f]{32})-[0-9a-f]{16}-[0-9a-f]{2}")
_LAG_LOOK_S = 1.0
_NOBODY_YET = Personal(UNPROVEN, "unproven")


class _Gateway(Flask):
    """Flask without coroutines: no view is one, and to ask each function of each request costs a twentieth of it."""

    def ensure_sync(self, func: Callable[..., Any]) -> Callable[..., Any]:
        return func


def create_app(services: Services) -> Flask:
    """The gateway as a WSGI application on these services.

    Raises:
        ConfigError: a setting that requests go by is wrong.
    """
    parse_fronts(services.config.trusted_proxy)
    app = _Gateway("gateway", static_folder=None)
    app.extensions[EXTENSION] = services
    services.trail.follow_requests(_origin_of_request, _remember)
    app.json.sort_keys = False  # type: ignore[attr-defined]
    app.before_request(_begin)
    app.before_request(_refuse_when_log_behind(services))
    app.after_request(_finish)
    app.extensions[PLACES] = threading.BoundedSemaphore(services.config.upload_threads)
    config = services.config
    app.extensions[POLLS] = poll_places(config.poll_threads, config.web_threads, config.upload_threads)
    app.extensions[NEWEST] = NewestPolls()
    install_streams(app, config.poll_threads)
    install_preference(app)
    install_auth(app, services)
    install_problems(app)
    read_provider(services.config)  # a wrong setting is said now, not to the first who signs in
    terms_of(services.config.retention)
    for blueprint in (*api.BLUEPRINTS, *console.BLUEPRINTS):
        app.register_blueprint(blueprint)
    check_rules(app)
    return app


def _begin() -> None:
    headers = request.headers
    g.request_id = _own_or_new(headers.get("X-Request-ID"))
    traced = _TRACEPARENT.fullmatch(headers.get("traceparent", ""))
    g.client_trace_id = traced.group(1) if traced else ""
    trace_id, request_id = token_hex(16), str(uuid4())  # the log keeps ids of ours (RULES 16)
    g.trace_id, g.log_request_id = trace_id, request_id
    g.origin = Origin(_NOBODY_YET, Personal(UNPROVEN, client_address()), request_id, trace_id)


def _origin_of_request() -> Origin | None:
    return g.get("origin") if has_request_context() else None


def _remember(entry_id: str) -> None:
    """What a request has written, for who prefers to wait for it (`gateway.preference`)."""
    if has_request_context():
        g.setdefault("written", []).append(entry_id)


def _own_or_new(request_id: str | None) -> str:
    if request_id is None:
        return str(uuid4())
    try:
        return str(UUID(request_id))
    except ValueError:
        return str(uuid4())


def _finish(response: Response) -> Response:
    response.headers["X-Request-ID"] = g.get("request_id", "")
    response.headers.setdefault("Cache-Control", "no-store")
    response.headers["X-Content-Type-Options"] = "nosniff"
    return response


def _refuse_when_log_behind(services: Services):  # type: ignore[no-untyped-def]
    """Writes wait once the oldest pending entry is older than half the receipts' promise (RULES 21)."""
    limit_s = services.config.receipt_max_delay_s / 2
    looked = {"at": float("-inf"), "behind": False}

    def check() -> None:
        if request.method in ("GET", "HEAD", "OPTIONS"):
            return
        if time.monotonic() - looked["at"] > _LAG_LOOK_S:
            looked["at"] = time.monotonic()
            with reading(services.engine) as conn:
                oldest = oldest_pending(conn)
            looked["behind"] = oldest is not None and (services.clock() - oldest).total_seconds() > limit_s
        if looked["behind"]:
            raise LogBehind

    return check
