"""What a notice says: a heading, what happened, and what to do; cases, models, sinks and domains, never a person."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum

from audit.events import Severity
from compliance.parts import DeskAlarm

LONGEST_SUBJECT, LONGEST_KEY = 200, 200


class NoticeKind(StrEnum):
    """What a notice is about; receivers may sort by it."""

    DEADLINE = "deadline"
    HOLD = "hold"
    BUDGET = "budget"
    SIEM_LAG = "siem_lag"
    CERTIFICATE = "certificate"
    TRIAL = "trial"


@dataclass(frozen=True, slots=True)
class Notice:
    """Something that is told once.

    Args:
        kind: what it is about.
        severity: how soon somebody must look.
        subject_line: its heading.
        text: what happened, and what to do.
        dedupe_key: its cause; a second notice of one cause is not sent.
    """

    kind: NoticeKind
    severity: Severity
    subject_line: str
    text: str
    dedupe_key: str


_ALARMS = {
    "days_left_10": (Severity.MEDIUM, "has ten days left", "Answer it, or extend it with a reason"),
    "days_left_5": (Severity.HIGH, "has five days left", "Answer it, or extend it with a reason"),
    "no_owner": (Severity.MEDIUM, "has had no owner for three days", "Somebody must take it"),
    "review_overdue": (
        Severity.MEDIUM,
        "is overdue for its review",
        "Review its grounds, or ask its release",
    ),
}
"""By the alarm's word: how urgent it is, what is the matter, and what to do."""


def notice_of_alarm(alarm: DeskAlarm) -> Notice:
    """The notice of an alarm of the privacy desk; an alarm that has no words here is told by its name."""
    unknown = (Severity.MEDIUM, f"raised the alarm {alarm.alarm}", "Look at it")
    severity, matter, remedy = _ALARMS.get(alarm.alarm, unknown)
    is_hold = alarm.alarm.startswith("review")
    what = "legal hold" if is_hold else "privacy request"
    term = "Its review was due on" if is_hold else "Its term ends on"
    return Notice(
        kind=NoticeKind.HOLD if is_hold else NoticeKind.DEADLINE,
        severity=severity,
        subject_line=f"A {what} {matter}",
        text=f"The {what} {alarm.case_id} {matter}. {term} {shown(alarm.due_at)}. {remedy}.",
        dedupe_key=f"{alarm.alarm}|{alarm.case_id}|{alarm.due_at.date()}",
    )


def shown(moment: datetime) -> str:
    """A time as people read it."""
    return moment.strftime("%Y-%m-%d %H:%M UTC")
