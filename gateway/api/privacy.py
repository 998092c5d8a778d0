"""Data-protection requests and privacy evidence over HTTP: access, erasure, their proofs, and what a model spent."""

from __future__ import annotations

from datetime import datetime
from hashlib import sha256
from typing import Literal
from uuid import UUID, uuid4

from flask import Blueprint, Response, g, request
from pydantic import Field
from pydantic.dataclasses import dataclass
from sqlalchemy.exc import IntegrityError

from audit.draft import Personal
from compliance.errors import ComplianceError
from compliance.requests.cases import Case, RequestType, Status
from compliance.requests.desk import PrivacyDesk
from gateway import idempotency
from gateway.auth.admission import current_client
from gateway.errors import (
    GatewayError,
    IdempotencyKeyReused,
    InsufficientScope,
    NotFound,
    Unsupported,
    ValidationFailed,
)
from gateway.openapi import operation
from gateway.places import ClientBook
from gateway.privacy import privacy_desk
from gateway.services import Services, current_services
from gateway.wire import WIRE, answer, parse_json, read_json_body

privacy = Blueprint("privacy", __name__, url_prefix="/api/v1/privacy")
SCOPES = {RequestType.ACCESS: "privacy:export", RequestType.ERASURE: "privacy:erase"}
MAY_APPROVE_ALONE = "privacy:manage"
_CHUNK = 1 << 20
_PATIENCE_S = 10.0  # the worker may have taken the request first


@dataclass(frozen=True, slots=True, config=WIRE)
class SubjectWish:
    """Who the request is about: by one of its clients, or by the subject's own id."""

    client_id: UUID | None = None
    subject_id: UUID | None = None
    reference: str | None = None
    silo: str | None = None


@dataclass(frozen=True, slots=True, config=WIRE)
class PrivacyWish:
    """The body that opens a request."""

    type: Literal["access", "portability", "erasure", "restriction", "objection", "rectification"]
    subject: SubjectWish


@dataclass(frozen=True, slots=True, config=WIRE)
class RequestView:
    """A data-protection request as the API shows it."""

    id: str
    type: str
    status: str
    due_at: datetime
    version: int
    received_at: datetime
    finished_at: datetime | None
    attempts: int
    last_error: str | None
    has_package: bool
    has_receipt: bool


@dataclass(frozen=True, slots=True, config=WIRE)
class MoveWish:
    """The body of a transition."""

    reason: str = Field(default="", max_length=2000)
    version: int | None = None


@privacy.post("/requests")
@operation(
    "Open an access or erasure request; a role that may approve alone has it carried out at once",
    body=PrivacyWish,
    answers={201: RequestView},
    errors=(NotFound, ValidationFailed, Unsupported, IdempotencyKeyReused),
    headers=("Idempotency-Key",),
)
def open_request() -> Response:
    """Open it, and carry it out where the caller may approve."""
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
    if case.status is Status.RECEIVED and MAY_APPROVE_ALONE in current_client().scopes:
        case = desk.run(desk.approve(case.id, by=_actor()).id, patience_s=_PATIENCE_S)
    return answer(_view(case), 201, {"Location": f"/api/v1/privacy/requests/{case.id}"})


@privacy.get("/requests/<uuid:case_id>")
@operation("A request as it stands", answers={200: RequestView}, errors=(NotFound,))
def show_request(case_id: UUID) -> Response:
    """Its state, its due day, its last error."""
    return answer(_view(privacy_desk(current_services()).show(str(case_id))))


@privacy.post("/requests/<uuid:case_id>/<transition>")
@operation(
    "Move a request: identify, review, approve, refuse, withdraw, hold, resume, extend",
    body=MoveWish,
    answers={200: RequestView},
    errors=(NotFound, ValidationFailed),
)
def move_request(case_id: UUID, transition: str) -> Response:
    """`approve` has the request carried out."""
    desk, actor = privacy_desk(current_services()), _actor()
    body = read_json_body() if request.content_length else b"{}"
    wish = parse_json(MoveWish, body)
    return answer(_view(_moved(desk, str(case_id), transition, wish, actor)))


def _open(desk: PrivacyDesk, body: bytes, hashed: str | None, digest: bytes) -> Case:
    """The case, and in its own transaction its id under the idempotency key: a repetition goes on with it."""
    wish = parse_json(PrivacyWish, body)
    kind = _kind(wish)
    _insist_scope(SCOPES[kind])
    case_id, staff = str(uuid4()), current_client().subject_id
    kept = idempotency.remembered(hashed, digest, {"id": case_id}, status=201, subject_id=staff)
    return desk.open(
        kind,
        _subject(current_services(), wish.subject),
        requested_by=_actor(),
        case_id=case_id,
        beside=lambda conn: idempotency.store(conn, kept),
    )


def _opened_before(desk: PrivacyDesk, hashed: str | None, digest: bytes) -> Case | None:
    first = idempotency.replayed(hashed, digest)
    return None if first is None else desk.show(first.value["id"])


def _kind(wish: PrivacyWish) -> RequestType:
    try:
        return RequestType(wish.type)
    except ValueError:
        raise Unsupported(
            f"Requests of type {wish.type} are not carried out by this version: use access or erasure",
            field="type",
        ) from None


def _insist_scope(scope: str) -> None:
    if scope not in current_client().scopes:
        raise InsufficientScope(scope=scope)


def _subject(services: Services, wish: SubjectWish) -> str:
    if wish.client_id is not None:
        found = ClientBook(services).subject_of(str(wish.client_id))
        if found is None:
            raise NotFound("There is no such client, or it was erased")
        return found
    if wish.subject_id is not None:
        return str(wish.subject_id)
    if wish.reference is not None:
        raise Unsupported(
            "Subjects named by a silo's reference are not carried out by this version: use client_id",
            field="subject.reference",
        )
    raise ValidationFailed([{"pointer": "/subject", "detail": "name a client_id or a subject_id"}])


def _actor() -> Personal:
    actor: Personal = g.origin.actor
    return actor


def _moved(desk: PrivacyDesk, case_id: str, transition: str, wish: MoveWish, by: Personal) -> Case:
    plain = {
        "identify": desk.identify,
        "review": desk.review,
        "withdraw": desk.withdraw,
        "resume": desk.resume,
    }
    reasoned = {"refuse": desk.refuse, "hold": desk.hold, "extend": desk.extend}
    if transition in plain:
        return plain[transition](case_id, by=by, version=wish.version)
    if transition in reasoned:
        if not wish.reason:
            raise ValidationFailed([{"pointer": "/reason", "detail": "is needed for this transition"}])
        return reasoned[transition](case_id, by=by, reason=wish.reason, version=wish.version)
    if transition == "approve":
        case = desk.approve(case_id, by=by, version=wish.version)
        return case if case.status is Status.COMPLETED else desk.run(case.id, patience_s=_PATIENCE_S)
    raise NotFound("There is no such transition")


def _view(case: Case) -> RequestView:
    return RequestView(
        id=case.id,
        type=case.type.value,
        status=case.status.value,
        due_at=case.due_at,
        version=case.version,
        received_at=case.received_at,
        finished_at=case.finished_at,
        attempts=case.attempts,
        last_error=case.last_error,
        has_package=case.package_blob is not None,
        has_receipt=case.receipt is not None,
    )
