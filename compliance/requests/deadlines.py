"""When an answer is due: a calendar month after receipt (GDPR Art. 12(3), Regulation 1182/71 Art. 3).

One pure function says it, from what is known of a request; it counts local days of the controller's time zone.
"""

from __future__ import annotations

from calendar import monthrange
from collections.abc import Iterable
from dataclasses import dataclass, field
from datetime import UTC, date, datetime, time, timedelta
from functools import lru_cache
from pathlib import Path
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

from compliance.errors import BadCalendar

USUAL_MONTHS, EXTENDED_MONTHS = 1, 3
_DAY_S = 86_400
_WEEKEND = frozenset({5, 6})
_LAST_SECOND = time(23, 59, 59)


@dataclass(frozen=True, slots=True)
class Calendar:
    """The controller's time zone, and the days on which nobody works there.

    Args:
        zone: the zone whose days are counted.
        holidays: days without work; None: every day counts as a working day, also those of the weekend.
    """

    zone: ZoneInfo = field(default_factory=lambda: ZoneInfo("UTC"))
    holidays: frozenset[date] | None = None

    def day_of(self, at: datetime) -> date:
        """The local day of a moment."""
        return at.astimezone(self.zone).date()

    def start_of(self, day: date) -> datetime:
        """The first moment of a local day, in UTC."""
        return datetime.combine(day, time(), self.zone).astimezone(UTC)

    def end_of(self, day: date) -> datetime:
        """The last second of a local day, in UTC; of two that are called so, the later one."""
        return datetime.combine(day, _LAST_SECOND, self.zone).replace(fold=1).astimezone(UTC)

    def is_working(self, day: date) -> bool:
        """Whether somebody works on that day; always so where no holidays are given."""
        return self.holidays is None or (day.weekday() not in _WEEKEND and day not in self.holidays)


def due_at(
    received: datetime, calendar: Calendar, *, is_extended: bool = False, paused_s: int = 0
) -> datetime:
    """The end of the day on which the answer is due.

    Args:
        received: when the request came in.
        calendar: whose days are counted.
        is_extended: whether it was extended: to three months from the receipt, never one month and two more.
        paused_s: how long a proof of identity was owed; the term grows by the whole days of it.
    """
    months = EXTENDED_MONTHS if is_extended else USUAL_MONTHS
    day = months_after(calendar.day_of(received), months) + timedelta(days=paused_s // _DAY_S)
    while not calendar.is_working(day):
        day += timedelta(days=1)
    return calendar.end_of(day)


def months_after(day: date, months: int) -> date:
    """The same day of a later month, or that month's last day where it has no such day."""
    ahead = day.month - 1 + months
    year, month = day.year + ahead // 12, ahead % 12 + 1
    return date(year, month, min(day.day, monthrange(year, month)[1]))


def days_left(due: datetime, now: datetime, calendar: Calendar) -> int:
    """How many local days lie before the day on which it is due: 0 on the day itself, less when it is over."""
    return (calendar.day_of(due) - calendar.day_of(now)).days


@lru_cache(maxsize=8)
def read_calendar(zone: str, holidays: str) -> Calendar:
    """The calendar that two settings name: a zone, and a list of days, or a file with one day a line.

    It is read once: a changed file counts from the next start, as a changed setting does.

    Raises:
        BadCalendar: there is no such zone, a file cannot be read, or a day is none.
    """
    try:
        found = ZoneInfo(zone)
    except (ZoneInfoNotFoundError, ValueError, OSError) as error:
        raise BadCalendar(f"{zone!r} is no time zone: name one such as Europe/Berlin") from error
    return Calendar(found, frozenset(_days(holidays)) if holidays.strip() else None)


def _days(holidays: str) -> Iterable[date]:
    for word in _lines(holidays):
        text = word.partition("#")[0].strip()
        if text:
            yield _day(text)


def _lines(holidays: str) -> list[str]:
    is_list = holidays.strip()[:1].isdigit()
    if is_list:
        return holidays.split(",")
    try:
        return Path(holidays.removeprefix("file:")).read_text("utf-8").splitlines()
    except (OSError, ValueError) as error:
        raise BadCalendar("the file of holidays cannot be read: check the path") from error


def _day(text: str) -> date:
    try:
        return date.fromisoformat(text)
    except ValueError as error:
        raise BadCalendar(f"{text!r} is no day: write holidays as 2026-12-25") from error
