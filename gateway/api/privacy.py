"""Data-protection requests over HTTP: they are opened, listed, moved, and, where nobody can be identified, stated."""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime
from enum import StrEnum
from hashlib import sha256
from typing import TypeVar
from uuid import UUID, uuid4

from flask import Blueprint, Response, g, request
from sqlalchemy.exc import IntegrityError

from audit.draft import Personal
from compliance.errors import BadCorrection, ComplianceError
from compliance.requests.cases import Case, RequestType, Status
from compliance.requests.desk import PrivacyDesk
from compliance.requests.listing import CaseFilter
from compliance.requests.reasons import Refusal
from gateway import idempotency
from gateway.api.privacy_wire import MoveWish, PrivacyWish, RequestPage, RequestView, SubjectWish, view_of
from gateway.auth.admission import current_client
from gateway.errors import (
    BlobsAway,
    Conflict,
    GatewayError,
    IdempotencyKeyReused,
    InsufficientScope,
    NotFound,
    StorageFull,
    ValidationFailed,
)
from gateway.openapi import Media, operation
from gateway.places import ClientBook
from gateway.privacy import privacy_desk
from gateway.services import current_services
from gateway.wire import PAGE, answer, page, page_asked, parse_json, read_json_body

privacy = Blueprint("privacy", __name__, url_prefix="/api/v1/privacy")
MAY_APPROVE_ALONE = "privacy:manage"
SCOPES = {
    RequestType.ACCESS: "privacy:export",
    RequestType.PORTABILITY: "privacy:export",
    RequestType.ERASURE: "privacy:erase",
    RequestType.RESTRICTION: "privacy:manage",
    RequestType.OBJECTION: "privacy:manage",
    RequestType.RECTIFICATION: "privacy:manage",
}
_PATIENCE_S = 10.0  # the worker may have taken the request first
_YES_NO = {"true": True, "false": False}
E = TypeVar("E", bound=StrEnum)
T = TypeVar("T")


@privacy.post("/requests")
@operation(
    "Open a data-protection request; a role that may approve alone has it carried out at once",
    body=PrivacyWish,
    answers={201: RequestView},
    errors=(NotFound, Conflict, ValidationFailed, IdempotencyKeyReused),
    headers=("Idempotency-Key",),
)
def open_request() -> Response:
    """Open it, and carry it out where the caller may approve; one like an open one waits for a person to look."""
    services, body = current_services(), read_json_body()
    hashed, digest = idempotency.key_hash("privacy/requests"), sha256(body).digest()
    desk = privacy_desk(services)
    try:
        case = _opened_before(desk, hashed, digest) or _open(desk, body, hashed, digest)
    except (
        IntegrityError,
        ComplianceError,
        GatewayError,
    ):  # the same request at this moment was perhaps faster
        faster = _opened_before(desk, hashed, digest)
        if faster is None:
            raise
        case = faster
    is_new = case.status is Status.RECEIVED and case.duplicate_of is None
    if is_new and MAY_APPROVE_ALONE in current_client().scopes:
        case = _carried_out(desk, desk.approve(case.id, by=_actor()))
    return answer(view_of(desk, case), 201, {"Location": f"/api/v1/privacy/requests/{case.id}"})


@privacy.get("/requests")
@operation(
    "The requests, those due first first",
    answers={200: RequestPage},
    errors=(NotFound, ValidationFailed),
    numbers=PAGE,
)
def show_requests() -> Response:
    """One page; `status`, `type`, `client_id`, `due_before` and, of the open ones, `owned` let through some."""
    desk, (number, per_page) = privacy_desk(current_services()), page_asked()
    found, total = desk.page(_filter_asked(), limit=per_page, offset=(number - 1) * per_page)
    return page([view_of(desk, case) for case in found], total)


@privacy.get("/requests/<uuid:case_id>")
@operation("A request as it stands", answers={200: RequestView}, errors=(NotFound,))
def show_request(case_id: UUID) -> Response:
    """Its state, its due day, its last error."""
    desk = privacy_desk(current_services())
    return answer(view_of(desk, desk.show(str(case_id))))


@privacy.get("/requests/<uuid:case_id>/statement")
@operation(
    "The signed answer about a person whom the gateway cannot identify",
    answers={200: Media.TEXT},
    errors=(NotFound,),
)
def show_statement(case_id: UUID) -> Response:
    """A compact JWS of type `fl-statement+jwt`."""
    signed = privacy_desk(current_services()).statement(str(case_id))
    return Response(signed, mimetype=Media.TEXT.value)


@privacy.post("/requests/<uuid:case_id>/<transition>")
@operation(
    "Move a request: take, identify, review, approve, refuse, withdraw, hold, resume, extend",
    body=MoveWish,
    answers={200: RequestView},
    errors=(NotFound, Conflict, ValidationFailed),
)
def move_request(case_id: UUID, transition: str) -> Response:
    """`approve` has the request carried out, once enough people have approved it."""
    desk, actor = privacy_desk(current_services()), _actor()
    has_body = request.content_length or "Transfer-Encoding" in request.headers
    wish = parse_json(MoveWish, read_json_body() if has_body else b"{}")
    return answer(view_of(desk, _moved(desk, str(case_id), transition, wish, actor)))


def _open(desk: PrivacyDesk, body: bytes, hashed: str | None, digest: bytes) -> Case:
    """The case, and in its own transaction its id under the idempotency key: a repetition goes on with it."""
    wish = parse_json(PrivacyWish, body)
    _insist_scope(SCOPES[wish.type])
    case_id, staff = str(uuid4()), current_client().subject_id
    kept = idempotency.remembered(hashed, digest, {"id": case_id}, status=201, subject_id=staff)
    return desk.open(
        wish.type,
        _subject(wish.subject),
        requested_by=_actor(),
        received_at=wish.received_at,
        reference=wish.subject.reference,
        correction=wish.correction,
        case_id=case_id,
        beside=lambda conn: idempotency.store(conn, kept),
    )


def _carried_out(desk: PrivacyDesk, case: Case) -> Case:
    """The request as far as it goes now: it was taken down, also where no room is left or nothing can be put right."""
    try:
        return desk.run(case.id, patience_s=_PATIENCE_S)
    except (BadCorrection, StorageFull, BlobsAway):
        return desk.show(case.id)


def _opened_before(desk: PrivacyDesk, hashed: str | None, digest: bytes) -> Case | None:
    first = idempotency.replayed(hashed, digest)
    return None if first is None else desk.show(first.value["id"])


def _insist_scope(scope: str) -> None:
    if scope not in current_client().scopes:
        raise InsufficientScope(scope=scope)


def _subject(wish: SubjectWish) -> str:
    """The subject that is named in one way; with a reference, the silo's own."""
    named = {
        name for name in ("client_id", "subject_id", "reference", "silo") if getattr(wish, name) is not None
    }
    if named == {"client_id"}:
        return _subject_of(str(wish.client_id))
    if named == {"subject_id"}:
        return str(wish.subject_id)
    if named == {"reference", "silo"}:
        return _subject_of(str(wish.silo))
    detail = "name a client_id, or a subject_id, or a reference with its silo"
    raise ValidationFailed([{"pointer": "/subject", "detail": detail}])


def _subject_of(client_id: str) -> str:
    found = ClientBook(current_services()).subject_of(client_id)
    if found is None:
        raise NotFound("There is no such client, or it was erased")
    return found


def _filter_asked() -> CaseFilter:
    client_id = _read(request.args.get("client_id"), "client_id", UUID)
    return CaseFilter(
        status=_asked("status", Status),
        type=_asked("type", RequestType),
        subject_id=None if client_id is None else _subject_of(str(client_id)),
        due_before=_read(request.args.get("due_before"), "due_before", _time),
        is_owned=_read(request.args.get("owned"), "owned", _YES_NO.__getitem__),
    )


def _asked(name: str, kind: type[E]) -> E | None:
    return _read(request.args.get(name), name, kind)


def _read(text: str | None, name: str, reader: Callable[[str], T]) -> T | None:
    if text is None:
        return None
    try:
        return reader(text)
    except (ValueError, KeyError, OverflowError):
        raise ValidationFailed([{"pointer": f"?{name}", "detail": "is not one of its values"}]) from None


def _time(text: str) -> datetime:
    found = datetime.fromisoformat(text)
    if found.tzinfo is None:
        raise ValueError("a time without its offset")
    return found.astimezone(UTC)


def _actor() -> Personal:
    actor: Personal = g.origin.actor
    return actor


def _moved(desk: PrivacyDesk, case_id: str, transition: str, wish: MoveWish, by: Personal) -> Case:
    plain = {
        "take": desk.take,
        "identify": desk.identify,
        "review": desk.review,
        "withdraw": desk.withdraw,
        "resume": desk.resume,
    }
    if transition in plain:
        return plain[transition](case_id, by=by, version=wish.version)
    match transition:
        case "approve":
            case = desk.approve(case_id, by=by, version=wish.version)
            return case if case.status is Status.COMPLETED else desk.run(case.id, patience_s=_PATIENCE_S)
        case "refuse":
            return _refused(desk, case_id, wish, by)
        case "hold":
            return desk.hold(case_id, by=by, reason=_needed(wish, "reason"), version=wish.version)
        case "extend":
            reason, notice = _needed(wish, "reason"), _needed(wish, "notice")
            return desk.extend(case_id, by=by, reason=reason, notice=notice, version=wish.version)
    raise NotFound("There is no such transition")


def _refused(desk: PrivacyDesk, case_id: str, wish: MoveWish, by: Personal) -> Case:
    try:
        reason = Refusal(_needed(wish, "reason"))
    except ValueError:
        detail = f"is none of {', '.join(Refusal)}"
        raise ValidationFailed([{"pointer": "/reason", "detail": detail}]) from None
    return desk.refuse(
        case_id, by=by, reason=reason, exemption=wish.exemption, note=wish.note, version=wish.version
    )


def _needed(wish: MoveWish, name: str) -> str:
    found: str = getattr(wish, name)
    if not found.strip():
        raise ValidationFailed([{"pointer": f"/{name}", "detail": "is needed for this transition"}])
    return found
