"""Legal holds over HTTP: place, list, review, and end by two people (Art. 17(3), 18(1)(c))."""

from __future__ import annotations

from datetime import datetime
from typing import Annotated
from uuid import UUID

from flask import Blueprint, Response, g, request
from pydantic import AwareDatetime, Field
from pydantic.dataclasses import dataclass

from audit.draft import Personal
from compliance.keeping.hold import Hold
from compliance.keeping.holds import Holds
from compliance.requests.reasons import Exemption
from gateway.errors import BadRequest, Conflict, NotFound, ValidationFailed
from gateway.openapi import operation
from gateway.places import ClientBook
from gateway.privacy import privacy_desk
from gateway.rounds.deadlines import END_OF_TIME
from gateway.services import current_services
from gateway.wire import PAGE, WIRE, answer, page, page_asked, parse_body, refuse_long_body

holds = Blueprint("holds", __name__, url_prefix="/api/v1/privacy/holds")
holds.before_request(refuse_long_body)
_STATES = {"active": True, "lifted": False}


@dataclass(frozen=True, slots=True, config=WIRE)
class HeldWish:
    """Whose data must stay: the person behind a client, or the subject's own id."""

    client_id: UUID | None = None
    subject_id: UUID | None = None


@dataclass(frozen=True, slots=True, config=WIRE)
class HoldWish:
    """The body that places a hold."""

    subject: HeldWish
    matter: Annotated[str, Field(max_length=2000)]
    basis: Exemption
    review_at: Annotated[AwareDatetime, Field(lt=END_OF_TIME)]
    scope: list[str] = Field(default=["*"], max_length=100)


@dataclass(frozen=True, slots=True, config=WIRE)
class ReviewWish:
    """The body of a review: the grounds still stand, until a later day."""

    review_at: Annotated[AwareDatetime, Field(lt=END_OF_TIME)]
    version: int | None = None


@dataclass(frozen=True, slots=True, config=WIRE)
class HeldSubject:
    """The person whose data must stay, by the random id."""

    subject_id: str


@dataclass(frozen=True, slots=True, config=WIRE)
class HoldView:
    """A legal hold as the API shows it; its matter is shown with one hold alone."""

    id: str
    subject: HeldSubject
    version: int
    scope: list[str]
    basis: Exemption
    placed_at: datetime
    review_at: datetime
    release_asked_at: datetime | None
    lifted_at: datetime | None
    is_active: bool
    matter: str | None = None


@dataclass(frozen=True, slots=True, config=WIRE)
class HoldPage:
    """One page of holds."""

    data: list[HoldView]
    pagination: dict[str, int]
    links: dict[str, str | None]


@holds.post("")
@operation(
    "Place a legal hold: what it covers of a person is neither erased nor run out",
    body=HoldWish,
    answers={201: HoldView},
    errors=(BadRequest, NotFound, ValidationFailed, Conflict),
)
def place_hold() -> Response:
    """Place it; a person whose erasure has begun gets none (409)."""
    wish = parse_body(HoldWish)
    placed = _desk_holds().place(
        _subject(wish.subject),
        matter=wish.matter,
        scope=wish.scope,
        basis=wish.basis,
        review_at=wish.review_at,
        by=_actor(),
    )
    return answer(_view(placed), 201, {"Location": f"/api/v1/privacy/holds/{placed.id}"})


@holds.get("")
@operation(
    "Legal holds, those to be reviewed first first",
    answers={200: HoldPage},
    errors=(ValidationFailed,),
    numbers=PAGE,
)
def show_holds() -> Response:
    """One page; `state=active|lifted` and `subject_id=` choose."""
    number, per_page = page_asked()
    is_active, subject = _state_asked(), _subject_asked()
    found = _desk_holds().list(
        subject_id=subject, is_active=is_active, limit=per_page, offset=(number - 1) * per_page
    )
    total = _desk_holds().total(subject_id=subject, is_active=is_active)
    return page([_view(hold) for hold in found], total)


@holds.get("/<uuid:hold_id>")
@operation("One legal hold, with its matter", answers={200: HoldView}, errors=(NotFound,))
def show_hold(hold_id: UUID) -> Response:
    """The hold as it stands."""
    desk = _desk_holds()
    return answer(_view(desk.show(str(hold_id)), desk.matter(str(hold_id))))


@holds.post("/<uuid:hold_id>/review")
@operation(
    "Say that the grounds of a hold still stand, until a later day; refuses an asked release",
    body=ReviewWish,
    answers={200: HoldView},
    errors=(BadRequest, NotFound, ValidationFailed, Conflict),
)
def review_hold(hold_id: UUID) -> Response:
    """Move the day of its next review."""
    wish = parse_body(ReviewWish)
    reviewed = _desk_holds().review(str(hold_id), review_at=wish.review_at, by=_actor(), version=wish.version)
    return answer(_view(reviewed))


@holds.delete("/<uuid:hold_id>")
@operation(
    "End a hold: the first person's call asks (202), another person's call lifts it (200)",
    answers={200: HoldView, 202: HoldView},
    errors=(NotFound, Conflict),
)
def release_hold(hold_id: UUID) -> Response:
    """Ask for its end, or agree to it; who asked and calls again still waits for a second person (202)."""
    left = _desk_holds().end(str(hold_id), by=_actor())
    return answer(_view(left), 202 if left.is_active else 200)


def _desk_holds() -> Holds:
    return privacy_desk(current_services()).holds


def _actor() -> Personal:
    actor: Personal = g.origin.actor
    return actor


def _subject(wish: HeldWish) -> str:
    if wish.client_id is not None and wish.subject_id is None:
        found = ClientBook(current_services()).subject_of(str(wish.client_id))
        if found is None:
            raise NotFound("There is no such client, or it was erased")
        return found
    if wish.subject_id is not None and wish.client_id is None:
        return str(wish.subject_id)
    raise ValidationFailed([{"pointer": "/subject", "detail": "name either a client_id or a subject_id"}])


def _state_asked() -> bool | None:
    asked = request.args.get("state")
    if asked is not None and asked not in _STATES:
        raise ValidationFailed([{"pointer": "?state", "detail": "is active or lifted"}])
    return None if asked is None else _STATES[asked]


def _subject_asked() -> str | None:
    asked = request.args.get("subject_id")
    try:
        return None if asked is None else str(UUID(asked))
    except ValueError:
        raise ValidationFailed([{"pointer": "?subject_id", "detail": "is a UUID"}]) from None


def _view(hold: Hold, matter: str | None = None) -> HoldView:
    return HoldView(
        id=hold.id,
        subject=HeldSubject(hold.subject_id),
        version=hold.version,
        scope=list(hold.scope),
        basis=hold.basis,
        placed_at=hold.placed_at,
        review_at=hold.review_at,
        release_asked_at=hold.release_asked_at,
        lifted_at=hold.lifted_at,
        is_active=hold.is_active,
        matter=matter,
    )
