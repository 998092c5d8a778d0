"""The specification's GDPR listing (section 7.1), working: deletion and export of one client by one call."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from typing import Any, Protocol

from audit.draft import Personal
from compliance.clock import Clock
from compliance.errors import ApprovalNeedsAnother, UnknownClient
from compliance.journal import DESK
from compliance.requests.cases import Case, RequestType, Status
from compliance.requests.desk import PrivacyDesk


class ClientRecords(Protocol):
    """What the gateway's database says of a client."""

    def subject_of(self, client_id: str) -> str | None:
        """Whose client it is, or None if there is no such client."""

    def registration_date(self, client_id: str) -> datetime:
        """When it registered."""

    def participation(self, client_id: str) -> Sequence[Mapping[str, Any]]:
        """The rounds it took part in."""

    def statistics(self, client_id: str) -> Mapping[str, Any]:
        """What it reported of its training."""


class GDPRCompliantFL:
    """Erasure (Art. 17) and portability (Art. 20) of a client's data.

    Past models cannot forget a client; the erasure receipt lists them, and no later round has it.
    """

    def __init__(
        self, desk: PrivacyDesk, records: ClientRecords, clock: Clock, *, by: Personal = DESK
    ) -> None:
        self._desk = desk
        self._records = records
        self._clock = clock
        self._by = by

    def handle_deletion_request(self, client_id: str) -> dict[str, str]:
        """Erase everything of the person behind the client.

        Returns:
            `status`: `deleted`; `on_hold` while a legal hold forbids it; `awaiting_approval` while a second person
            has to approve it; `partial` while a frozen round still needs the client's update, after which the
            gateway finishes by itself. `timestamp`: when.

        Raises:
            UnknownClient: no such client, or it was erased before.
            MoveNotAllowed: the person owes a proof of identity.
        """
        subject = self._subject(client_id)
        case = self._open_erasure(subject) or self._desk.open(
            RequestType.ERASURE, subject, requested_by=self._by
        )
        if case.status is not Status.ON_HOLD:
            case = self._desk.run(self._approved(case).id)
        return {"status": _told(case), "timestamp": _text(case.finished_at or self._clock())}

    def export_client_data(self, client_id: str) -> dict[str, Any]:
        """What the client gave and did, in a form that another service can read (Art. 20)."""
        self._subject(client_id)
        return {
            "client_id": client_id,
            "registration_date": _text(self._records.registration_date(client_id)),
            "participation_history": [dict(row) for row in self._records.participation(client_id)],
            "training_statistics": dict(self._records.statistics(client_id)),
        }

    def _approved(self, case: Case) -> Case:
        """The request with our word on it, which was perhaps given before."""
        try:
            return self._desk.approve(case.id, by=self._by)
        except ApprovalNeedsAnother:
            return case

    def _subject(self, client_id: str) -> str:
        subject = self._records.subject_of(client_id)
        if subject is None:
            raise UnknownClient(client_id)
        return subject

    def _open_erasure(self, subject: str) -> Case | None:
        cases = self._desk.cases(subject_id=subject)
        still_open = (
            case
            for case in cases
            if case.type is RequestType.ERASURE and case.is_open and not case.is_by_reference
        )
        return next(still_open, None)


def _told(case: Case) -> str:
    match case.status:
        case Status.COMPLETED:
            return "deleted"
        case Status.ON_HOLD:
            return "on_hold"
        case Status.RECEIVED | Status.IN_REVIEW:
            return "awaiting_approval"
        case _:
            return "partial"


def _text(at: datetime) -> str:
    return at.astimezone(UTC).isoformat().replace("+00:00", "Z")
