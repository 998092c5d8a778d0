"""The log as server-sent events, for a SIEM that fetches: each entry once a signed checkpoint covers it.

A stream is a long poll that is answered piece by piece: it has a place (RULES 29), one a client, holds no database
connection while it waits, and ends after ten minutes, so that the client comes again with `Last-Event-ID`.
"""

from __future__ import annotations

import logging
import re
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field

from flask import Blueprint, Flask, Response, current_app, request
from sqlalchemy.exc import SQLAlchemyError

from audit.following import signed_entries
from audit.reading import reading
from audit.store import StoredEntry
from gateway.api.invitations import EXTENSION as POLLS
from gateway.api.invitations import NewestPolls
from gateway.auth.admission import current_client, still_admitted
from gateway.errors import Busy, ValidationFailed
from gateway.openapi import Media, operation
from gateway.services import Services, current_services
from gateway.storage.bell import Channel
from gateway.storage.database import kind_of
from gateway.wire import number_asked

log = logging.getLogger(__name__)
stream = Blueprint("audit_stream", __name__, url_prefix="/api/v1/audit")
EXTENSION = "fl_gateway_streams"
_BATCH = 200
_LOOK_S = 0.25
_EARLIER_ENDS_S = 1.0
_LAST_PLACE = 1 << 53
_PLACE = re.compile(r"[0-9]{1,16}")
_BEGINNING = b": the log, entry by entry\nretry: 1000\n\n"
_HEARTBEAT = b": still there\n\n"


@dataclass(frozen=True, slots=True)
class Streams:
    """What holds for the streams of one application.

    Args:
        places: how many there may be beside other long polls, of whose places each takes one too.
        longest_s: a stream ends after this time.
        heartbeat_s: so often it sends something, which shows a client that went away.
        unread_s: so long a piece may take; who stops reading comes again for the rest.
        is_ending: whether the server is about to stop.
        newest: a client's newer stream ends its earlier one, whose connection may be gone.
    """

    places: threading.BoundedSemaphore
    longest_s: float = 600.0
    heartbeat_s: float = 10.0
    unread_s: float = 30.0
    is_ending: threading.Event = field(default_factory=threading.Event)
    newest: NewestPolls = field(default_factory=NewestPolls)


def install_streams(app: Flask, poll_places: int) -> None:
    """Give the application its streams: half of the places of long polls, so that other polls have the rest."""
    app.extensions[EXTENSION] = Streams(threading.BoundedSemaphore(max(1, poll_places // 2)))


@stream.get("/stream")
@operation(
    "Entries as they are signed: server-sent events whose id is the entry's seq",
    answers={200: Media.EVENTS},
    errors=(ValidationFailed, Busy),
    headers=("Last-Event-ID",),
    numbers=("after",),
)
def show_stream() -> Response:
    """From behind `Last-Event-ID`, or else `after`, or else from the first entry."""
    after, client_id = _place_asked(), current_client().client_id
    rules: Streams = current_app.extensions[EXTENSION]
    patience_s = _EARLIER_ENDS_S if rules.newest.has(client_id) else 0.0
    with ExitStack() as held:
        is_over = held.enter_context(rules.newest.begin(client_id))
        for places in (rules.places, current_app.extensions[POLLS]):
            held.enter_context(_place_in(places, patience_s))
        _limit_writes(rules.unread_s)
        ends = _Ends(time.monotonic() + rules.longest_s, rules.is_ending, is_over, still_admitted())
        events = _events(current_services(), ends, after, rules.heartbeat_s)
        answer = Response(events, mimetype=Media.EVENTS.value, headers={"X-Accel-Buffering": "no"})
        answer.call_on_close(held.pop_all().close)
    return answer


def _limit_writes(limit_s: float) -> None:
    """Gunicorn waits for ever for a peer that takes nothing, which would keep its place and outlive its token."""
    connection = request.environ.get(
        "gunicorn.socket"
    )  # granian stands behind nginx, which lets go of such a peer
    if connection is not None:
        connection.settimeout(limit_s)  # gunicorn takes it back for the next request


@dataclass(frozen=True, slots=True)
class _Ends:
    """What ends a stream: its time, the server's stop, the client's newer stream, its token."""

    at_s: float
    is_ending: threading.Event
    is_over: threading.Event
    is_admitted: Callable[[], bool]

    def have_come(self) -> bool:
        """Whether it must end at once; the token is not asked for."""
        return self.is_ending.is_set() or self.is_over.is_set() or time.monotonic() >= self.at_s


def _events(services: Services, ends: _Ends, after: int, heartbeat_s: float) -> Iterator[bytes]:
    """The body; a database that is away ends it, and the client comes again."""
    yield _BEGINNING
    try:
        yield from _pieces(services, ends, after, heartbeat_s)
    except SQLAlchemyError as error:
        log.warning("a stream of the log ends: the database did not answer (%s)", kind_of(error))


def _pieces(services: Services, ends: _Ends, after: int, heartbeat_s: float) -> Iterator[bytes]:
    """Events and comments; it runs outside of the request, and between pieces without a connection."""
    said_at = time.monotonic()
    while not ends.have_come() and ends.is_admitted():
        with reading(services.engine) as conn:
            found = signed_entries(conn, after, _BATCH)
        if found:
            after, said_at = found[-1].seq, time.monotonic()
            yield b"".join(_event(entry) for entry in found)
            continue
        if time.monotonic() - said_at >= heartbeat_s:
            said_at = time.monotonic()
            yield _HEARTBEAT
        _await_growth(services, ends)


def _await_growth(services: Services, ends: _Ends) -> None:
    """Until the bell rings, or it is time to look without one."""
    look_at = time.monotonic() + _LOOK_S
    while not ends.have_come() and (left_s := look_at - time.monotonic()) > 0:
        if services.bell.wait(Channel.LOG, left_s):
            return


def _event(entry: StoredEntry) -> bytes:
    """One event; canonical JSON is one line, and what somebody spoilt in the database cannot pose as an event."""
    data = b"\ndata: ".join(entry.canonical.splitlines())
    return b"id: %d\nevent: entry\ndata: %s\n\n" % (entry.seq, data)


def _place_asked() -> int:
    """The header counts: a client that comes again by itself sends it to the address that it had at first."""
    last = request.headers.get("Last-Event-ID", "")
    if not last:
        after = number_asked("after", None)
        return -1 if after is None else after
    if not (_PLACE.fullmatch(last) and int(last) <= _LAST_PLACE):
        raise ValidationFailed([{"pointer": "Last-Event-ID", "detail": "must be the seq of an entry"}])
    return int(last)


@contextmanager
def _place_in(places: threading.BoundedSemaphore, patience_s: float) -> Iterator[None]:
    """A place; waited for a moment by a client whose earlier stream is about to leave one."""
    if not places.acquire(timeout=patience_s):
        raise Busy("All places for streams are taken: come again in a moment, or ask for the entries")
    try:
        yield
    finally:
        places.release()
