"""Legal holds: what an active one covers is neither erased nor run out; two people end it (Art. 17(3), 18(1)(c)).

A hold names its matter, the places it covers, the ground of Art. 17(3), and when its grounds are looked at again.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from datetime import datetime
from typing import Any
from uuid import uuid4

from sqlalchemy import Connection, func, insert, select

from audit.canonical import JsonValue
from audit.draft import Personal
from audit.entry import Draft
from audit.errors import KeyDestroyed
from audit.events import EventType, Retention
from audit.reading import reading
from compliance.errors import ApprovalNeedsAnother, BadHold, HoldChanged, HoldEnded, ReleaseNotAsked
from compliance.journal import DESK
from compliance.keeping.hold import (
    COLUMNS,
    EVERYWHERE,
    Hold,
    change_hold,
    chosen_holds,
    hold_of,
    hold_row,
    instant,
)
from compliance.parts import DeskAlarm, DeskParts
from compliance.requests.reasons import Exemption
from compliance.tables import privacy_holds

MOST_HOLDS = 200
_ALARM = "review_overdue"


def active_holds(conn: Connection, subject_id: str) -> list[Hold]:
    """The subject's holds that nobody has ended."""
    query = select(*COLUMNS).where(privacy_holds.c.subject_id == subject_id)
    return [hold_of(row) for row in conn.execute(query.where(privacy_holds.c.lifted_at.is_(None)))]


def held_places(conn: Connection, subject_id: str, names: Iterable[str]) -> frozenset[str]:
    """Which of these places hold what must stay of the subject now; read in the transaction that erases."""
    active = active_holds(conn, subject_id)
    return frozenset(name for name in names if any(hold.covers(name) for hold in active))


class Holds:
    """Places, reviews and ends holds, each step with its audit entry.

    Args:
        parts: the desk's means.
        names: the places that a hold can cover.
    """

    def __init__(self, parts: DeskParts, names: Sequence[str]) -> None:
        self._parts = parts
        self.names = tuple(names)

    # Reading

    def show(self, hold_id: str) -> Hold:
        """The hold as it stands. Raises UnknownHold."""
        with reading(self._parts.engine) as conn:
            return hold_of(hold_row(conn, hold_id, *COLUMNS))

    def matter(self, hold_id: str) -> str | None:
        """The case or claim behind it, opened; None once its key is gone."""
        with reading(self._parts.engine) as conn:
            sealed = hold_row(conn, hold_id, privacy_holds.c.matter).matter
        try:
            # The column was once called `reason`, and what is sealed bears its label for ever.
            return str(self._parts.sealer.open_column(sealed, "privacy_holds", "reason", hold_id))
        except KeyDestroyed:
            return None

    def active(self, subject_id: str) -> Sequence[Hold]:
        """The subject's holds that nobody has ended."""
        with reading(self._parts.engine) as conn:
            return active_holds(conn, subject_id)

    def list(
        self,
        *,
        subject_id: str | None = None,
        is_active: bool | None = None,
        review_before: datetime | None = None,
        limit: int = MOST_HOLDS,
        offset: int = 0,
    ) -> Sequence[Hold]:
        """Holds, those to be reviewed first first."""
        query = chosen_holds(select(*COLUMNS), subject_id, is_active, review_before)
        ordered = query.order_by(privacy_holds.c.review_at, privacy_holds.c.id)
        with reading(self._parts.engine) as conn:
            return [hold_of(row) for row in conn.execute(ordered.limit(limit).offset(offset))]

    def total(
        self,
        *,
        subject_id: str | None = None,
        is_active: bool | None = None,
        review_before: datetime | None = None,
    ) -> int:
        """How many holds `list` has in all."""
        query = select(func.count()).select_from(privacy_holds)
        with reading(self._parts.engine) as conn:
            return conn.scalar(chosen_holds(query, subject_id, is_active, review_before)) or 0

    # Placing and reviewing

    def place(
        self,
        subject_id: str,
        *,
        matter: str,
        scope: Sequence[str] = (EVERYWHERE,),
        basis: Exemption,
        review_at: datetime,
        by: Personal,
        hold_id: str | None = None,
    ) -> Hold:
        """Forbid erasing what the person has in the places of the scope.

        Args:
            subject_id: whose data must stay.
            matter: the case or claim behind it; sealed, and shown to those who may hold.
            scope: names of places, or `*` for all.
            basis: the letter of Art. 17(3).
            review_at: when somebody must look at its grounds again.
            by: who places it.
            hold_id: the id it gets, a UUID; drawn if None.

        Raises:
            BadHold: no matter, no such place, or a review that is not ahead.
            SubjectErasing: too late, its erasure has begun.
            UnknownSubject: there is no such subject.
        """
        now, hold_id = self._parts.now(), hold_id or str(uuid4())
        self._check(matter, scope, review_at, now)
        row = {
            "id": hold_id,
            "subject_id": subject_id,
            "version": 1,
            "matter": self._sealed(subject_id, "reason", hold_id, matter, now),
            "scope": sorted(set(scope)),
            "basis": basis.value,
            "review_at": review_at,
            "placed_by": self._sealed(by.subject, "placed_by", hold_id, by.value, now),
            "placed_at": now,
        }
        entry = self._draft(
            EventType.HOLD_PLACED,
            by,
            hold_id,
            subject=Personal(subject_id, subject_id),
            scope=sorted(set(scope)),
            basis=basis.value,
            review_at=instant(review_at),
        )
        with self._parts.engine.begin() as conn:
            self._parts.journal.write(conn, entry)  # first: it locks the subject, as an erasure does
            conn.execute(insert(privacy_holds).values(row))
        return self.show(hold_id)

    def review(self, hold_id: str, *, review_at: datetime, by: Personal, version: int | None = None) -> Hold:
        """Say that its grounds still stand, until a later day; who asked to end it is answered by this.

        Raises:
            BadHold: the day is not ahead.
            HoldEnded: it was lifted.
            HoldChanged: somebody else was faster.
        """
        self._check_review(review_at, self._parts.now())
        found = self._open(hold_id, version)
        entry = self._draft(EventType.HOLD_REVIEWED, by, hold_id, review_at=instant(review_at))
        changes = {"review_at": review_at, "alarmed_at": None}
        return self._change(found, entry, **changes, release_asked_by=None, release_asked_at=None)

    # Ending, which takes two

    def ask_release(self, hold_id: str, *, by: Personal, version: int | None = None) -> Hold:
        """Ask for the end of a hold; another person has to agree. Asked already: nothing changes.

        Raises:
            HoldEnded: it was lifted.
            HoldChanged: somebody else was faster.
        """
        found = self._open(hold_id, version)
        if found.release_asked_at is not None:
            return found
        now = self._parts.now()
        asker = self._sealed(by.subject, "release_asked_by", hold_id, by.value, now)
        entry = self._draft(EventType.HOLD_RELEASE_ASKED, by, hold_id)
        return self._change(found, entry, release_asked_by=asker, release_asked_at=now)

    def release(self, hold_id: str, *, by: Personal, version: int | None = None) -> Hold:
        """Lift a hold whose end another person asked for; one that was lifted stays as it is.

        Raises:
            ReleaseNotAsked: nobody has asked for it.
            ApprovalNeedsAnother: the same person asked for it.
            HoldChanged: somebody else was faster.
        """
        with reading(self._parts.engine) as conn:
            row = hold_row(conn, hold_id, *COLUMNS, privacy_holds.c.release_asked_by)
        found = hold_of(row)
        if not found.is_active:
            return found
        self._check_version(found, version)
        if row.release_asked_by is None:
            raise ReleaseNotAsked(hold_id)
        if self._asker(row.release_asked_by) == by.subject:
            raise ApprovalNeedsAnother(
                "who asked to end this hold may not agree to it: let a second person do it"
            )
        return self._change(
            found, self._draft(EventType.HOLD_LIFTED, by, hold_id), lifted_at=self._parts.now()
        )

    def end(self, hold_id: str, *, by: Personal) -> Hold:
        """Ask for the end of a hold, or agree with another who asked; who asked and comes again still waits."""
        with reading(self._parts.engine) as conn:
            row = hold_row(conn, hold_id, *COLUMNS, privacy_holds.c.release_asked_by)
        asker = None if row.release_asked_by is None else self._asker(row.release_asked_by)
        if row.lifted_at is None and asker in {None, by.subject}:
            return self.ask_release(hold_id, by=by)
        return self.release(hold_id, by=by)

    def has_asked(self, hold_id: str, by: Personal) -> bool:
        """Whether it was this person who asked to end the hold."""
        with reading(self._parts.engine) as conn:
            sealed = hold_row(conn, hold_id, privacy_holds.c.release_asked_by).release_asked_by
        return sealed is not None and self._asker(sealed) == by.subject

    # By itself

    def raise_alarms(self) -> int:
        """Tell of holds whose review is overdue, each once until it is reviewed; says how many."""
        now = self._parts.now()
        overdue = select(*COLUMNS).where(
            privacy_holds.c.lifted_at.is_(None),
            privacy_holds.c.alarmed_at.is_(None),
            privacy_holds.c.review_at <= now,
        )
        with reading(self._parts.engine) as conn:
            found = [hold_of(row) for row in conn.execute(overdue.limit(MOST_HOLDS))]
        return sum(self._alarm(hold, now) for hold in found)

    def _alarm(self, found: Hold, now: datetime) -> bool:
        details = {"hold_id": found.id, "review_at": instant(found.review_at)}
        journal = self._parts.worker_journal
        entry = journal.draft(EventType.HOLD_OVERDUE, details=details, actor=DESK)
        with self._parts.engine.begin() as conn:
            if not change_hold(conn, found, alarmed_at=now):
                return False
            self._parts.notify(conn, DeskAlarm(found.id, _ALARM, found.review_at))
            journal.write(conn, entry)
        return True

    # Inside

    def _open(self, hold_id: str, version: int | None) -> Hold:
        found = self.show(hold_id)
        if not found.is_active:
            raise HoldEnded(hold_id)
        self._check_version(found, version)
        return found

    def _check_version(self, found: Hold, version: int | None) -> None:
        if version is not None and version != found.version:
            raise HoldChanged(found.id, version)

    def _change(self, found: Hold, entry: Draft, **changes: Any) -> Hold:
        with self._parts.engine.begin() as conn:
            if not change_hold(conn, found, **changes):
                raise HoldChanged(found.id, found.version)
            self._parts.journal.write(conn, entry)
        return self.show(found.id)

    def _check(self, matter: str, scope: Sequence[str], review_at: datetime, now: datetime) -> None:
        if not matter.strip():
            raise BadHold("matter", "say which case or claim the data is needed for")
        unknown = sorted(set(scope) - {EVERYWHERE, *self.names})
        if unknown or not scope:
            raise BadHold("scope", f"name places of {', '.join(self.names)}, or * for all")
        self._check_review(review_at, now)

    def _check_review(self, review_at: datetime, now: datetime) -> None:
        if review_at <= now:
            raise BadHold("review_at", "the review must lie ahead")

    def _asker(self, sealed: dict[str, str]) -> str | None:
        return self._parts.keystore.subject_of(sealed["key"])

    def _draft(self, kind: EventType, by: Personal, hold_id: str, **details: JsonValue | Personal) -> Draft:
        """Only the entry of a placing is sealed under the person too: nothing can be, once its erasure has begun."""
        return self._parts.journal.draft(kind, details={"hold_id": hold_id, **details}, actor=by)

    def _sealed(
        self, subject: str, column: str, row_id: str, value: JsonValue, now: datetime
    ) -> dict[str, str]:
        seal = self._parts.sealer.seal_column
        return seal(subject, Retention.ACCOUNTABILITY, "privacy_holds", column, row_id, value, now)
