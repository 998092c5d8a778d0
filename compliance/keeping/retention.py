"""Removes what was kept long enough, kind by kind, but nothing that a legal hold covers or an open request needs.

Storage limitation (Art. 5(1)(e)) in small batches, each one transaction with its audit entry. What happens outside
of the database follows, and may be lost in a crash: blobs that no row names are swept.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

from sqlalchemy import (
    ColumnElement,
    Connection,
    Row,
    Select,
    Table,
    Text,
    and_,
    cast,
    delete,
    exists,
    func,
    or_,
    select,
)

from audit.canonical import JsonValue
from audit.draft import Personal
from audit.events import EventType
from audit.reading import reading
from compliance.journal import DESK
from compliance.keeping.hold import EVERYWHERE, instant
from compliance.keeping.terms import Bounds, Term, least_of
from compliance.parts import DeskParts
from compliance.requests.cases import CLOSED, RESTRICTING, Status
from compliance.subjects import SubjectState, lock_subjects
from compliance.tables import package_links, privacy_holds, privacy_requests, subjects

BATCH = 500
_TRIES = 3
_OPEN = sorted(set(Status) - CLOSED)  # named one by one, so that an index finds them


def _delete_by_key(table: Table, conn: Connection, ids: Sequence[str]) -> None:
    (key,) = table.primary_key.columns
    conn.execute(delete(table).where(key.in_(ids)))


def _nothing_more(_rows: Sequence[Row[Any]]) -> None:
    """All of it lay in the database."""


@dataclass(frozen=True, slots=True)
class Kind:
    """One kind of data with a term of its own.

    Args:
        name: what the schedule calls it.
        table: where it lies.
        place: the place whose holds cover it.
        older: the rows that were over before a time, as `id`, `subject_id` and what `afterwards` needs.
        outlives: kinds that refer to this one, and must be gone first.
        remove: takes rows of these ids out, with those that hang on them.
        afterwards: removes what lies outside of the database.
    """

    name: str
    table: Table
    place: str
    older: Callable[[datetime], Select[Any]]
    outlives: tuple[str, ...] = ()
    remove: Callable[[Connection, Sequence[str]], None] | None = None
    afterwards: Callable[[Sequence[Row[Any]]], None] = field(default=_nothing_more)

    @property
    def bounds(self) -> Bounds:
        """What its term is checked against."""
        return Bounds(self.name, least_of(self.table), self.outlives)


@dataclass(frozen=True, slots=True)
class Over:
    """What a look at one kind found: rows whose time is over, and those of them that must stay."""

    category: str
    before: datetime
    rows: int
    kept_back: int

    def public(self) -> dict[str, Any]:
        """What machines read of it."""
        return {
            "category": self.category,
            "before": instant(self.before),
            "rows": self.rows,
            "kept_back": self.kept_back,
        }


class Retention:
    """Runs a schedule.

    Args:
        parts: the desk's means.
        kinds: every kind that may have a term, those that refer to others first.
        terms: the schedule in force.
    """

    def __init__(self, parts: DeskParts, kinds: Sequence[Kind], terms: Mapping[str, Term]) -> None:
        self._parts = parts
        self._kinds = [kind for kind in kinds if kind.name in terms]
        self._terms = terms

    def look(self) -> list[Over]:
        """What a run would remove now, and what it would leave; nothing is changed."""
        return [self._look(kind, self._before(kind)) for kind in self._kinds]

    def run(self) -> list[Over]:
        """Remove what is over, batch by batch; says what went, and what had to stay."""
        return [self._run(kind, self._before(kind)) for kind in self._kinds]

    def _before(self, kind: Kind) -> datetime:
        return self._parts.now() - self._terms[kind.name].most

    def _look(self, kind: Kind, before: datetime) -> Over:
        older = kind.older(before).subquery()
        with reading(self._parts.engine) as conn:
            everything = conn.scalar(select(func.count()).select_from(older)) or 0
            free = (
                conn.scalar(select(func.count()).select_from(older).where(_is_free(older, kind.place))) or 0
            )
        return Over(kind.name, before, free, everything - free)

    def _run(self, kind: Kind, before: datetime) -> Over:
        removed = sum(len(batch) for batch in self._batches(kind, before))
        return Over(kind.name, before, removed, self._look(kind, before).kept_back)

    def _batches(self, kind: Kind, before: datetime) -> Iterator[Sequence[Row[Any]]]:
        misses = 0
        while misses < _TRIES and (rows := self._chosen(kind, before)):
            if self._remove(kind, before, rows):
                kind.afterwards(rows)
                yield rows
                misses = 0
            else:
                misses += 1

    def _chosen(self, kind: Kind, before: datetime) -> Sequence[Row[Any]]:
        older = kind.older(before).subquery()
        query = select(older).where(_is_free(older, kind.place)).limit(BATCH)
        with reading(self._parts.engine) as conn:
            return conn.execute(query).all()

    def _remove(self, kind: Kind, before: datetime, rows: Sequence[Row[Any]]) -> bool:
        """Take these rows out, with their entry; not if a hold or a request came in between."""
        journal, ids = self._parts.worker_journal, [row.id for row in rows]
        details: dict[str, JsonValue | Personal] = {
            "category": kind.name,
            "rows": len(rows),
            "before": before.isoformat(),
        }
        entry = journal.draft(EventType.RETENTION_APPLIED, details=details, actor=DESK)
        older = kind.older(before).subquery()
        still = (
            select(func.count()).select_from(older).where(older.c.id.in_(ids), _is_free(older, kind.place))
        )
        with self._parts.engine.begin() as conn:
            lock_subjects(conn, {row.subject_id for row in rows})  # a hold that is being placed has it locked
            if conn.scalar(still) != len(rows):
                return False
            (kind.remove or _remover(kind.table))(conn, ids)
            journal.write(conn, entry)
        return True


def desk_kinds() -> tuple[Kind, ...]:
    """The kinds that the desk itself keeps: closed requests with their receipts, and holds that ended."""
    return (
        Kind("requests", privacy_requests, "privacy_requests", _closed_requests, remove=_remove_requests),
        Kind("holds", privacy_holds, "privacy_requests", _ended_holds),
    )


def _closed_requests(before: datetime) -> Select[Any]:
    """Those that ended, but none that restricts something still: by it that is lifted one day."""
    is_in_force = and_(
        privacy_requests.c.type.in_(sorted(RESTRICTING)),
        privacy_requests.c.status == Status.COMPLETED.value,
        privacy_requests.c.reference_index.is_(None),
        privacy_requests.c.lifted_at.is_(None),
        _is_there(privacy_requests.c.subject_id),
    )
    return select(privacy_requests.c.id, privacy_requests.c.subject_id).where(
        privacy_requests.c.finished_at < before,  # it has ended, for ever
        privacy_requests.c.package_blob.is_(None),
        ~is_in_force,
    )


def _remove_requests(conn: Connection, ids: Sequence[str]) -> None:
    conn.execute(delete(package_links).where(package_links.c.request_id.in_(ids)))
    _delete_by_key(privacy_requests, conn, ids)


def _ended_holds(before: datetime) -> Select[Any]:
    return select(privacy_holds.c.id, privacy_holds.c.subject_id).where(privacy_holds.c.lifted_at < before)


def _remover(table: Table) -> Callable[[Connection, Sequence[str]], None]:
    return lambda conn, ids: _delete_by_key(table, conn, ids)


def _is_free(older: Any, place: str) -> ColumnElement[bool]:
    """Whether no active hold covers the row's place, no request of its person is open, and no restriction stands.

    Restricted data is stored, and nothing else: the person may need what has run out (Art. 18(1)(b), (c), 18(2)).
    """
    scope = cast(privacy_holds.c.scope, Text)
    covers = or_(*(scope.contains(f'"{name}"', autoescape=True) for name in (EVERYWHERE, place)))
    held = exists().where(
        privacy_holds.c.subject_id == older.c.subject_id, privacy_holds.c.lifted_at.is_(None), covers
    )
    asked = exists().where(
        privacy_requests.c.subject_id == older.c.subject_id, privacy_requests.c.status.in_(_OPEN)
    )
    restricted = _is_there(older.c.subject_id, subjects.c.restricted_at.is_not(None))
    return and_(~held, ~asked, ~restricted)


def _is_there(subject_id: Any, *more: ColumnElement[bool]) -> ColumnElement[bool]:
    """Whether the person was not erased, and what more is asked of it."""
    is_whole = subjects.c.state == SubjectState.ACTIVE.value
    return exists().where(subjects.c.subject_id == subject_id, is_whole, *more)
