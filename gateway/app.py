"""The application factory: services, request ids, problem documents, and the blueprints of the API."""

from __future__ import annotations

import re
import threading
import time
from uuid import UUID, uuid4

from flask import Flask, Response, g, request

from audit.draft import Personal
from audit.reading import reading
from audit.store import oldest_pending
from gateway import api, console
from gateway.api.bodies import EXTENSION as PLACES
from gateway.api.invitations import EXTENSION as POLLS
from gateway.api.invitations import NEWEST, NewestPolls, poll_places
from gateway.api.stream import install_streams
from gateway.auth.admission import install_auth
from gateway.auth.peer import client_address, parse_fronts
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


def create_app(services: Services) -> Flask:
    """The gateway as a WSGI application on these services.

    Raises:
        ConfigError: a setting that requests go by is wrong.
    """
    parse_fronts(services.config.trusted_proxy)
    app = Flask("gateway", static_folder=None)
    app.extensions[EXTENSION] = services
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
    g.request_id = _own_or_new_request_id()
    traced = _TRACEPARENT.fullmatch(request.headers.get("traceparent", ""))
    g.trace_id = uuid4().hex  # the log keeps ids of ours (RULES 16)
    g.client_trace_id = traced.group(1) if traced else ""
    g.log_request_id = str(uuid4())
    g.origin = Origin(
        Personal(UNPROVEN, "unproven"),
        Personal(UNPROVEN, client_address()),
        g.log_request_id,
        g.trace_id,
    )


def _own_or_new_request_id() -> str:
    try:
        return str(UUID(request.headers.get("X-Request-ID", "")))
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
