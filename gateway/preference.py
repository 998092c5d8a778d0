"""`Prefer: wait=N` (RFC 7240) on requests that write: the answer comes once its entries are signed, and says where.

One step after every view: it knows which entries the request wrote, waits in a place of long polls (RULES 29), and
holds neither transaction nor connection meanwhile. Whatever hinders it, the request has done its work and is answered.
"""

from __future__ import annotations

import re
import threading
import time
from collections.abc import Sequence

from flask import Flask, Response, current_app, g, request
from sqlalchemy.exc import SQLAlchemyError

from audit.following import signed_places
from audit.reading import reading
from gateway.api.invitations import EXTENSION as POLLS
from gateway.services import Services, current_services
from gateway.storage.bell import Channel

LONGEST_WAIT_S = 10
_LOOK_S = 1.0
_WAIT = re.compile(r'\s*wait\s*=\s*"?([0-9]{1,6})"?\s*(;.*)?', re.IGNORECASE)


def install_preference(app: Flask) -> None:
    """Let every route of this application take `Prefer: wait=N`."""
    app.after_request(_wait)


def _wait(answer: Response) -> Response:
    """Wait if that is preferred and possible; `Preference-Applied` says that `X-Audit-Seq` is there."""
    ids = frozenset(g.get("written", ()))
    if not ids or answer.status_code >= 400 or request.method in ("GET", "HEAD"):
        return answer
    wait_s = preferred_wait_s(request.headers.getlist("Prefer"))
    if not wait_s:
        return answer
    places: threading.BoundedSemaphore = current_app.extensions[POLLS]
    if not places.acquire(blocking=False):
        return answer
    try:
        found = _await(current_services(), ids, time.monotonic() + wait_s)
    finally:
        places.release()
    if found:
        answer.headers["Preference-Applied"] = f"wait={wait_s}"
        answer.headers["X-Audit-Seq"] = ", ".join(str(seq) for seq in found)
    return answer


def _await(services: Services, ids: frozenset[str], until_s: float) -> list[int] | None:
    """The places of the entries, or None if they have none in time, or the database is away."""
    try:
        while (found := _look(services, ids)) is None and (left_s := until_s - time.monotonic()) > 0:
            services.bell.wait(Channel.LOG, min(left_s, _LOOK_S))
    except SQLAlchemyError:
        return None
    return found


def _look(services: Services, ids: frozenset[str]) -> list[int] | None:
    with reading(services.engine) as conn:
        return signed_places(conn, ids)


def preferred_wait_s(headers: Sequence[str]) -> int:
    """The whole seconds that the first `wait` of these `Prefer` headers names, at most ten.

    0 where none is named, or in a form that is none: preferences that cannot be honoured are passed over (RFC 7240).
    """
    for preference in ",".join(headers).split(","):
        if found := _WAIT.fullmatch(preference):
            return min(int(found[1]), LONGEST_WAIT_S)
    return 0
