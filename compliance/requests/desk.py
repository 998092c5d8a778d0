"""The privacy desk: requests come in, move from state to state, and are carried out (Art. 12, 15 to 18, 20, 21).

Every move is a compare-and-set and one audit entry in one transaction.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from datetime import datetime
from uuid import uuid4

from sqlalchemy import Connection

from audit.canonical import JsonValue
from audit.draft import Personal
from audit.reading import reading
from compliance.erasures.erasure import Erasures
from compliance.errors import BadCorrection, CaseChanged, NoStatement, RecipientsNotTold
from compliance.keeping.holds import Holds
from compliance.log_place import LogPlace
from compliance.packages.access import Accesses
from compliance.packages.handing_out import Packages
from compliance.parts import DeskParts
from compliance.requests.alarms import raise_alarms
from compliance.requests.cases import (
    Case,
    RequestType,
    Status,
    list_cases,
    note_try,
    unswept_erasures,
)
from compliance.requests.deadlines import Calendar, days_left
from compliance.requests.effects import Effects
from compliance.requests.filing import Filed, file_request, supported_type
from compliance.requests.listing import CaseFilter, page_of_cases
from compliance.requests.moving import UNDER_WAY, Moves
from compliance.requests.place import RequestPlace
from compliance.requests.statements import Statements

_LOOK_S = 0.02
_SOON = (None, RecipientsNotTold.code)


class PrivacyDesk(Moves):
    """Takes privacy requests and sees them through."""

    def __init__(self, parts: DeskParts) -> None:
        super().__init__(parts)
        log = LogPlace(parts.engine, parts.keystore, parts.sealer)
        places = (*parts.places, RequestPlace(parts.engine, parts.blobs, parts.sealer))
        self._erasures = Erasures(parts, places, log)
        self._accesses = Accesses(parts, (*places, log))
        self.holds = Holds(parts, tuple(place.name for place in (*places, log)))
        self._statements = Statements(parts)
        self._effects = Effects(parts)
        self.packages = Packages(parts)

    # Coming in

    def open(
        self,
        request_type: str,
        subject_id: str,
        *,
        requested_by: Personal,
        received_at: datetime | None = None,
        may_approve_alone: bool = True,
        reference: str | None = None,
        correction: Mapping[str, JsonValue] | None = None,
        case_id: str | None = None,
        beside: Callable[[Connection], None] = lambda _conn: None,
    ) -> Case:
        """Take a request down, with the day on which its answer is due; one like an open one is linked to that.

        Args:
            request_type: a value of `RequestType`.
            subject_id: whose data it is about; with a `reference`, the silo's own.
            requested_by: who asks; sealed under that person's key.
            received_at: when it reached the controller, if that was before now, as with a letter.
            may_approve_alone: whether the same person may approve it.
            reference: the silo's opaque name of a person whom the gateway cannot identify (Art. 11).
            correction: what a rectification puts right.
            case_id: the id it gets, a UUID; drawn if None.
            beside: writes what belongs to the same transaction.

        Raises:
            UnsupportedRequest: no such type, or none that is carried out here.
            UnknownSubject: there is no such subject.
            SubjectErasing: the subject is erased, or its erasure has begun.
            BadReceiptDay: it was received in the future, or before the GDPR applied.
            CorrectionNeeded: a rectification without a correction, or a correction with another type.
        """
        filed = Filed(
            id=case_id or str(uuid4()),
            type=supported_type(request_type, self._parts, is_by_reference=reference is not None),
            subject_id=subject_id,
            requested_by=requested_by,
            received_at=received_at or self._parts.now(),
            may_approve_alone=may_approve_alone,
            reference=reference,
            correction=correction,
        )
        file_request(self._parts, filed, beside)
        return self.show(filed.id)

    def cases(
        self, *, subject_id: str | None = None, statuses: frozenset[Status] | None = None
    ) -> list[Case]:
        """Requests, those due first first."""
        with reading(self._parts.engine) as conn:
            return list_cases(conn, subject_id=subject_id, statuses=statuses)

    def page(
        self, wanted: CaseFilter | None = None, *, limit: int = 50, offset: int = 0
    ) -> tuple[list[Case], int]:
        """Some of the requests that a filter lets through, those due first first, and how many there are."""
        with reading(self._parts.engine) as conn:
            return page_of_cases(conn, wanted or CaseFilter(), limit=limit, offset=offset)

    # The clock

    @property
    def calendar(self) -> Calendar:
        """The days that the clock counts."""
        return self._parts.calendar

    def days_left(self, case: Case) -> int | None:
        """Local days before the day on which the answer is due; None if it was given; it rests while the clock does."""
        if not case.is_open:
            return None
        return days_left(case.due_at, case.paused_at or self._parts.now(), self._parts.calendar)

    def raise_alarms(self) -> int:
        """Ring what is due of the clock's alarms, each once; says how many rang."""
        return raise_alarms(self._parts)

    # Carrying out

    def run(self, case_id: str, *, patience_s: float = 0.0) -> Case:
        """Carry out an approved request as far as it goes now; safe to repeat, and after a crash.

        Args:
            case_id: the request.
            patience_s: if another worker is at it, wait so long for the end.

        Raises:
            BadCorrection: a rectification that cannot be made; it is in review again.
            Exception: what a place or a store failed with, which the request notes as its last error.
        """
        case, deadline = self.show(case_id), time.monotonic() + patience_s
        try:
            case = self._run(case)
        except CaseChanged:
            case = self.show(case_id)
        except BadCorrection:  # it is in review, and says so
            raise
        except Exception as error:
            self._note_failure(case_id, _code_of(error))
            raise
        while case.status in UNDER_WAY and case.last_error in _SOON and time.monotonic() < deadline:
            time.sleep(_LOOK_S)
            case = self.show(case_id) if case.last_error is None else self.run(case_id)
        return case

    def resume_open(self) -> list[Case]:
        """At start and now and then: carry on with requests under way, and with those that a lifted hold frees."""
        return [self._try(case) for case in (*self.cases(statuses=UNDER_WAY), *self._erasures.released())]

    def sweep(self, finished_before: datetime) -> int:
        """Look a last time at erasures that ended before the longest request time-out (RULES 18)."""
        with reading(self._parts.engine) as conn:
            due = unswept_erasures(conn, finished_before)
        return sum(self._erasures.sweep(case) for case in due)

    # Answers

    def statement(self, case_id: str) -> str:
        """The signed statement of a request by reference. Raises NoStatement."""
        case = self.show(case_id)
        if case.statement is None:
            raise NoStatement(
                "the request has no statement: it is no request by reference, or not carried out yet"
            )
        return case.statement

    # Inside

    def _run(self, case: Case) -> Case:
        if case.is_by_reference:
            return self._statements.run(case)
        match case.type:
            case RequestType.ERASURE:
                return self._erasures.run(case)
            case RequestType.ACCESS | RequestType.PORTABILITY:
                return self._accesses.run(case)
            case RequestType.RESTRICTION | RequestType.OBJECTION | RequestType.RECTIFICATION:
                return self._effects.run(case)

    def _try(self, case: Case) -> Case:
        try:
            return self.run(case.id)
        except Exception:  # noqa: BLE001 - a place fails in ways of its own, which is noted; the others' turn comes
            return self.show(case.id)

    def _note_failure(self, case_id: str, code: str) -> None:
        case = self.show(case_id)
        with self._parts.engine.begin() as conn:
            note_try(conn, case, code[:64])


def _code_of(error: Exception) -> str:
    code = getattr(error, "code", None)
    return code if isinstance(code, str) and code.isupper() else type(error).__name__
