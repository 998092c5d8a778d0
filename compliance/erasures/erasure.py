"""Carries out erasures: mark the person, erase every place, tell, destroy the keys, look again, sign (RULES 2, 18).

Every step can be repeated: after a crash the same run begins again and erases what is still there.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from sqlalchemy import Connection

from audit.canonical import JsonValue
from audit.entry import Draft
from audit.events import EventType, Phase
from audit.reading import reading
from audit.store import stage
from audit.writing import writing
from compliance.erasures.commitment import Commitment, new_commitment
from compliance.erasures.outlying import DeadLetterPlace, PseudonymPlace
from compliance.erasures.progress import Progress
from compliance.erasures.receipt import LogPromise, sign
from compliance.erasures.summing import kept_of, summed_up
from compliance.erasures.telling import is_waiting, news_of
from compliance.erasures.walking import Grip, Look, erase_everywhere
from compliance.errors import CaseChanged, NotNow, RecipientsNotTold
from compliance.journal import DESK
from compliance.keyring.keys import SigningUse
from compliance.keyring.scrubbing import empty_write_ahead_log
from compliance.log_place import LogPlace
from compliance.parts import DeskParts
from compliance.places import Place
from compliance.requests.cases import (
    Case,
    RequestType,
    Status,
    change_case,
    list_cases,
    move_details,
    read_case,
)
from compliance.subjects import SubjectState, lock_subject, mark_erased, mark_erasing, state_of

_WAITS = frozenset({NotNow.code, RecipientsNotTold.code})


class Erasures:
    """Runs erasure requests.

    Args:
        parts: the desk's means.
        places: every store but the log, in the order in which they are erased.
        log: the log, whose keys are destroyed after that.
    """

    def __init__(self, parts: DeskParts, places: Sequence[Place], log: LogPlace) -> None:
        self._parts = parts
        self._rows = tuple(places)
        self._log = log
        self._letters = DeadLetterPlace(parts.engine, parts.keystore)
        self._pseudonym = PseudonymPlace(parts.keystore)
        self._all: tuple[Place, ...] = (*self._rows, self._letters, log, self._pseudonym)
        last = tuple(place.name for place in (self._letters, log, self._pseudonym))
        self._grip = Grip(tuple(place.name for place in self._rows), parts.leads, last)

    def run(self, case: Case) -> Case:
        """Bring an approved, running or held erasure as far as it goes now."""
        if case.status is Status.APPROVED or rests_under_hold(case):
            case = self._begin(case) if case.is_begun or not self._is_over(case) else self._join(case)
        if case.status is not Status.RUNNING:
            return case
        progress = Progress.read(case.before)
        if progress.found is None:
            try:
                self._parts.settle(case.subject_id)
            except NotNow:
                return self._postpone(case, NotNow.code)
            case, progress = self._look_first(case, progress)
        if progress.keys_at is None:
            return self._erase(case, progress)
        return self._end(case, progress)

    def released(self) -> list[Case]:
        """Erasures that rest under a legal hold which keeps less by now: they go on by themselves."""
        with reading(self._parts.engine) as conn:
            resting = list_cases(conn, statuses=frozenset({Status.ON_HOLD}), request_type=RequestType.ERASURE)
            return [case for case in resting if rests_under_hold(case) and self._is_freer(conn, case)]

    def sweep(self, case: Case) -> bool:
        """Look a last time for what requests that were under way wrote; whether nothing is left."""
        look = erase_everywhere(case.subject_id, self._all)
        stores = self._parts.engine, self._parts.keystore.engine
        if look.problem is None and all(map(empty_write_ahead_log, stores)):
            with self._parts.engine.begin() as conn:
                change_case(conn, case, swept_at=self._parts.now())
            return True
        return False

    # Beginning

    def _is_over(self, case: Case) -> bool:
        with reading(self._parts.engine) as conn:
            return state_of(conn, case.subject_id) is SubjectState.ERASED

    def _join(self, case: Case) -> Case:
        """Close a request about a person whom another one erased meanwhile: that one's receipt answers both."""
        now = self._parts.now()
        moved = self._draft(EventType.PRIVACY_MOVED, **move_details(case, Status.COMPLETED))
        with reading(self._parts.engine) as conn:
            alike = list_cases(conn, request_type=RequestType.ERASURE, subject_id=case.subject_id)
        receipt = next((other.receipt for other in alike if other.receipt), None)
        done = {"status": Status.COMPLETED.value, "finished_at": now, "swept_at": now, "last_error": None}

        def write(conn: Connection) -> None:
            change_case(conn, case, receipt=receipt, attempts=case.attempts + 1, **done)
            self._parts.worker_journal.write(conn, moved)

        writing(self._parts.engine, write)
        return self._read(case)

    def _begin(self, case: Case) -> Case:
        """Mark the person, unless a hold keeps everything (or as much as before); one transaction."""
        parts = self._parts
        key = None if case.is_begun else new_commitment(parts.keystore, parts.sealer, case, parts.now())
        intent = None if case.is_begun else self._intent(case, Phase.INTENDED)
        start = self._draft(EventType.PRIVACY_MOVED, **move_details(case, Status.RUNNING))
        stop = self._draft(EventType.PRIVACY_MOVED, **move_details(case, Status.ON_HOLD))
        before = self._looked_again(case)

        def write(conn: Connection) -> None:
            lock_subject(conn, case.subject_id)  # a hold being placed has it locked: wait for that
            held = self._grip.held(conn, case.subject_id)
            if self._grip.is_whole(held):
                self._stay(conn, case, held, stop)
                return
            mark_erasing(conn, case.subject_id)
            facts = self._beginning(replace(before, held=tuple(sorted(held))), key, intent)
            change_case(conn, case, status=Status.RUNNING.value, **facts)
            self._parts.worker_journal.write(conn, *([intent] if intent else []), start)

        writing(self._parts.engine, write)
        return self._read(case)

    def _stay(self, conn: Connection, case: Case, held: frozenset[str], stop: Draft) -> None:
        if case.status is Status.ON_HOLD:
            return
        progress = replace(Progress.read(case.before), held=tuple(sorted(held)))
        change_case(conn, case, status=Status.ON_HOLD.value, before=progress.stored())
        self._parts.worker_journal.write(conn, stop)

    def _looked_again(self, case: Case) -> Progress:
        """While the updates were held, other rounds built on the models that had learned from them."""
        progress = Progress.read(case.before)
        told = self._parts.disclose(case.subject_id) if progress.found is not None else None
        return replace(progress, models=tuple(told.models)) if told and told.models else progress

    def _beginning(
        self, progress: Progress, key: Commitment | None, intent: Draft | None
    ) -> dict[str, object]:
        if key is None or intent is None:
            return {"before": progress.stored()}
        before = replace(progress, commitment=key.value).stored()
        return {"before": before, "commitment_key": key.sealed, "intent_id": intent.id, "last_error": None}

    def _look_first(self, case: Case, progress: Progress) -> tuple[Case, Progress]:
        """Keep what is there: after the mark nothing comes to it, and before the first place nothing went.

        What the person sent is settled by now: no model learns from it any more, also where a hold keeps it.
        """
        found = {place.name: place.count(case.subject_id) for place in self._all}
        progress = progress.looked(found, self._parts.disclose(case.subject_id))
        return self._keep(case, progress), progress

    # Erasing

    def _erase(self, case: Case, progress: Progress) -> Case:
        with reading(self._parts.engine) as conn:
            held = self._grip.held(conn, case.subject_id)
        self._stop_writers(case.subject_id, is_held=bool(held))
        look = erase_everywhere(case.subject_id, (*self._rows, self._letters), held)
        empty_write_ahead_log(self._parts.engine)
        if look.problem is not None:
            return self._postpone(case, look.problem)
        progress = progress.emptied(tuple(look.left), self._parts.now())
        if held:
            return self._rest(case, replace(progress, held=tuple(sorted(held))))
        case, progress = self._destroy_keys(case, progress)
        return self._end(case, progress)

    def _stop_writers(self, subject: str, *, is_held: bool) -> None:
        """While something is held, a restore must bring it back: no tombstone yet. The mark stops writers alike."""
        if is_held:
            self._parts.keystore.state.bump_epoch()
        else:
            self._parts.keystore.forbid(subject)

    def _rest(self, case: Case, progress: Progress) -> Case:
        stop = self._draft(EventType.PRIVACY_MOVED, **move_details(case, Status.ON_HOLD))

        def write(conn: Connection) -> None:
            change_case(conn, case, status=Status.ON_HOLD.value, before=progress.stored(), last_error=None)
            self._parts.worker_journal.write(conn, stop)

        writing(self._parts.engine, write)
        return self._read(case)

    def _destroy_keys(self, case: Case, progress: Progress) -> tuple[Case, Progress]:
        """Destroy the keys, and write the news, which is due before the name is forgotten."""
        self._log.erase(case.subject_id)
        now = self._parts.now()
        news = news_of(self._parts, case, progress.recipients)
        progress = replace(
            progress.emptied((self._log.name,), now), keys_at=now, news_id=news.id if news else None
        )

        def write(conn: Connection) -> None:
            change_case(conn, case, before=progress.stored())
            stage(conn, *([news] if news else []))

        writing(self._parts.engine, write)
        return self._read(case), progress

    # Ending

    def _end(self, case: Case, progress: Progress) -> Case:
        news, at = progress.news_id, progress.keys_at
        if news and at and is_waiting(self._parts, news, at):
            return self._postpone(case, RecipientsNotTold.code)
        look = erase_everywhere(case.subject_id, self._all)
        empty_write_ahead_log(self._parts.engine)
        if look.problem is not None:
            return self._postpone(case, look.problem)
        return self._finish(case, progress, look)

    def _finish(self, case: Case, progress: Progress, look: Look) -> Case:
        entries = self._log.kept(case.subject_id)
        with reading(self._parts.engine) as conn:
            kept = kept_of(conn, case.subject_id, entries)
        receipt = summed_up(self._parts, case, progress, tuple(look.left), self._log.name, kept)
        erased = self._draft(
            EventType.PRIVACY_ERASED,
            case_id=case.id,
            places=sorted(look.left),
            left=sum(look.left.values()),
            sinks=list(progress.recipients),
            receipt_digest=receipt.digest(),
        )
        terms, key = self._parts.terms, self._parts.keystore.signing_key(SigningUse.RECEIPT)
        signed = sign(receipt, LogPromise(erased, terms.origin, terms.max_delay_s), key)
        done = self._intent(case, Phase.DONE, intent_id=case.intent_id or "")
        moved = self._draft(EventType.PRIVACY_MOVED, **move_details(case, Status.COMPLETED))
        facts = {"status": Status.COMPLETED.value, "finished_at": receipt.finished, "last_error": None}

        def write(conn: Connection) -> None:
            change_case(conn, case, receipt=signed, attempts=case.attempts + 1, **facts)
            mark_erased(conn, case.subject_id)
            self._parts.worker_journal.write(conn, erased, done, moved)

        try:
            writing(self._parts.engine, write)
        except CaseChanged:  # another worker ran it too, and was first
            return self._read(case)
        return self._read(case)

    # Inside

    def _postpone(self, case: Case, problem: str) -> Case:
        """Note why it is not over; a wait that goes on is noted once, or officers could not move the request."""
        if problem == case.last_error and problem in _WAITS:
            return case
        with self._parts.engine.begin() as conn:
            change_case(conn, case, attempts=case.attempts + 1, last_error=problem)
        return self._read(case)

    def _keep(self, case: Case, progress: Progress) -> Case:
        with self._parts.engine.begin() as conn:
            change_case(conn, case, before=progress.stored())
        return self._read(case)

    def _is_freer(self, conn: Connection, case: Case) -> bool:
        return self._grip.held(conn, case.subject_id) != frozenset(Progress.read(case.before).held)

    def _intent(self, case: Case, phase: Phase, **more: JsonValue) -> Draft:
        return self._draft(EventType.INTENT_ERASE, case_id=case.id, phase=phase.value, **more)

    def _draft(self, event_type: EventType, **details: JsonValue) -> Draft:
        return self._parts.worker_journal.draft(event_type, details=details, actor=DESK)

    def _read(self, case: Case) -> Case:
        with reading(self._parts.engine) as conn:
            return read_case(conn, case.id)


def rests_under_hold(case: Case) -> bool:
    """Whether it is an approved erasure that waits for the end of a legal hold."""
    return case.status is Status.ON_HOLD and bool(Progress.read(case.before).held)
