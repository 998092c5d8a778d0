"""Carries out what changes the gateway's own work: restriction, objection, rectification (Art. 16, 18, 21)."""

from __future__ import annotations

from audit.events import EventType
from audit.reading import reading
from compliance.errors import BadCorrection, CaseChanged, NotNow, UnsupportedRequest
from compliance.journal import DESK
from compliance.parts import DeskParts
from compliance.requests.cases import Case, Status, change_case, move_details, note_try, read_case


class Effects:
    """Completes an approved request together with what its carrier writes, in one transaction."""

    def __init__(self, parts: DeskParts) -> None:
        self._parts = parts

    def run(self, case: Case) -> Case:
        """Carry out an approved request; one that must wait is tried again.

        Raises:
            UnsupportedRequest: nobody carries out this type.
            BadCorrection: a rectification that cannot be made; it is in review again.
        """
        if case.status is not Status.APPROVED:
            return case
        carrier = self._parts.carriers.get(case.type)
        if carrier is None:
            raise UnsupportedRequest(case.type.value, tuple(self._parts.carriers))
        try:
            write = carrier.prepare(case)
        except NotNow as error:
            return self._postponed(case, error.code)
        except BadCorrection as error:
            self._give_back(case, error.code)
            raise
        journal = self._parts.worker_journal
        moved = move_details(case, Status.COMPLETED)
        entry = journal.draft(EventType.PRIVACY_MOVED, details=moved, actor=DESK)
        done = {"status": Status.COMPLETED.value, "finished_at": self._parts.now(), "last_error": None}
        try:
            with self._parts.engine.begin() as conn:
                change_case(conn, case, attempts=case.attempts + 1, **done)
                write(conn)
                journal.write(conn, entry)
        except CaseChanged:  # another worker was first
            pass
        return self._read(case)

    def _give_back(self, case: Case, problem: str) -> None:
        """Trying again would not help: a person has to look at it."""
        journal, back = self._parts.worker_journal, Status.IN_REVIEW
        entry = journal.draft(EventType.PRIVACY_MOVED, details=move_details(case, back), actor=DESK)
        with self._parts.engine.begin() as conn:
            change_case(conn, case, status=back.value, attempts=case.attempts + 1, last_error=problem)
            journal.write(conn, entry)

    def _postponed(self, case: Case, problem: str) -> Case:
        with self._parts.engine.begin() as conn:
            note_try(conn, case, problem)
        return self._read(case)

    def _read(self, case: Case) -> Case:
        with reading(self._parts.engine) as conn:
            return read_case(conn, case.id)
