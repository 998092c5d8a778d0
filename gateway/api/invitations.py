"""Invitations over HTTP: a client asks which rounds want an update of it, and may wait for one (RULES 29)."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import datetime
from typing import Any

from flask import Blueprint, Response, current_app, request
from pydantic.dataclasses import dataclass

from audit.reading import reading
from gateway.api.rounds import GlobalModel, shown_model
from gateway.auth.admission import current_client
from gateway.errors import Busy, ValidationFailed
from gateway.openapi import operation
from gateway.rounds.invitations import Invitation, open_invitations
from gateway.rounds.lineage import find_version
from gateway.services import current_services
from gateway.storage.bell import Channel
from gateway.wire import WIRE, answer

invitations = Blueprint("invitations", __name__, url_prefix="/api/v1/invitations")
EXTENSION = "fl_gateway_poll_places"
NEWEST = "fl_gateway_newest_polls"
LONGEST_WAIT_S = 30
_LOOK_S = 1.0


@dataclass(frozen=True, slots=True, config=WIRE)
class InvitationView:
    """A round that asks this client; `invitation_id` and `invited_at` are null where every client may come."""

    invitation_id: str | None
    round_number: int
    status: str
    policy_hash: str
    invited_at: datetime | None
    deadline: datetime
    global_model: GlobalModel
    global_model_url: str
    training_config: dict[str, Any]


@dataclass(frozen=True, slots=True, config=WIRE)
class InvitationList:
    """The rounds that ask this client now, the newest first."""

    data: list[InvitationView]


def poll_places(config_places: int, web_threads: int, upload_threads: int) -> threading.BoundedSemaphore:
    """The places of long polls: never so many that polls and uploads take every request thread."""
    room = max(web_threads - upload_threads - 1, 1)
    return threading.BoundedSemaphore(min(config_places, room))


class NewestPolls:
    """Which poll is a client's newest: an earlier one, whose connection may be gone, makes room for it."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._over: dict[str, threading.Event] = {}

    def has(self, client_id: str) -> bool:
        """Whether a poll of this client is there."""
        with self._lock:
            return client_id in self._over

    @contextmanager
    def begin(self, client_id: str) -> Iterator[threading.Event]:
        """A poll of this client; the event says that a newer one has begun."""
        over = threading.Event()
        with self._lock:
            earlier = self._over.get(client_id)
            self._over[client_id] = over
        if earlier:
            earlier.set()
        try:
            yield over
        finally:
            with self._lock:
                if self._over.get(client_id) is over:
                    del self._over[client_id]


@invitations.get("")
@operation(
    "The rounds that ask this client for an update; waits for one if asked to",
    answers={200: InvitationList},
    errors=(ValidationFailed, Busy),
    numbers=("wait",),
)
def show_invitations() -> Response:
    """At once if there is one; else after at most `wait` seconds, with an empty list if none came."""
    wait_s = _wait_asked()
    found = _look()
    if not found and wait_s:
        newest: NewestPolls = current_app.extensions[NEWEST]
        with newest.begin(current_client().client_id) as is_over, _poll_place():
            found = _await(time.monotonic() + wait_s, is_over)
    return answer(InvitationList(found))


def _await(until_s: float, is_over: threading.Event) -> list[InvitationView]:
    """Look whenever the bell rings, and every second; no connection is held in between."""
    bell = current_services().bell
    while not (found := _look()) and not is_over.is_set() and (left_s := until_s - time.monotonic()) > 0:
        bell.wait(Channel.INVITATIONS, min(left_s, _LOOK_S))
    return found


def _look() -> list[InvitationView]:
    services = current_services()
    with reading(services.engine) as conn:
        found = open_invitations(conn, current_client().client_id, services.clock())
        return [_view(one, shown_model(find_version(conn, one.base_version))) for one in found]


@contextmanager
def _poll_place() -> Iterator[None]:
    places: threading.BoundedSemaphore = current_app.extensions[EXTENSION]
    if not places.acquire(blocking=False):
        raise Busy("All places for long polls are taken: ask again in a moment, or without wait")
    try:
        yield
    finally:
        places.release()


def _wait_asked() -> int:
    text = request.args.get("wait", "0")
    if not (text.isascii() and text.isdigit() and len(text) <= 2 and int(text) <= LONGEST_WAIT_S):
        raise ValidationFailed(
            [{"pointer": "?wait", "detail": f"must be 0 to {LONGEST_WAIT_S} whole seconds"}]
        )
    return int(text)


def _view(one: Invitation, model: GlobalModel) -> InvitationView:
    return InvitationView(
        invitation_id=one.invitation_id,
        round_number=one.round_number,
        status=one.status,
        policy_hash=one.policy_hash,
        invited_at=one.invited_at,
        deadline=one.deadline,
        global_model=model,
        global_model_url=model.download_url,
        training_config=one.training_config,
    )
