"""The privacy desk: requests come in, move from state to state, and are carried out (Art. 12, 15, 17).

Every move is a compare-and-set and one audit entry in one transaction.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from datetime import datetime
from uuid import uuid4

from sqlalchemy import Connection

from audit.draft import Personal
from audit.entry import Outcome
from audit.errors import KeyDestroyed
from audit.events import EventType, Retention
from audit.reading import reading
from compliance.erasures.erasure import Erasures
from compliance.errors import (
    ApprovalNeedsAnother,
    CaseChanged,
    MoveNotAllowed,
    NoPackage,
    SubjectErasing,
    UnknownSubject,
    UnsupportedRequest,
)
from compliance.keeping.holds import Holds
from compliance.log_place import LogPlace
from compliance.packages.access import Accesses
from compliance.parts import DeskParts, Package
from compliance.requests.cases import (
    MOVES,
    Case,
    Move,
    RequestType,
    Status,
    add_case,
    change_case,
    expired_packages,
    list_cases,
    move_details,
    read_case,
    unswept_erasures,
)
from compliance.requests.deadlines import month_after
from compliance.requests.place import RequestPlace, remove_package
from compliance.subjects import SubjectState, state_of

_LOOK_S = 0.02
_UNDER_WAY = frozenset({Status.APPROVED, Status.RUNNING})
_APPROVED = _UNDER_WAY | {Status.COMPLETED}


class PrivacyDesk:
    """Takes privacy requests and sees them through."""

    def __init__(self, parts: DeskParts) -> None:
        self._parts = parts
        log = LogPlace(parts.engine, parts.keystore, parts.sealer)
        places = (*parts.places, RequestPlace(parts.engine, parts.blobs))
        self._erasures = Erasures(parts, places, log)
        self._accesses = Accesses(parts, (*places, log))
        self.holds = Holds(parts)

    # Coming in

    def open(
        self,
        request_type: str,
        subject_id: str,
        *,
        requested_by: Personal,
        may_approve_alone: bool = True,
        case_id: str | None = None,
        beside: Callable[[Connection], None] = lambda _conn: None,
    ) -> Case:
        """Take a request down, with the day on which its answer is due.

        Args:
            request_type: `access` or `erasure`.
            subject_id: whose data it is about.
            requested_by: who asks; sealed under that person's key.
            may_approve_alone: whether the same person may approve it.
            case_id: the id it gets, a UUID; drawn if None.
            beside: writes what belongs to the same transaction.

        Raises:
            UnsupportedRequest: another type.
            UnknownSubject: there is no such subject.
            SubjectErasing: the subject is erased, or its erasure has begun.
        """
        wanted = _supported(request_type)
        self._check_subject(subject_id)
        case_id, now = case_id or str(uuid4()), self._parts.now()
        due_at = month_after(now)
        details = {
            "case_id": case_id,
            "type": wanted.value,
            "due_at": due_at.isoformat(),
            "subject": Personal(subject_id, subject_id),
        }
        entry = self._parts.journal.draft(EventType.PRIVACY_REQUESTED, details=details, actor=requested_by)
        facts = {
            "id": case_id,
            "type": wanted.value,
            "status": Status.RECEIVED.value,
            "subject_id": subject_id,
            "version": 1,
            "received_at": now,
            "due_at": due_at,
            "requested_by": self._sealed(requested_by, "requested_by", case_id, now),
            "may_approve_alone": may_approve_alone,
            "attempts": 0,
        }
        with self._parts.engine.begin() as conn:
            add_case(conn, facts)
            beside(conn)
            self._parts.journal.write(conn, entry)
        return self.show(case_id)

    def show(self, case_id: str) -> Case:
        """The request as it stands. Raises UnknownRequest."""
        with reading(self._parts.engine) as conn:
            return read_case(conn, case_id)

    def cases(
        self, *, subject_id: str | None = None, statuses: frozenset[Status] | None = None
    ) -> list[Case]:
        """Requests, those due first first."""
        with reading(self._parts.engine) as conn:
            return list_cases(conn, subject_id=subject_id, statuses=statuses)

    # Moving

    def identify(self, case_id: str, *, by: Personal, version: int | None = None) -> Case:
        """Ask the person to show who they are."""
        return self._move(case_id, Move.IDENTIFY, by, version)

    def review(self, case_id: str, *, by: Personal, version: int | None = None) -> Case:
        """Take the request in hand; the person is known."""
        return self._move(case_id, Move.REVIEW, by, version)

    def approve(self, case_id: str, *, by: Personal, version: int | None = None) -> Case:
        """Let the request be carried out; approving it again changes nothing.

        Raises:
            ApprovalNeedsAnother: the asker may not approve it alone.
            MoveNotAllowed: it was refused, withdrawn, is on hold, or waits for proof of identity.
        """
        case = self.show(case_id)
        if case.status in _APPROVED:
            return case
        asker = self._parts.keystore.subject_of(case.requested_by["key"])
        if not case.may_approve_alone and asker == by.subject:
            raise ApprovalNeedsAnother("who asked for this may not approve it: let a second person do it")
        try:
            return self._move(case_id, Move.APPROVE, by, version)
        except (CaseChanged, MoveNotAllowed):
            case = self.show(case_id)
            if case.status in _APPROVED:  # somebody approved it at this moment
                return case
            raise

    def refuse(self, case_id: str, *, by: Personal, reason: str, version: int | None = None) -> Case:
        """Refuse the request; the reason is owed to the person (Art. 12(4))."""
        return self._move(case_id, Move.REFUSE, by, version, reason=reason)

    def withdraw(self, case_id: str, *, by: Personal, version: int | None = None) -> Case:
        """End a request that the person takes back."""
        return self._move(case_id, Move.WITHDRAW, by, version)

    def hold(self, case_id: str, *, by: Personal, reason: str = "", version: int | None = None) -> Case:
        """Let the request rest."""
        return self._move(case_id, Move.HOLD, by, version, reason=reason)

    def resume(self, case_id: str, *, by: Personal, version: int | None = None) -> Case:
        """Take up a request that rested; it is approved again before it runs."""
        return self._move(case_id, Move.RESUME, by, version)

    def extend(self, case_id: str, *, by: Personal, reason: str, version: int | None = None) -> Case:
        """Give the answer two months more, once (Art. 12(3)); the reason is owed to the person."""
        case = self._at_version(case_id, version)
        if not case.is_open or case.due_at != month_after(case.received_at):
            raise MoveNotAllowed("be extended", case.status.value)
        details = {**move_details(case, case.status), "transition": "extend"}
        due_at = month_after(case.received_at, months=3)
        return self._change(case, {"due_at": due_at}, {**details, "due_at": due_at.isoformat()}, by, reason)

    # Carrying out

    def run(self, case_id: str, *, patience_s: float = 0.0) -> Case:
        """Carry out an approved request as far as it goes now; safe to repeat, and after a crash.

        Args:
            case_id: the request.
            patience_s: if another worker is at it, wait so long for the end.
        """
        case, deadline = self.show(case_id), time.monotonic() + patience_s
        try:
            case = self._run(case)
        except CaseChanged:
            case = self.show(case_id)
        while case.status in _UNDER_WAY and case.last_error is None and time.monotonic() < deadline:
            time.sleep(_LOOK_S)
            case = self.show(case_id)
        return case

    def resume_open(self) -> list[Case]:
        """At start and now and then: carry on with every approved or running request."""
        return [self._try(case) for case in self.cases(statuses=_UNDER_WAY)]

    def sweep(self, finished_before: datetime) -> int:
        """Look a last time at erasures that ended before the longest request time-out (RULES 18)."""
        with reading(self._parts.engine) as conn:
            due = unswept_erasures(conn, finished_before)
        return sum(self._erasures.sweep(case) for case in due)

    # Packages

    def package(self, case_id: str) -> Package:
        """Where the export package lies and the key that opens it. Raises NoPackage."""
        case = self.show(case_id)
        is_here = case.has_package(self._parts.now())
        if not is_here or case.package_blob is None or case.package_key is None:
            raise NoPackage("the request has no package: it is not written yet, it expired, or it was erased")
        try:
            key = self._parts.sealer.blob_key(case.package_key, case.package_blob)
        except KeyDestroyed as error:
            raise NoPackage("the person was erased, and the package with them") from error
        return Package(case.package_blob, key, case.package_bytes or 0)

    def expire_packages(self) -> int:
        """Remove packages whose seven days are over; says how many."""
        with reading(self._parts.engine) as conn:
            old = expired_packages(conn, self._parts.now())
        return sum(remove_package(self._parts.engine, self._parts.blobs, case) for case in old)

    # Inside

    def _run(self, case: Case) -> Case:
        match case.type:
            case RequestType.ERASURE:
                return self._erasures.run(case)
            case RequestType.ACCESS:
                return self._accesses.run(case)

    def _check_subject(self, subject_id: str) -> None:
        with reading(self._parts.engine) as conn:
            state = state_of(conn, subject_id)
        if state is None:
            raise UnknownSubject((subject_id,))
        if state is not SubjectState.ACTIVE:
            raise SubjectErasing((subject_id,))

    def _move(self, case_id: str, move: Move, by: Personal, version: int | None, *, reason: str = "") -> Case:
        case = self._at_version(case_id, version)
        allowed, to = MOVES[move]
        if case.status not in allowed:
            raise MoveNotAllowed(move.value, case.status.value)
        changes: dict[str, str | datetime] = {"status": to.value}
        if to in {Status.REFUSED, Status.WITHDRAWN}:
            changes["finished_at"] = self._parts.now()
        details = {**move_details(case, to), "transition": move.value}
        return self._change(case, changes, details, by, reason)

    def _change(
        self,
        case: Case,
        changes: dict[str, str | datetime],
        details: dict[str, str],
        by: Personal,
        reason: str,
    ) -> Case:
        more: dict[str, dict[str, str]] = {}
        if reason:
            owner = Personal(case.subject_id, reason)
            more["reason"] = self._sealed(owner, "reason", case.id, self._parts.now())
        denied = changes.get("status") == Status.REFUSED.value
        outcome = Outcome.DENIED if denied else Outcome.SUCCESS
        draft = self._parts.journal.draft
        entry = draft(EventType.PRIVACY_MOVED, details=details, actor=by, outcome=outcome)
        with self._parts.engine.begin() as conn:
            change_case(conn, case, **changes, **more)
            self._parts.journal.write(conn, entry)
        return self.show(case.id)

    def _at_version(self, case_id: str, version: int | None) -> Case:
        case = self.show(case_id)
        if version is not None and version != case.version:
            raise CaseChanged(case_id, version)
        return case

    def _try(self, case: Case) -> Case:
        try:
            return self.run(case.id)
        except Exception as error:  # noqa: BLE001 - a place fails in ways of its own; the others' turn comes
            return self._note_failure(case.id, _code_of(error))

    def _note_failure(self, case_id: str, code: str) -> Case:
        case = self.show(case_id)
        try:
            with self._parts.engine.begin() as conn:
                change_case(conn, case, attempts=case.attempts + 1, last_error=code[:64])
        except CaseChanged:  # another worker is at it
            return self.show(case_id)
        return self.show(case_id)

    def _sealed(self, owner: Personal, column: str, case_id: str, now: datetime) -> dict[str, str]:
        seal = self._parts.sealer.seal_column
        retention = Retention.ACCOUNTABILITY
        return seal(owner.subject, retention, "privacy_requests", column, case_id, owner.value, now)


def _code_of(error: Exception) -> str:
    code = getattr(error, "code", None)
    return code if isinstance(code, str) else type(error).__name__


def _supported(request_type: str) -> RequestType:
    try:
        return RequestType(request_type)
    except ValueError:
        raise UnsupportedRequest(request_type, tuple(RequestType)) from None
