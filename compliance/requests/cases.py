"""Privacy requests as rows, and the moves between their states, each a compare-and-set on `version`."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from enum import StrEnum
from typing import Any

from sqlalchemy import Connection, Row, insert, select, update

from compliance.errors import CaseChanged, UnknownRequest
from compliance.tables import privacy_requests


class RequestType(StrEnum):
    """What a person can ask for in this version."""

    ACCESS = "access"
    ERASURE = "erasure"


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
MOVES: Mapping[Move, tuple[frozenset[Status], Status]] = {
    Move.IDENTIFY: (frozenset({Status.RECEIVED}), Status.AWAITING_IDENTITY),
    Move.REVIEW: (frozenset({Status.RECEIVED, Status.AWAITING_IDENTITY}), Status.IN_REVIEW),
    Move.APPROVE: (frozenset({Status.RECEIVED, Status.IN_REVIEW}), Status.APPROVED),
    Move.REFUSE: ((_OPEN - {Status.APPROVED}) | {Status.ON_HOLD}, Status.REFUSED),
    Move.WITHDRAW: (_OPEN | {Status.ON_HOLD}, Status.WITHDRAWN),
    Move.HOLD: (_OPEN, Status.ON_HOLD),
    Move.RESUME: (frozenset({Status.ON_HOLD}), Status.IN_REVIEW),
}
CLOSED = frozenset({Status.COMPLETED, Status.REFUSED, Status.WITHDRAWN})


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
    swept_at: datetime | None

    def has_package(self, now: datetime) -> bool:
        """Whether its package can still be fetched."""
        return self.package_expires_at is not None and self.package_expires_at > now

    @property
    def is_open(self) -> bool:
        """Whether an answer is still owed."""
        return self.status not in CLOSED

    def public(self) -> dict[str, Any]:
        """What the API shows of it."""
        return {
            "id": self.id,
            "type": self.type.value,
            "status": self.status.value,
            "subject": {"subject_id": self.subject_id},
            "version": self.version,
            "received_at": _text(self.received_at),
            "due_at": _text(self.due_at),
            "finished_at": _text(self.finished_at),
            "attempts": self.attempts,
            "last_error": self.last_error,
            "has_package": self.package_bytes is not None,
            "package_expires_at": _text(self.package_expires_at),
            "manifest_digest": self.manifest_digest,
            "has_receipt": self.receipt is not None,
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
    return _case(row)


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
    return [_case(row) for row in conn.execute(ordered)]


def unswept_erasures(conn: Connection, finished_before: datetime) -> list[Case]:
    """Erasures that ended before that time and were not looked at again since."""
    query = select(privacy_requests).where(
        privacy_requests.c.type == RequestType.ERASURE.value,
        privacy_requests.c.status == Status.COMPLETED.value,
        privacy_requests.c.swept_at.is_(None),
        privacy_requests.c.finished_at < finished_before,
    )
    return [_case(row) for row in conn.execute(query)]


def expired_packages(conn: Connection, now: datetime) -> list[Case]:
    """Requests whose package was kept long enough."""
    return [
        _case(row)
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


def _case(row: Row[Any]) -> Case:
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
        swept_at=row.swept_at,
    )


def _text(at: datetime | None) -> str | None:
    return None if at is None else at.astimezone(UTC).isoformat().replace("+00:00", "Z")
