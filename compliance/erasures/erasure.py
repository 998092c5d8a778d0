"""Carries out erasures: mark the person, erase every place, look again, sign what is left (RULES 2, 18).

Every step can be repeated: after a crash the same run begins again and erases what is still there.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from hashlib import sha256
from typing import Any

from sqlalchemy import Connection

from audit.canonical import JsonValue
from audit.entry import Draft
from audit.events import EventType, Phase
from audit.reading import reading
from audit.writing import writing
from compliance.erasures.receipt import ErasureReceipt, KeptLine, PlaceLine, sign
from compliance.errors import CaseChanged, NotNow
from compliance.journal import DESK
from compliance.keeping.holds import active_holds
from compliance.keyring.keys import SigningUse
from compliance.log_place import LogPlace
from compliance.parts import DeskParts
from compliance.places import Place
from compliance.requests.cases import Case, Status, change_case, move_details, read_case
from compliance.subjects import lock_subject, mark_erased, mark_erasing

_REQUEST_KEPT = KeptLine("this request and its receipt", 1, "Art. 5(2): proof that it was answered")


@dataclass(frozen=True, slots=True)
class Look:
    """What one pass over all places left behind."""

    left: dict[str, int]
    waits: bool

    @property
    def problem(self) -> str | None:
        """The code of why the erasure is not over, or None if it is."""
        if self.waits:
            return NotNow.code
        return "DATA_LEFT" if any(self.left.values()) else None


def erase_everywhere(subject: str, places: Sequence[Place], log: LogPlace) -> Look:
    """Erase a person from one place after the other, keys last, then look again.

    What comes after a place that must wait, waits too: rows of a later place may be the only way to those of
    an earlier one, and an update in a frozen cohort is read with its keys until its round ends (RULES 5).
    """
    waits = False
    for place in (*places, log):
        try:
            place.erase(subject)
        except NotNow:
            waits = True
            break
    return Look({place.name: place.count(subject) for place in (*places, log)}, waits)


class Erasures:
    """Runs erasure requests."""

    def __init__(self, parts: DeskParts, places: Sequence[Place], log: LogPlace) -> None:
        self._parts = parts
        self._places = places
        self._log = log

    def run(self, case: Case) -> Case:
        """Bring an approved or running erasure as far as it goes now."""
        if case.status is Status.APPROVED:
            case = self._begin(case)
        if case.status is not Status.RUNNING:
            return case
        self._parts.keystore.forbid(case.subject_id)
        look = erase_everywhere(case.subject_id, self._places, self._log)
        return self._finish(case, look) if look.problem is None else self._postpone(case, look.problem)

    def sweep(self, case: Case) -> bool:
        """Look a last time for what requests that were under way wrote; whether nothing is left."""
        look = erase_everywhere(case.subject_id, self._places, self._log)
        if look.problem is None:
            with self._parts.engine.begin() as conn:
                change_case(conn, case, swept_at=self._parts.now())
        return look.problem is None

    def _begin(self, case: Case) -> Case:
        intent = self._draft(EventType.INTENT_ERASE, case_id=case.id, phase=Phase.INTENDED.value)
        start = self._draft(EventType.PRIVACY_MOVED, **move_details(case, Status.RUNNING))
        stop = self._draft(EventType.PRIVACY_MOVED, **move_details(case, Status.ON_HOLD))
        before = self._before(case.subject_id)

        def write(conn: Connection) -> None:
            if self._is_held(conn, case):
                change_case(conn, case, status=Status.ON_HOLD.value)
                self._parts.worker_journal.write(conn, stop)
            else:
                mark_erasing(conn, case.subject_id)
                facts = {"status": Status.RUNNING.value, "intent_id": intent.id, "before": before}
                change_case(conn, case, **facts)
                self._parts.worker_journal.write(conn, intent, start)

        writing(self._parts.engine, write)
        return self._read(case)

    def _is_held(self, conn: Connection, case: Case) -> bool:
        lock_subject(conn, case.subject_id)  # a hold being placed has it locked: wait for that
        return bool(active_holds(conn, case.subject_id))

    def _before(self, subject: str) -> dict[str, Any]:
        disclosure = self._parts.disclose(subject)
        found = {place.name: place.count(subject) for place in (*self._places, self._log)}
        return {"found": found, "models": list(disclosure.models), "sinks": list(disclosure.sinks)}

    def _postpone(self, case: Case, problem: str) -> Case:
        with self._parts.engine.begin() as conn:
            change_case(conn, case, attempts=case.attempts + 1, last_error=problem)
        return self._read(case)

    def _finish(self, case: Case, look: Look) -> Case:
        receipt = sign(self._receipt(case, look), self._parts.keystore.signing_key(SigningUse.RECEIPT))
        digest = sha256(receipt.encode()).hexdigest()
        drafts = (
            self._draft(EventType.PRIVACY_ERASED, **self._result(case, look), receipt_digest=digest),
            self._draft(
                EventType.INTENT_ERASE,
                case_id=case.id,
                phase=Phase.DONE.value,
                intent_id=case.intent_id or "",
            ),
            self._draft(EventType.PRIVACY_MOVED, **move_details(case, Status.COMPLETED)),
        )
        done = {"status": Status.COMPLETED.value, "finished_at": self._parts.now(), "last_error": None}

        def write(conn: Connection) -> None:
            change_case(conn, case, receipt=receipt, attempts=case.attempts + 1, **done)
            mark_erased(conn, case.subject_id)
            self._parts.worker_journal.write(conn, *drafts)

        try:
            writing(self._parts.engine, write)
        except CaseChanged:  # another worker ran it too, and was first
            return self._read(case)
        return self._read(case)

    def _receipt(self, case: Case, look: Look) -> ErasureReceipt:
        before = case.before or {}
        found = before.get("found", {})
        lines = tuple(PlaceLine(name, int(found.get(name, 0)), left) for name, left in look.left.items())
        return ErasureReceipt(
            request_id=case.id,
            subject=self._parts.keystore.index(case.subject_id),
            places=lines,
            kept=(self._log.kept(case.subject_id), _REQUEST_KEPT),
            models_released=tuple(before.get("models", ())),
            siem_copies=tuple(before.get("sinks", ())),
            received=case.received_at,
            finished=self._parts.now(),
        )

    def _result(self, case: Case, look: Look) -> dict[str, JsonValue]:
        sinks = list((case.before or {}).get("sinks", ()))
        return {
            "case_id": case.id,
            "places": sorted(look.left),
            "left": sum(look.left.values()),
            "sinks": sinks,
        }

    def _draft(self, event_type: EventType, **details: JsonValue) -> Draft:
        return self._parts.worker_journal.draft(event_type, details=details, actor=DESK)

    def _read(self, case: Case) -> Case:
        with reading(self._parts.engine) as conn:
            return read_case(conn, case.id)
