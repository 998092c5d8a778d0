"""Subjects and the lock that lets no transaction write for a person whose erasure has begun (RULES 18)."""

from __future__ import annotations

from collections.abc import Iterable
from datetime import datetime
from enum import StrEnum

from sqlalchemy import Connection, and_, bindparam, insert, select, update

from audit.draft import NOBODY
from compliance.errors import NeverErasable, SubjectErasing, UnknownSubject
from compliance.tables import subjects

_BATCH = 500


class SubjectState(StrEnum):
    """Whether data may still be written for a subject."""

    ACTIVE = "active"
    ERASING = "erasing"
    ERASED = "erased"


class Ground(StrEnum):
    """Why a subject's data is kept and not used; each stands until it is lifted by itself."""

    RESTRICTION = "restriction"
    OBJECTION = "objection"


_SINCE = {Ground.RESTRICTION: subjects.c.restricted_at, Ground.OBJECTION: subjects.c.objected_at}
# Made once: nearly each writing transaction holds somebody, most of them one alone.
_HOLD = (
    select(subjects.c.subject_id, subjects.c.state).order_by(subjects.c.subject_id).with_for_update(read=True)
)
_HOLD_ONE = _HOLD.where(subjects.c.subject_id == bindparam("one"))
_HOLD_SOME = _HOLD.where(subjects.c.subject_id.in_(bindparam("some", expanding=True)))
UNRESTRICTED = and_(*(column.is_(None) for column in _SINCE.values()))


def new_subject(conn: Connection, subject_id: str, now: datetime) -> None:
    """Add a subject, in the transaction that first writes for it."""
    row = {"subject_id": subject_id, "state": SubjectState.ACTIVE.value, "created_at": now}
    conn.execute(insert(subjects).values(row))


def hold(conn: Connection, subject_ids: Iterable[str]) -> None:
    """Lock subjects shared until the transaction ends; `system` and `unproven` are no persons and pass.

    Raises:
        SubjectErasing: an erasure of one of them has begun.
        UnknownSubject: one of them was never added.
    """
    wanted = sorted(set(subject_ids) - NOBODY)
    states = _locked_states(conn, wanted)
    unknown = tuple(subject for subject in wanted if subject not in states)
    if unknown:
        raise UnknownSubject(unknown)
    marked = tuple(subject for subject in wanted if states[subject] is not SubjectState.ACTIVE)
    if marked:
        raise SubjectErasing(marked)


def lock_subject(conn: Connection, subject_id: str) -> SubjectState:
    """Lock the subject exclusively until the transaction ends. Raises UnknownSubject."""
    lock = select(subjects.c.state).where(subjects.c.subject_id == subject_id).with_for_update()
    state = conn.execute(lock).scalar_one_or_none()
    if state is None:
        raise UnknownSubject((subject_id,))
    return SubjectState(state)


def lock_subjects(conn: Connection, subject_ids: Iterable[str]) -> None:
    """Lock subjects exclusively until the transaction ends, in one order: waits for writers that hold them."""
    wanted = sorted(set(subject_ids))
    query = select(subjects.c.subject_id).where(subjects.c.subject_id.in_(wanted))
    conn.execute(query.order_by(subjects.c.subject_id).with_for_update()).all()


def mark_erasing(conn: Connection, subject_id: str) -> None:
    """Lock the subject exclusively and mark it: waits for writers that hold it, and stops later ones."""
    if subject_id in NOBODY:
        raise NeverErasable(f"{subject_id} is no person: it cannot be erased")
    if lock_subject(conn, subject_id) is SubjectState.ACTIVE:
        _set_state(conn, subject_id, SubjectState.ERASING)


def restrict(conn: Connection, subject_id: str, ground: Ground, now: datetime) -> None:
    """Have the subject's data kept and not used; what restricts it already goes on. The caller has it locked."""
    since = _SINCE[ground]
    chosen = update(subjects).where(subjects.c.subject_id == subject_id, since.is_(None))
    conn.execute(chosen.values({since: now}))


def lift(conn: Connection, subject_id: str, ground: Ground) -> None:
    """End what that ground restricts. Another ground stays. The caller has the subject locked."""
    conn.execute(update(subjects).where(subjects.c.subject_id == subject_id).values({_SINCE[ground]: None}))


def mark_erased(conn: Connection, subject_id: str) -> None:
    """Record that the erasure is over; the row stays, so that the subject is never added again."""
    _set_state(conn, subject_id, SubjectState.ERASED)


def state_of(conn: Connection, subject_id: str) -> SubjectState | None:
    """The subject's state, or None if there is no such subject."""
    query = select(subjects.c.state).where(subjects.c.subject_id == subject_id)
    state = conn.execute(query).scalar_one_or_none()
    return None if state is None else SubjectState(state)


def created_at(conn: Connection, subject_id: str) -> datetime | None:
    """When the subject was added, or None if there is no such subject."""
    query = select(subjects.c.created_at).where(subjects.c.subject_id == subject_id)
    return conn.execute(query).scalar_one_or_none()


def _locked_states(conn: Connection, wanted: list[str]) -> dict[str, SubjectState]:
    if len(wanted) == 1:
        locked = conn.execute(_HOLD_ONE, {"one": wanted[0]}).all()
    else:
        batches = [wanted[first : first + _BATCH] for first in range(0, len(wanted), _BATCH)]
        locked = [row for some in batches for row in conn.execute(_HOLD_SOME, {"some": some})]
    return {subject: SubjectState(state) for subject, state in locked}


def _set_state(conn: Connection, subject_id: str, state: SubjectState) -> None:
    conn.execute(update(subjects).where(subjects.c.subject_id == subject_id).values(state=state.value))
