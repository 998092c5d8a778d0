"""Privacy requests on the wire: the bodies that open and move one, and how the API shows it."""

from __future__ import annotations

from datetime import datetime
from typing import Annotated
from uuid import UUID

from pydantic import AwareDatetime, Field, JsonValue
from pydantic.dataclasses import dataclass

from compliance.requests.cases import Case, RequestType, Status
from compliance.requests.desk import PrivacyDesk
from compliance.requests.reasons import Exemption, Refusal
from gateway.wire import WIRE

_Text = Annotated[str, Field(max_length=2000)]
_Reference = Annotated[str, Field(min_length=1, max_length=200)]


@dataclass(frozen=True, slots=True, config=WIRE)
class SubjectWish:
    """Who the request is about: one of its clients, its own id, or a silo's reference of somebody it alone knows."""

    client_id: UUID | None = None
    subject_id: UUID | None = None
    reference: _Reference | None = None
    silo: UUID | None = None


@dataclass(frozen=True, slots=True, config=WIRE)
class PrivacyWish:
    """The body that opens a request; `received_at` is for one that came before, as a letter does."""

    type: RequestType
    subject: SubjectWish
    received_at: AwareDatetime | None = None
    correction: dict[str, JsonValue] | None = None


@dataclass(frozen=True, slots=True, config=WIRE)
class MoveWish:
    """The body of a transition: which member counts depends on the transition."""

    reason: _Text = ""
    exemption: Exemption | None = None
    note: _Text = ""
    notice: _Text = ""
    version: int | None = None


@dataclass(frozen=True, slots=True, config=WIRE)
class SubjectView:
    """Whom a request is about; with `is_by_reference` the silo that knows the person."""

    subject_id: str
    is_by_reference: bool


@dataclass(frozen=True, slots=True, config=WIRE)
class RequestView:
    """A data-protection request as the API shows it; it names nobody."""

    id: str
    type: RequestType
    status: Status
    subject: SubjectView
    version: int
    received_at: datetime
    due_at: datetime
    days_left: int | None
    is_extended: bool
    is_paused: bool
    is_owned: bool
    duplicate_of: str | None
    approvals_needed: int
    approvals_given: int
    refusal: Refusal | None
    exemption: Exemption | None
    finished_at: datetime | None
    lifted_at: datetime | None
    attempts: int
    last_error: str | None
    has_package: bool
    has_receipt: bool
    has_statement: bool


@dataclass(frozen=True, slots=True, config=WIRE)
class RequestPage:
    """A page of requests."""

    data: list[RequestView]
    pagination: dict[str, int]
    links: dict[str, str | None]


def view_of(desk: PrivacyDesk, case: Case) -> RequestView:
    """A request as the API shows it, with what the desk's clock and settings say of it."""
    return RequestView(
        id=case.id,
        type=case.type,
        status=case.status,
        subject=SubjectView(case.subject_id, case.is_by_reference),
        version=case.version,
        received_at=case.received_at,
        due_at=case.due_at,
        days_left=desk.days_left(case),
        is_extended=case.extended_at is not None,
        is_paused=case.paused_at is not None,
        is_owned=case.owned_at is not None,
        duplicate_of=case.duplicate_of,
        approvals_needed=desk.approvals_needed(case),
        approvals_given=desk.approvals_given(case),
        refusal=case.refusal,
        exemption=case.exemption,
        finished_at=case.finished_at,
        lifted_at=case.lifted_at,
        attempts=case.attempts,
        last_error=case.last_error,
        has_package=case.package_bytes is not None,
        has_receipt=case.receipt is not None,
        has_statement=case.statement is not None,
    )
