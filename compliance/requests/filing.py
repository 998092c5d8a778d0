"""Takes a request down: who asks, about whom, since when the clock runs, and which earlier one it repeats."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from sqlalchemy import Connection

from audit.canonical import JsonValue
from audit.draft import Personal
from audit.entry import Draft
from audit.events import EventType, Retention
from audit.reading import reading
from audit.writing import writing
from compliance.errors import (
    BadReceiptDay,
    CorrectionNeeded,
    SubjectErasing,
    UnknownSubject,
    UnsupportedRequest,
)
from compliance.parts import DeskParts
from compliance.requests.cases import RequestType, Status, add_case
from compliance.requests.deadlines import due_at
from compliance.requests.listing import earlier_like
from compliance.subjects import SubjectState, lock_subject, state_of

_OWN = (RequestType.ACCESS, RequestType.PORTABILITY, RequestType.ERASURE)
_FIRST_DAY = datetime(2018, 5, 25, tzinfo=UTC)  # before it, nobody could ask by the GDPR (Art. 99(2))


@dataclass(frozen=True, slots=True)
class Filed:
    """A request as it comes in.

    Args:
        id: the id it gets.
        type: what is asked for.
        subject_id: whose data it is about, or the silo whose `reference` it names.
        requested_by: who filed it.
        received_at: when it reached the controller.
        may_approve_alone: whether who filed it may approve it.
        reference: the silo's opaque name of a person whom the gateway cannot identify.
        correction: what is to be put right.
    """

    id: str
    type: RequestType
    subject_id: str
    requested_by: Personal
    received_at: datetime
    may_approve_alone: bool = True
    reference: str | None = None
    correction: Mapping[str, JsonValue] | None = None


def supported_type(wanted: str, parts: DeskParts, *, is_by_reference: bool) -> RequestType:
    """The type of that name, if it can be carried out here; by reference, every type is answered by a statement.

    Raises:
        UnsupportedRequest: it is none, or nobody carries it out.
    """
    here = tuple(kind for kind in RequestType if kind in _OWN or kind in parts.carriers or is_by_reference)
    try:
        found = RequestType(wanted)
    except ValueError:
        raise UnsupportedRequest(wanted, here) from None
    if found not in here:
        raise UnsupportedRequest(wanted, here)
    return found


def file_request(parts: DeskParts, filed: Filed, beside: Callable[[Connection], None]) -> None:
    """Commit the request and its entry.

    Raises:
        UnknownSubject: there is no such subject.
        SubjectErasing: the subject is erased, or its erasure has begun.
        BadReceiptDay: it was received in the future, or before the GDPR applied.
        CorrectionNeeded: a rectification without a correction, or a correction with another type.
    """
    _check(parts, filed)
    index = _index_of(parts, filed)
    facts = _facts(parts, filed, index)
    while True:
        with reading(parts.engine) as conn:
            earlier = earlier_like(conn, filed.type, filed.subject_id, index)
        entry = _entry(parts, filed, facts["due_at"], earlier)

        def write(conn: Connection, earlier: str | None = earlier, entry: Draft = entry) -> bool:
            lock_subject(conn, filed.subject_id)  # two like each other come in one after the other
            if earlier_like(conn, filed.type, filed.subject_id, index) != earlier:
                return False
            add_case(conn, {**facts, "duplicate_of": earlier})
            beside(conn)
            parts.journal.write(conn, entry)
            return True

        if writing(parts.engine, write):
            return


def _check(parts: DeskParts, filed: Filed) -> None:
    with reading(parts.engine) as conn:
        state = state_of(conn, filed.subject_id)
    if state is None:
        raise UnknownSubject((filed.subject_id,))
    if state is not SubjectState.ACTIVE:
        raise SubjectErasing((filed.subject_id,))
    if not _FIRST_DAY <= filed.received_at <= parts.now():
        raise BadReceiptDay("`received_at` must lie in the past, and not before 25 May 2018")
    needs_one = filed.type is RequestType.RECTIFICATION and filed.reference is None
    if needs_one != bool(filed.correction):
        raise CorrectionNeeded(
            "a rectification, and no other request, says in `correction` what is to be put right"
        )


def _index_of(parts: DeskParts, filed: Filed) -> str | None:
    """The same reference of two silos names two people."""
    if filed.reference is None:
        return None
    return parts.keystore.index(f"privacy-reference|{filed.subject_id}|{filed.reference}")


def _facts(parts: DeskParts, filed: Filed, index: str | None) -> dict[str, Any]:
    correction = dict(filed.correction) if filed.correction else None
    return {
        "id": filed.id,
        "type": filed.type.value,
        "status": Status.RECEIVED.value,
        "subject_id": filed.subject_id,
        "reference": _sealed(parts, filed, filed.subject_id, "reference", filed.reference),
        "reference_index": index,
        "correction": _sealed(parts, filed, filed.subject_id, "correction", correction),
        "version": 1,
        "received_at": filed.received_at,
        "due_at": due_at(filed.received_at, parts.calendar),
        "requested_by": _sealed(
            parts, filed, filed.requested_by.subject, "requested_by", filed.requested_by.value
        ),
        "may_approve_alone": filed.may_approve_alone,
        "attempts": 0,
        "paused_s": 0,
    }


def _sealed(
    parts: DeskParts, filed: Filed, subject: str, column: str, value: JsonValue
) -> dict[str, str] | None:
    if value is None:
        return None
    seal, kept = parts.sealer.seal_column, Retention.ACCOUNTABILITY
    return seal(subject, kept, "privacy_requests", column, filed.id, value, parts.now())


def _entry(parts: DeskParts, filed: Filed, due: datetime, earlier: str | None) -> Draft:
    details: dict[str, JsonValue | Personal] = {
        "case_id": filed.id,
        "type": filed.type.value,
        "received_at": filed.received_at.isoformat(),
        "due_at": due.isoformat(),
        "is_by_reference": filed.reference is not None,
        "subject": Personal(filed.subject_id, filed.subject_id),
    }
    if earlier is not None:
        details["duplicate_of"] = earlier
    return parts.journal.draft(EventType.PRIVACY_REQUESTED, details=details, actor=filed.requested_by)
