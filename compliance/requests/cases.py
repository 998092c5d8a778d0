"""Privacy requests as rows, and the moves between their states, each a compare-and-set on `version`."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from enum import StrEnum
from typing import Any

from sqlalchemy import Connection, Row, insert, select, update

from compliance.errors import CaseChanged, UnknownRequest
from compliance.requests.reasons import Exemption, Refusal
from compliance.tables import privacy_requests


class RequestType(StrEnum):
    """What a person can ask for, by the article that gives the right."""

    ACCESS = "access"  # Art. 15
    PORTABILITY = "portability"  # Art. 20
    ERASURE = "erasure"  # Art. 17
    RESTRICTION = "restriction"  # Art. 18
    OBJECTION = "objection"  # Art. 21
    RECTIFICATION = "rectification"  # Art. 16


class Status(StrEnum):
    """Where a request stands."""

    RECEIVED = "received"
    AWAITING_IDENTITY = "awaiting_identity"
    IN_REVIEW = "in_review"
    APPROVED = "approved"
    RUNNING = "running"
    ON_HOLD = "on_hold"
    COMPLETED = "completed"
    REFUSED = "refused"
    WITHDRAWN = "withdrawn"


class Move(StrEnum):
    """What a person can do with a request; running and completing come by themselves."""

    IDENTIFY = "identify"
    REVIEW = "review"
    APPROVE = "approve"
    REFUSE = "refuse"
    WITHDRAW = "withdraw"
    HOLD = "hold"
    RESUME = "resume"


_OPEN = frozenset({Status.RECEIVED, Status.AWAITING_IDENTITY, Status.IN_REVIEW, Status.APPROVED})
_KNOWN = _OPEN - {Status.AWAITING_IDENTITY}
MOVES: Mapping[Move, tuple[frozenset[Status], Status]] = {
    Move.IDENTIFY: (frozenset({Status.RECEIVED}), Status.AWAITING_IDENTITY),
    Move.REVIEW: (frozenset({Status.RECEIVED, Status.AWAITING_IDENTITY}), Status.IN_REVIEW),
    Move.APPROVE: (frozenset({Status.RECEIVED, Status.IN_REVIEW}), Status.APPROVED),
    Move.REFUSE: ((_OPEN - {Status.APPROVED}) | {Status.ON_HOLD}, Status.REFUSED),
    Move.WITHDRAW: (_OPEN | {Status.ON_HOLD}, Status.WITHDRAWN),
    Move.HOLD: (_KNOWN, Status.ON_HOLD),  # resting must not be a way around the proof of identity
    Move.RESUME: (frozenset({Status.ON_HOLD}), Status.IN_REVIEW),
}
RESTRICTING = frozenset({RequestType.RESTRICTION, RequestType.OBJECTION})
CLOSED = frozenset({Status.COMPLETED, Status.REFUSED, Status.WITHDRAWN})
OPEN = frozenset(Status) - CLOSED


@dataclass(frozen=True, slots=True)
class Case:
    """One privacy request as it stands."""

    id: str
    type: RequestType
    status: Status
    subject_id: str
    version: int
    received_at: datetime
    due_at: datetime
    requested_by: Mapping[str, str]
    may_approve_alone: bool
    reference: Mapping[str, str] | None
    reference_index: str | None
    extended_at: datetime | None
    extension_reason: Mapping[str, str] | None
    paused_at: datetime | None
    paused_s: int
    owner: Mapping[str, str] | None
    owned_at: datetime | None
    alarms: tuple[str, ...]
    refusal: Refusal | None
    exemption: Exemption | None
    duplicate_of: str | None
    first_approval: Mapping[str, str] | None
    correction: Mapping[str, str] | None
    reason: Mapping[str, str] | None
    statement: str | None
    commitment_key: Mapping[str, str] | None
    attempts: int
    last_error: str | None
    intent_id: str | None
    before: Mapping[str, Any] | None
    package_blob: str | None
    package_key: str | None
    package_bytes: int | None
    package_expires_at: datetime | None
    manifest_digest: str | None
    receipt: str | None
    finished_at: datetime | None
    lifted_at: datetime | None
    swept_at: datetime | None

    def has_package(self, now: datetime) -> bool:
        """Whether its package can still be fetched."""
        return self.package_expires_at is not None and self.package_expires_at > now

    @property
    def is_open(self) -> bool:
        """Whether an answer is still owed."""
        return self.status not in CLOSED

    @property
    def is_by_reference(self) -> bool:
        """Whether it is about somebody whom only the silo knows; `subject_id` is the silo's then (Art. 11)."""
        return self.reference_index is not None

    @property
    def is_begun(self) -> bool:
        """Whether its carrying out has begun, so that nobody can stop it any more."""
        return self.intent_id is not None

    @property
    def is_in_force(self) -> bool:
        """Whether it restricts something until it is lifted (Art. 18, 21); by reference nothing is restricted here."""
        is_done = self.status is Status.COMPLETED and not self.is_by_reference
        return self.type in RESTRICTING and is_done and self.lifted_at is None

    def public(self) -> dict[str, Any]:
        """What the API shows of it."""
        return {
            "id": self.id,
            "type": self.type.value,
            "status": self.status.value,
            "subject": {"subject_id": self.subject_id, "is_by_reference": self.is_by_reference},
            "version": self.version,
            "received_at": _text(self.received_at),
            "due_at": _text(self.due_at),
            "is_extended": self.extended_at is not None,
            "is_paused": self.paused_at is not None,
            "is_owned": self.owned_at is not None,
            "duplicate_of": self.duplicate_of,
            "refusal": self.refusal.value if self.refusal else None,
            "exemption": self.exemption.value if self.exemption else None,
            "finished_at": _text(self.finished_at),
            "lifted_at": _text(self.lifted_at),
            "attempts": self.attempts,
            "last_error": self.last_error,
            "has_package": self.package_bytes is not None,
            "package_expires_at": _text(self.package_expires_at),
            "manifest_digest": self.manifest_digest,
            "has_receipt": self.receipt is not None,
            "has_statement": self.statement is not None,
        }


def move_details(case: Case, to: Status) -> dict[str, str]:
    """What the entry of a move says."""
    return {
        "case_id": case.id,
        "type": case.type.value,
        "from_status": case.status.value,
        "to_status": to.value,
    }


def add_case(conn: Connection, facts: Mapping[str, Any]) -> None:
    """Insert a request."""
    conn.execute(insert(privacy_requests).values(dict(facts)))


def read_case(conn: Connection, case_id: str) -> Case:
    """The request of that id. Raises UnknownRequest."""
    row = conn.execute(select(privacy_requests).where(privacy_requests.c.id == case_id)).one_or_none()
    if row is None:
        raise UnknownRequest(case_id)
    return case_of(row)


def list_cases(
    conn: Connection,
    *,
    statuses: frozenset[Status] | None = None,
    request_type: RequestType | None = None,
    subject_id: str | None = None,
) -> list[Case]:
    """Requests, those due first first."""
    query = select(privacy_requests)
    if statuses is not None:
        query = query.where(privacy_requests.c.status.in_(sorted(statuses)))
    if request_type is not None:
        query = query.where(privacy_requests.c.type == request_type.value)
    if subject_id is not None:
        query = query.where(privacy_requests.c.subject_id == subject_id)
    ordered = query.order_by(privacy_requests.c.due_at, privacy_requests.c.id)
    return [case_of(row) for row in conn.execute(ordered)]


def unswept_erasures(conn: Connection, finished_before: datetime) -> list[Case]:
    """Erasures that ended before that time and were not looked at again since."""
    query = select(privacy_requests).where(
        privacy_requests.c.type == RequestType.ERASURE.value,
        privacy_requests.c.status == Status.COMPLETED.value,
        privacy_requests.c.reference_index.is_(None),  # those erase nothing here: the subject is the silo
        privacy_requests.c.swept_at.is_(None),
        privacy_requests.c.finished_at < finished_before,
    )
    return [case_of(row) for row in conn.execute(query)]


def expired_packages(conn: Connection, now: datetime) -> list[Case]:
    """Requests whose package was kept long enough."""
    return [
        case_of(row)
        for row in conn.execute(select(privacy_requests).where(privacy_requests.c.package_expires_at <= now))
    ]


def change_case(conn: Connection, case: Case, **changes: Any) -> None:
    """Change a request, if nobody has since it was read. Raises CaseChanged."""
    statement = (
        update(privacy_requests)
        .where(privacy_requests.c.id == case.id, privacy_requests.c.version == case.version)
        .values(version=case.version + 1, **changes)
    )
    if conn.execute(statement).rowcount != 1:
        raise CaseChanged(case.id, case.version)


def note_try(conn: Connection, case: Case, problem: str) -> None:
    """Note a try that failed, unless somebody moved the request since; the version counts moves, and stays."""
    statement = update(privacy_requests).where(
        privacy_requests.c.id == case.id, privacy_requests.c.version == case.version
    )
    conn.execute(statement.values(attempts=privacy_requests.c.attempts + 1, last_error=problem))


def case_of(row: Row[Any]) -> Case:
    """The request that a row holds."""
    return Case(
        id=row.id,
        type=RequestType(row.type),
        status=Status(row.status),
        subject_id=row.subject_id,
        version=row.version,
        received_at=row.received_at,
        due_at=row.due_at,
        requested_by=row.requested_by,
        may_approve_alone=row.may_approve_alone,
        reference=row.reference,
        reference_index=row.reference_index,
        extended_at=row.extended_at,
        extension_reason=row.extension_reason,
        paused_at=row.paused_at,
        paused_s=row.paused_s,
        owner=row.owner,
        owned_at=row.owned_at,
        alarms=tuple(row.alarms or ()),
        refusal=Refusal(row.refusal) if row.refusal else None,
        exemption=Exemption(row.exemption) if row.exemption else None,
        duplicate_of=row.duplicate_of,
        first_approval=row.first_approval,
        correction=row.correction,
        reason=row.reason,
        statement=row.statement,
        commitment_key=row.commitment_key,
        attempts=row.attempts,
        last_error=row.last_error,
        intent_id=row.intent_id,
        before=row.before,
        package_blob=row.package_blob,
        package_key=row.package_key,
        package_bytes=row.package_bytes,
        package_expires_at=row.package_expires_at,
        manifest_digest=row.manifest_digest,
        receipt=row.receipt,
        finished_at=row.finished_at,
        lifted_at=row.lifted_at,
        swept_at=row.swept_at,
    )


def _text(at: datetime | None) -> str | None:
    return None if at is None else at.astimezone(UTC).isoformat().replace("+00:00", "Z")
