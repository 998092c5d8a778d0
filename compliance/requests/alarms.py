"""Alarms of the clock: ten and five days before an answer is due, and when nobody took a request in hand."""

from __future__ import annotations

from datetime import datetime, timedelta
from enum import StrEnum

from audit.events import EventType
from audit.reading import reading
from compliance.errors import CaseChanged
from compliance.journal import DESK
from compliance.parts import DeskAlarm, DeskParts
from compliance.requests.cases import Case, Status, change_case
from compliance.requests.deadlines import days_left
from compliance.requests.listing import open_cases

_UNOWNED = timedelta(days=3)
_WAITS_FOR_PEOPLE = frozenset({Status.RECEIVED, Status.AWAITING_IDENTITY, Status.IN_REVIEW, Status.ON_HOLD})


class Alarm(StrEnum):
    """What an alarm says; each rings once for a due time."""

    DAYS_LEFT_10 = "days_left_10"
    DAYS_LEFT_5 = "days_left_5"
    NO_OWNER = "no_owner"


_DAYS = ((Alarm.DAYS_LEFT_5, 5), (Alarm.DAYS_LEFT_10, 10))  # the more urgent one first


def raise_alarms(parts: DeskParts) -> int:
    """Ring every alarm whose time has come and that did not ring yet; says how many rang."""
    now = parts.now()
    with reading(parts.engine) as conn:
        cases = open_cases(conn, due_before=now + timedelta(days=12), unowned_since=now - _UNOWNED)
    return sum(_raise(parts, case, _alarms(case, case.due_at, parts)) for case in cases)


def still_due(case: Case, due: datetime, parts: DeskParts) -> list[str]:
    """Of the alarms that rang, those that would ring for the new due time too: they do not ring again."""
    near = set(_near(due, parts))
    return sorted(alarm for alarm in case.alarms if alarm == Alarm.NO_OWNER or alarm in near)


def _alarms(case: Case, due: datetime, parts: DeskParts) -> list[Alarm]:
    found = _near(due, parts) if case.paused_at is None else []
    if (
        case.owned_at is None
        and case.status in _WAITS_FOR_PEOPLE
        and parts.now() - case.received_at >= _UNOWNED
    ):
        found.append(Alarm.NO_OWNER)
    return found


def _near(due: datetime, parts: DeskParts) -> list[Alarm]:
    left = days_left(due, parts.now(), parts.calendar)
    return [alarm for alarm, days in _DAYS if left <= days]


def _raise(parts: DeskParts, case: Case, alarms: list[Alarm]) -> int:
    """One entry and one notice for each; of two about the same days only the more urgent one is told."""
    new = [alarm for alarm in alarms if alarm.value not in case.alarms]
    if Alarm.DAYS_LEFT_5 in alarms and Alarm.DAYS_LEFT_10 in new:
        new.remove(Alarm.DAYS_LEFT_10)
    if not new:
        return 0
    drafts = [
        parts.worker_journal.draft(
            EventType.PRIVACY_ALARMED,
            details={"case_id": case.id, "alarm": alarm.value, "due_at": case.due_at.isoformat()},
            actor=DESK,
        )
        for alarm in new
    ]
    try:
        with parts.engine.begin() as conn:
            change_case(conn, case, alarms=sorted({*case.alarms, *(alarm.value for alarm in alarms)}))
            parts.worker_journal.write(conn, *drafts)
            for alarm in new:
                parts.notify(conn, DeskAlarm(case.id, alarm.value, case.due_at))
    except CaseChanged:  # somebody is at it now: the next look judges it anew
        return 0
    return len(new)
