"""Every refusal is an entry; a flood of them is folded into counted ones: it cannot drown the log (RULES 25).

The first 20 a minute of one reason from one network are single entries; the rest is counted in memory and
written each ten seconds. A kill loses at most that count.
"""

from __future__ import annotations

import logging
import threading
from collections import OrderedDict
from collections.abc import Callable, Mapping
from datetime import datetime
from functools import lru_cache
from ipaddress import IPv6Address, ip_address, ip_network
from typing import NamedTuple

from flask import Flask, current_app, g, request
from sqlalchemy.exc import SQLAlchemyError

from audit.canonical import JsonValue
from audit.draft import Personal
from audit.events import EventType, Outcome
from compliance.errors import SubjectErased, SubjectErasing, UnknownSubject
from gateway.auth.origin import address_of, unproven
from gateway.errors import GatewayError
from gateway.services import Services
from gateway.trail import UNPROVEN, Origin

log = logging.getLogger(__name__)

EXTENSION = "fl_gateway_refusals"
SINGLES_A_MINUTE = 20
WINDOW_S = 60.0
FLUSH_EACH_S = 10.0
MOST_WINDOWS = 4096
_LONGEST_CLAIM = 1024
_CLAIMS = {"user_agent": "User-Agent", "client_request_id": "X-Request-ID", "client_trace": "traceparent"}


class Kind(NamedTuple):
    """What refusals have in common that are counted together."""

    event_type: EventType
    reason: str
    status: int
    network: str


class Count(NamedTuple):
    """Refusals of one kind that have no entry of their own yet."""

    number: int
    first_at: datetime
    last_at: datetime

    def plus(self, more: Count) -> Count:
        """Both together."""
        first, last = min(self.first_at, more.first_at), max(self.last_at, more.last_at)
        return Count(self.number + more.number, first, last)


class Refusals:
    """Writes refusals, one by one or counted; one a process.

    Args:
        services: where the entries go.
        most: how many kinds are told apart; the networks beyond them are one.
    """

    def __init__(self, services: Services, *, most: int = MOST_WINDOWS) -> None:
        self._services = services
        self._most = most
        self._singles: OrderedDict[Kind, tuple[float, int]] = OrderedDict()
        self._folded: dict[Kind, Count] = {}
        self._lock = threading.Lock()
        self._timer: threading.Timer | None = None

    def record(self, kind: Kind, details: Callable[[], Mapping[str, JsonValue | Personal]]) -> None:
        """Write one refusal of the current request, or count it; its details are made for a single entry alone."""
        now = self._services.clock()
        with self._lock:
            self._forget_old(now.timestamp())
            kind = self._one_of_many(kind, self._singles)
            if not self._is_single(kind, now.timestamp()):
                self._fold(kind, Count(1, now, now))
                return
        try:
            self._write(kind, details())
        except SQLAlchemyError as error:
            log.warning("a refusal is counted only: reason %s, %s", kind.reason, type(error).__name__)
            with self._lock:
                self._fold(kind, Count(1, now, now))

    def flush(self) -> int:
        """Write what was counted, one entry a kind; says how many refusals that were."""
        with self._lock:
            folded, self._folded = self._folded, {}
            self._timer = None
        return sum(self._write_count(kind, count) for kind, count in folded.items())

    def close(self) -> None:
        """Write what was counted, and stop the timer."""
        self._stop_timer()
        self.flush()
        self._stop_timer()

    def _is_single(self, kind: Kind, now_s: float) -> bool:
        """Whether this one gets an entry of its own; else it is counted. The caller has the lock."""
        began_s, used = self._singles.get(kind, (now_s, 0))
        if used < SINGLES_A_MINUTE:
            self._singles[kind] = (began_s, used + 1)
            return True
        return False

    def _forget_old(self, now_s: float) -> None:
        while self._singles and next(iter(self._singles.values()))[0] + WINDOW_S <= now_s:
            self._singles.popitem(last=False)

    def _fold(self, kind: Kind, more: Count) -> None:
        """Count, and see to it that a flush comes; no thread while there is no flood. The caller has the lock."""
        kind = self._one_of_many(kind, self._folded)
        known = self._folded.get(kind)
        self._folded[kind] = known.plus(more) if known else more
        if self._timer is None:
            self._timer = threading.Timer(FLUSH_EACH_S, self.flush)
            self._timer.daemon = True
            self._timer.start()

    def _one_of_many(self, kind: Kind, known: Mapping[Kind, object]) -> Kind:
        """The kind itself while there is room for it."""
        is_beyond = len(known) >= self._most and kind not in known
        return kind._replace(network="many") if is_beyond else kind

    def _stop_timer(self) -> None:
        with self._lock:
            timer, self._timer = self._timer, None
        if timer is not None:
            timer.cancel()

    def _write(self, kind: Kind, details: Mapping[str, JsonValue | Personal]) -> None:
        facts = {"reason": kind.reason, "status": kind.status, **details}
        try:
            self._stage(kind.event_type, facts)
        except (SubjectErased, SubjectErasing, UnknownSubject):
            g.origin = unproven(g.origin)  # the person is being erased: nothing more goes under its keys
            self._stage(kind.event_type, {name: _disowned(value) for name, value in facts.items()})

    def _write_count(self, kind: Kind, count: Count) -> int:
        facts: dict[str, JsonValue | Personal] = {
            "reason": kind.reason,
            "status": kind.status,
            "count": count.number,
            "first_at": _stamp(count.first_at),
            "last_at": _stamp(count.last_at),
            "network": Personal(UNPROVEN, kind.network),
        }
        try:
            self._stage(kind.event_type, facts, actor=Personal(UNPROVEN, "counted"))
        except SQLAlchemyError as error:
            log.warning("counted refusals wait: reason %s, %s", kind.reason, type(error).__name__)
            with self._lock:
                self._fold(kind, count)
            return 0
        return count.number

    def _stage(
        self,
        event_type: EventType,
        details: Mapping[str, JsonValue | Personal],
        actor: Personal | None = None,
    ) -> None:
        trail = self._services.trail
        entry = trail.draft(event_type, details=details, outcome=Outcome.DENIED, actor=actor)
        with self._services.engine.begin() as conn:
            trail.write(conn, entry)


def install_refusals(app: Flask, services: Services) -> None:
    """Give the application its memory of refusals."""
    app.extensions[EXTENSION] = Refusals(services)


def record_refusal(error: GatewayError) -> None:
    """Write the entry of a request that was refused; it never hides the refusal itself."""
    record(_event_type(), error.code, error.status)


def record(
    event_type: EventType, reason: str, status: int, *, client_id: str = "", user_id: str = ""
) -> None:
    """Write the entry of a refusal of the current request.

    Args:
        event_type: `access.refused`, `update.refused`, `token.refused` or `user.refused`.
        reason: a stable code.
        status: the answer's HTTP status.
        client_id: who the caller claims to be, without proof.
        user_id: whose name the caller used, without proof.
    """
    kind = Kind(event_type, reason, status, network_of(address_of(g.origin)))
    _desk().record(kind, lambda: _circumstances(client_id, user_id))


def flush_refusals(app: Flask | None = None) -> int:
    """Write what was counted so far; says how many refusals that were."""
    desk: Refusals = (app or current_app).extensions[EXTENSION]
    return desk.flush()


def close_refusals(app: Flask) -> None:
    """Write what was counted and stop the timer; for the end of the process."""
    desk: Refusals = app.extensions[EXTENSION]
    desk.close()


@lru_cache(maxsize=1024)
def network_of(address: str) -> str:
    """The network that an address is counted under: /24 of IPv4, /64 of IPv6."""
    try:
        parsed = ip_address(address)
    except ValueError:
        return "unknown"
    if isinstance(parsed, IPv6Address):
        mapped = parsed.ipv4_mapped
        return str(ip_network((mapped, 24) if mapped else (parsed, 64), strict=False))
    return str(ip_network((parsed, 24), strict=False))


def _desk() -> Refusals:
    desk: Refusals = current_app.extensions[EXTENSION]
    return desk


def _event_type() -> EventType:
    is_update = request.method == "POST" and (request.endpoint or "").startswith("updates.")
    return EventType.UPDATE_REFUSED if is_update else EventType.ACCESS_REFUSED


def _circumstances(client_id: str, user_id: str) -> dict[str, JsonValue | Personal]:
    """What was asked: the route's template in clear; what the caller chose is sealed under the actor."""
    facts: dict[str, JsonValue | Personal] = {"method": _method()}
    if request.url_rule is not None:
        facts["route"] = request.url_rule.rule
    else:
        facts["path"] = _claim(request.path)
    if client_id:
        facts["claimed_client_id"] = _claim(client_id)
    if user_id:
        facts["claimed_user_id"] = _claim(user_id)
    for name, header in _CLAIMS.items():
        if header in request.headers:
            facts[name] = _claim(request.headers[header])
    return facts


def _claim(text: str) -> Personal:
    """A value that the caller chose freely: sealed, whatever the event type says of its name."""
    origin: Origin = g.origin
    return Personal(origin.actor.subject, text[:_LONGEST_CLAIM])


def _method() -> str:
    return request.method if request.method in _METHODS else "other"


def _disowned(value: JsonValue | Personal) -> JsonValue | Personal:
    return Personal(UNPROVEN, value.value) if isinstance(value, Personal) else value


def _stamp(at: datetime) -> str:
    return at.isoformat().replace("+00:00", "Z")


_METHODS = frozenset({"GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"})
