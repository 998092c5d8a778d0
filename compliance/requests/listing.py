"""Finds privacy requests: a page of those that a filter lets through, and the earlier one like a new one."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from typing import Any

from sqlalchemy import ColumnElement, Connection, func, select

from compliance.requests.cases import OPEN, Case, RequestType, Status, case_of
from compliance.tables import privacy_requests

_TABLE = privacy_requests.c


@dataclass(frozen=True, slots=True)
class CaseFilter:
    """Which requests are wanted; what is None is not looked at.

    Args:
        status: those in this state.
        type: those of this type.
        subject_id: those about this subject, and by reference about a silo's people.
        due_before: those whose answer is due before then.
        is_owned: of the open ones, those that somebody has in hand, or nobody.
        is_open: only those whose answer is still owed.
    """

    status: Status | None = None
    type: RequestType | None = None
    subject_id: str | None = None
    due_before: datetime | None = None
    is_owned: bool | None = None
    is_open: bool = False

    def conditions(self) -> list[ColumnElement[bool]]:
        """The filter as conditions on the table."""
        found: list[ColumnElement[bool]] = []
        if self.status is not None:
            found.append(_TABLE.status == self.status.value)
        if self.type is not None:
            found.append(_TABLE.type == self.type.value)
        if self.subject_id is not None:
            found.append(_TABLE.subject_id == self.subject_id)
        if self.due_before is not None:
            found.append(_TABLE.due_at < self.due_before)
        if self.is_owned is not None:
            found.append(_TABLE.status.in_(sorted(OPEN)))
            found.append(_TABLE.owned_at.is_not(None) if self.is_owned else _TABLE.owned_at.is_(None))
        if self.is_open:
            found.append(_TABLE.status.in_(sorted(OPEN)))
        return found


def page_of_cases(conn: Connection, wanted: CaseFilter, *, limit: int, offset: int) -> tuple[list[Case], int]:
    """A page of requests, those due first first, and how many there are on all pages."""
    conditions = wanted.conditions()
    counted = select(func.count()).select_from(privacy_requests).where(*conditions)
    query = select(privacy_requests).where(*conditions).order_by(_TABLE.due_at, _TABLE.id)
    rows = conn.execute(query.limit(limit).offset(offset))
    return [case_of(row) for row in rows], int(conn.execute(counted).scalar_one())


def earlier_like(
    conn: Connection, request_type: RequestType, subject_id: str, reference_index: str | None
) -> str | None:
    """The open request of that type for the same subject, or the same reference of the same silo: the first one."""
    whose: Any = (
        _TABLE.reference_index == reference_index if reference_index else _TABLE.reference_index.is_(None)
    )
    query = (
        select(_TABLE.id)
        .where(_TABLE.subject_id == subject_id, whose)
        .where(_TABLE.type == request_type.value, _TABLE.status.in_(sorted(OPEN)))
        .order_by(_TABLE.duplicate_of.is_not(None), _TABLE.received_at, _TABLE.id)
        .limit(1)
    )
    return conn.execute(query).scalar_one_or_none()


def open_cases(conn: Connection, *, due_before: datetime, unowned_since: datetime) -> list[Case]:
    """Requests that wait for people, and are due before that time, or were received so long ago without an owner."""
    is_late = _TABLE.due_at < due_before
    is_nobodys = _TABLE.owned_at.is_(None) & (_TABLE.received_at <= unowned_since)
    query = select(privacy_requests).where(_TABLE.status.in_(sorted(OPEN)), is_late | is_nobodys)
    return [case_of(row) for row in conn.execute(query.order_by(_TABLE.due_at, _TABLE.id))]
