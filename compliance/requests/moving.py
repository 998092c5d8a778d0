"""The moves that people make with a request: each is a compare-and-set and one audit entry in one transaction.

The clock of Art. 12(3) stands still while the person owes a proof of identity, and at no other time.
"""

from __future__ import annotations

from datetime import datetime
from typing import Any

from audit.canonical import JsonValue
from audit.draft import Personal
from audit.entry import Outcome
from audit.events import EventType, Retention
from audit.reading import reading
from compliance.errors import ApprovalNeedsAnother, CaseChanged, MoveNotAllowed
from compliance.parts import DeskParts
from compliance.requests.alarms import still_due
from compliance.requests.cases import (
    MOVES,
    Case,
    Move,
    RequestType,
    Status,
    change_case,
    move_details,
    read_case,
)
from compliance.requests.deadlines import due_at
from compliance.requests.reasons import Exemption, Refusal, check_refusal

UNDER_WAY = frozenset({Status.APPROVED, Status.RUNNING})
_APPROVED = UNDER_WAY | {Status.COMPLETED}


class Moves:
    """Moves requests from state to state; knows nothing of how they are carried out."""

    def __init__(self, parts: DeskParts) -> None:
        self._parts = parts

    def show(self, case_id: str) -> Case:
        """The request as it stands. Raises UnknownRequest."""
        with reading(self._parts.engine) as conn:
            return read_case(conn, case_id)

    def take(self, case_id: str, *, by: Personal, version: int | None = None) -> Case:
        """Make `by` the one who has the request in hand; taking one's own again changes nothing."""
        case = self._at_version(case_id, version)
        self._insist_open(case, "be taken in hand")
        if case.owner is not None and self._parts.keystore.subject_of(case.owner["key"]) == by.subject:
            return case
        now = self._parts.now()
        owner = self._sealed(by.subject, "owner", case.id, by.value, now)
        details = {**move_details(case, case.status), "transition": "take"}
        return self._change(case, {"owner": owner, "owned_at": now}, details, by)

    def identify(self, case_id: str, *, by: Personal, version: int | None = None) -> Case:
        """Ask the person to show who they are; the clock stands still until `review` says that they did."""
        case = self._at_version(case_id, version)
        return self._moved(case, Move.IDENTIFY, by, {"paused_at": self._parts.now()})

    def review(self, case_id: str, *, by: Personal, version: int | None = None) -> Case:
        """Take the request in hand; the person is known, and the clock goes on."""
        return self._moved(self._at_version(case_id, version), Move.REVIEW, by)

    def approve(self, case_id: str, *, by: Personal, version: int | None = None) -> Case:
        """Let the request be carried out; where two must, the first approval is noted, and the second one counts.

        Approving what is approved changes nothing.

        Raises:
            ApprovalNeedsAnother: the asker may not approve it alone, or this person has approved it already.
            MoveNotAllowed: it was refused, withdrawn, is on hold, or waits for proof of identity.
        """
        case = self.show(case_id)
        if case.status in _APPROVED:
            return case
        self._insist_another(case, by)
        try:
            case = self._at_version(case_id, version)
            is_last = self._approvals_given(case) + 1 >= self.approvals_needed(case)
            return self._moved(case, Move.APPROVE, by) if is_last else self._approved_once(case, by)
        except (CaseChanged, MoveNotAllowed):
            case = self.show(case_id)
            if case.status in _APPROVED:  # somebody approved it at this moment
                return case
            raise

    def refuse(
        self,
        case_id: str,
        *,
        by: Personal,
        reason: Refusal,
        exemption: Exemption | None = None,
        note: str = "",
        version: int | None = None,
    ) -> Case:
        """Refuse the request; the ground is owed to the person (Art. 12(4)), and the note stays sealed.

        Raises:
            BadRefusal: `exempt` without its letter of Art. 17(3), or a letter without it.
            MoveNotAllowed: it is approved, carried out, or closed.
        """
        case = self._at_version(case_id, version)
        is_erasure = case.type is RequestType.ERASURE
        check_refusal(reason, exemption, is_erasure=is_erasure)
        letter = exemption.value if exemption else None
        changes = {"refusal": reason.value, "exemption": letter}
        told = {"refusal": reason.value, **({"exemption": letter} if letter else {})}
        return self._moved(case, Move.REFUSE, by, changes, told, reason=note)

    def withdraw(self, case_id: str, *, by: Personal, version: int | None = None) -> Case:
        """End a request that the person takes back."""
        return self._moved(self._at_version(case_id, version), Move.WITHDRAW, by)

    def hold(self, case_id: str, *, by: Personal, reason: str = "", version: int | None = None) -> Case:
        """Let the request rest; its clock does not."""
        return self._moved(self._at_version(case_id, version), Move.HOLD, by, reason=reason)

    def resume(self, case_id: str, *, by: Personal, version: int | None = None) -> Case:
        """Take up a request that rested; it is approved again before it runs."""
        case = self._at_version(case_id, version)
        return self._moved(case, Move.RESUME, by, {"first_approval": None, "before": None})

    def extend(
        self, case_id: str, *, by: Personal, reason: str, notice: str, version: int | None = None
    ) -> Case:
        """Let the answer be due three months after the receipt (Art. 12(3)): once, and inside the first month.

        Args:
            case_id: the request.
            by: who extends it.
            reason: why it takes so long: how complex it is, how many there are.
            notice: how and when the person was told so, which is owed inside that month too.
            version: the version that `by` has read.

        Raises:
            MoveNotAllowed: it is closed, was extended before, or its first month is over.
        """
        case, now = self._at_version(case_id, version), self._parts.now()
        self._insist_open(case, "be extended")
        if case.extended_at is not None or now > self._due(case, paused_s=_paused_s(case, now)):
            raise MoveNotAllowed("be extended again or after its first month", case.status.value)
        told: JsonValue = {"reason": reason, "notice": notice}
        due = self._due(case, is_extended=True)
        changes = {
            "extended_at": now,
            "extension_reason": self._sealed(case.subject_id, "extension_reason", case.id, told, now),
            **self._clock(case, due),
        }
        details = {**move_details(case, case.status), "transition": "extend", "due_at": due.isoformat()}
        return self._change(case, changes, details, by)

    def approvals_needed(self, case: Case) -> int:
        """How many people must approve it: `FLG_ERASURE_APPROVALS` an erasure, one anything else."""
        erases = case.type is RequestType.ERASURE and not case.is_by_reference
        return self._parts.erasure_approvals if erases else 1

    def approvals_given(self, case: Case) -> int:
        """How many people have approved it."""
        return self.approvals_needed(case) if case.status in _APPROVED else self._approvals_given(case)

    def has_approved(self, case: Case, person: str) -> bool:
        """Whether this person (a subject id) gave the first of two approvals: another has to give the second."""
        return self._first_approver(case) == person

    # Inside

    def _approvals_given(self, case: Case) -> int:
        return int(self._first_approver(case) is not None)

    def _first_approver(self, case: Case) -> str | None:
        """Who approved first; nobody, if it can no longer be told who it was."""
        return self._parts.keystore.subject_of(case.first_approval["key"]) if case.first_approval else None

    def _insist_another(self, case: Case, by: Personal) -> None:
        asker = self._parts.keystore.subject_of(case.requested_by["key"])
        if not case.may_approve_alone and asker == by.subject:
            raise ApprovalNeedsAnother("who asked for this may not approve it: let a second person do it")
        if self.has_approved(case, by.subject):
            raise ApprovalNeedsAnother("you have approved this: a second person has to approve it too")

    def _approved_once(self, case: Case, by: Personal) -> Case:
        _insist_allowed(case, Move.APPROVE)
        approver = self._sealed(by.subject, "first_approval", case.id, by.value, self._parts.now())
        changes = {"status": Status.IN_REVIEW.value, "first_approval": approver}
        details = {**move_details(case, Status.IN_REVIEW), "transition": Move.APPROVE.value}
        return self._change(case, changes, details, by)

    def _moved(
        self,
        case: Case,
        move: Move,
        by: Personal,
        more: dict[str, Any] | None = None,
        told: dict[str, str] | None = None,
        *,
        reason: str = "",
    ) -> Case:
        to, now = _insist_allowed(case, move), self._parts.now()
        changes: dict[str, Any] = {"status": to.value, **self._clock_goes_on(case, now), **(more or {})}
        if to in {Status.REFUSED, Status.WITHDRAWN}:
            changes["finished_at"] = now
        if reason:
            changes["reason"] = self._sealed(case.subject_id, "reason", case.id, reason, now)
        details = {**move_details(case, to), "transition": move.value, **(told or {})}
        if "due_at" in changes:
            details["due_at"] = changes["due_at"].isoformat()
        return self._change(case, changes, details, by)

    def _change(self, case: Case, changes: dict[str, Any], details: dict[str, str], by: Personal) -> Case:
        is_denied = changes.get("status") == Status.REFUSED.value
        outcome = Outcome.DENIED if is_denied else Outcome.SUCCESS
        draft = self._parts.journal.draft
        entry = draft(EventType.PRIVACY_MOVED, details=details, actor=by, outcome=outcome)
        with self._parts.engine.begin() as conn:
            change_case(conn, case, **changes)
            self._parts.journal.write(conn, entry)
        return self.show(case.id)

    def _clock_goes_on(self, case: Case, now: datetime) -> dict[str, Any]:
        """The end of a pause, if there is one."""
        if case.paused_at is None:
            return {}
        paused_s = _paused_s(case, now)
        return {
            "paused_at": None,
            "paused_s": paused_s,
            **self._clock(case, self._due(case, paused_s=paused_s)),
        }

    def _clock(self, case: Case, due: datetime) -> dict[str, Any]:
        """The new due time; alarms that warned of the old one can ring again."""
        return {"due_at": due, "alarms": still_due(case, due, self._parts)}

    def _due(self, case: Case, *, paused_s: int | None = None, is_extended: bool | None = None) -> datetime:
        extended = case.extended_at is not None if is_extended is None else is_extended
        paused = case.paused_s if paused_s is None else paused_s
        return due_at(case.received_at, self._parts.calendar, is_extended=extended, paused_s=paused)

    def _insist_open(self, case: Case, wish: str) -> None:
        if not case.is_open:
            raise MoveNotAllowed(wish, case.status.value)

    def _at_version(self, case_id: str, version: int | None) -> Case:
        case = self.show(case_id)
        if version is not None and version != case.version:
            raise CaseChanged(case_id, version)
        return case

    def _sealed(
        self, subject: str, column: str, case_id: str, value: JsonValue, now: datetime
    ) -> dict[str, str]:
        seal = self._parts.sealer.seal_column
        return seal(subject, Retention.ACCOUNTABILITY, "privacy_requests", column, case_id, value, now)


def _insist_allowed(case: Case, move: Move) -> Status:
    """Where the move leads; what is being carried out cannot be stopped, since part of it is done."""
    allowed, to = MOVES[move]
    if case.is_begun or case.status not in allowed:
        raise MoveNotAllowed(move.value, case.status.value)
    return to


def _paused_s(case: Case, now: datetime) -> int:
    running = (now - case.paused_at).total_seconds() if case.paused_at else 0.0
    return case.paused_s + max(0, int(running))
