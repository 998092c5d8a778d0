"""When an answer is due (Art. 12(3)): months, short months, extension, pause, working days, daylight saving."""

from __future__ import annotations

from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from zoneinfo import ZoneInfo

import pytest
from hypothesis import given
from hypothesis import strategies as st

from compliance.errors import BadCalendar
from compliance.requests.deadlines import Calendar, days_left, due_at, read_calendar

EASTER_2026 = "2026-04-03,2026-04-06"
ZONES = ("UTC", "Europe/Berlin", "America/New_York", "Asia/Tokyo", "Pacific/Kiritimati", "America/Asuncion")


@pytest.mark.parametrize("zone", ZONES)
@pytest.mark.parametrize(
    ("received", "due"),
    [
        ("2026-08-31", "2026-09-30"),
        ("2027-01-31", "2027-02-28"),
        ("2028-01-31", "2028-02-29"),  # a leap year
        ("2027-02-01", "2027-03-01"),
        ("2026-03-05", "2026-04-05"),
        ("2026-12-31", "2027-01-31"),
    ],
)
def test_an_answer_is_due_a_month_later_at_most_on_the_months_last_day(
    received: str, due: str, zone: str
) -> None:
    """Regulation 1182/71 Art. 3(2)(c): the same date, or the last day of a shorter month."""
    calendar = Calendar(ZoneInfo(zone))

    for hour in (0, 12, 23):
        at = datetime.fromisoformat(received).replace(hour=hour, tzinfo=calendar.zone)
        assert _local_day(due_at(at, calendar), calendar) == due


@pytest.mark.parametrize(
    ("received", "due"),
    [("2027-01-31", "2027-04-30"), ("2026-11-30", "2027-02-28"), ("2026-03-05", "2026-06-05")],
)
def test_an_extension_counts_from_the_receipt(received: str, due: str) -> None:
    """Art. 12(3): three months from the receipt, not one month clipped and two more."""
    found = due_at(_at(received), Calendar(), is_extended=True)

    assert _local_day(found, Calendar()) == due


def test_a_term_that_ends_without_work_ends_on_the_next_working_day() -> None:
    """Regulation 1182/71 Art. 3(4): 5 April 2026 is Easter Sunday, the 6th a holiday too."""
    strict, lenient = read_calendar("Europe/Berlin", EASTER_2026), read_calendar("Europe/Berlin", "")

    assert _local_day(due_at(_at("2026-03-05"), strict), strict) == "2026-04-07"
    assert _local_day(due_at(_at("2026-03-05"), lenient), lenient) == "2026-04-05"


@pytest.mark.parametrize(
    ("paused_s", "due"),
    [
        (0, "2026-04-05"),
        (86_399, "2026-04-05"),
        (86_400, "2026-04-06"),
        (10 * 86_400 + 3600, "2026-04-15"),
    ],
)
def test_a_pause_moves_the_end_by_its_whole_days(paused_s: int, due: str) -> None:
    """Never by more than the person let pass."""
    assert _local_day(due_at(_at("2026-03-05"), Calendar(), paused_s=paused_s), Calendar()) == due


def test_a_pause_is_counted_before_a_holiday_is_skipped() -> None:
    """Otherwise the days of Easter would be skipped though the term ends after them."""
    calendar = read_calendar("UTC", EASTER_2026)

    assert _local_day(due_at(_at("2026-03-05"), calendar, paused_s=3 * 86_400), calendar) == "2026-04-08"


@pytest.mark.parametrize(
    ("received", "due"),
    [
        ("2026-02-28T12:00:00+01:00", "2026-03-28T22:59:59+00:00"),  # the day before clocks go forward
        ("2026-03-01T12:00:00+01:00", "2026-04-01T21:59:59+00:00"),  # across it
        ("2026-09-25T12:00:00+02:00", "2026-10-25T22:59:59+00:00"),  # on the day of 25 hours
        ("2026-08-31T23:30:00+00:00", "2026-10-01T21:59:59+00:00"),  # already September in Berlin
    ],
)
def test_the_last_second_of_the_local_day_counts_whatever_the_clocks_do(received: str, due: str) -> None:
    """Regulation 1182/71 Art. 3(2): a term ends with the last hour of its day; days are the controller's."""
    found = due_at(datetime.fromisoformat(received), Calendar(ZoneInfo("Europe/Berlin")))

    assert found == datetime.fromisoformat(due)


def test_of_two_last_seconds_the_later_one_counts() -> None:
    """In Asunción the clocks went back at midnight: 23:59:59 of 23 March 2024 came twice."""
    calendar = Calendar(ZoneInfo("America/Asuncion"))

    assert calendar.end_of(date(2024, 3, 23)) == datetime(2024, 3, 24, 3, 59, 59, tzinfo=UTC)


@given(
    st.datetimes(min_value=datetime(2020, 1, 1), max_value=datetime(2090, 1, 1)),  # noqa: DTZ001
    st.sampled_from(ZONES),
    st.booleans(),
    st.integers(0, 100 * 86_400),
)
def test_a_term_ends_at_the_end_of_a_local_day(
    received: datetime, zone: str, is_extended: bool, paused_s: int
) -> None:
    """Never before its months are over, never more than its pause beyond them, and a second later is another day."""
    calendar = Calendar(ZoneInfo(zone))
    at = received.replace(tzinfo=UTC)

    due = due_at(at, calendar, is_extended=is_extended, paused_s=paused_s)

    least, most = (89, 92) if is_extended else (28, 31)
    days = (calendar.day_of(due) - calendar.day_of(at)).days - paused_s // 86_400
    assert least <= days <= most
    assert calendar.day_of(due + timedelta(seconds=1)) == calendar.day_of(due) + timedelta(days=1)


def test_days_left_are_local_days() -> None:
    """The evening in Berlin is the next day in Tokyo."""
    due = datetime(2026, 4, 5, 21, 59, 59, tzinfo=UTC)
    evening = datetime(2026, 3, 26, 16, 0, tzinfo=UTC)

    assert days_left(due, evening, Calendar(ZoneInfo("Europe/Berlin"))) == 10
    assert days_left(due, due, Calendar(ZoneInfo("Europe/Berlin"))) == 0
    assert days_left(due, due + timedelta(seconds=1), Calendar(ZoneInfo("Europe/Berlin"))) == -1
    assert days_left(due, evening, Calendar(ZoneInfo("Asia/Tokyo"))) == 10
    assert days_left(due, evening - timedelta(hours=2), Calendar(ZoneInfo("Asia/Tokyo"))) == 11


def test_holidays_are_read_from_a_list_or_a_file(tmp_path: Path) -> None:
    """One day a line, with remarks."""
    path = tmp_path / "holidays.txt"
    path.write_text("# Berlin\n2026-04-03  # Good Friday\n\n2026-04-06\n")

    read = {read_calendar("UTC", text) for text in (EASTER_2026, str(path), f"file:{path}")}

    assert len(read) == 1
    assert read_calendar("UTC", " ").holidays is None


@pytest.mark.parametrize(
    ("zone", "holidays", "told"),
    [
        ("Mars/Olympus", "", "Mars/Olympus"),
        ("../etc/passwd", "", "time zone"),
        ("", "", "time zone"),
        ("UTC", "2026-02-30", "2026-02-30"),
        ("UTC", "2026-04-03;2026-04-06", "2026-12-25"),
        ("UTC", "/nowhere/holidays", "file of holidays"),
    ],
)
def test_a_calendar_that_cannot_be_is_refused(zone: str, holidays: str, told: str) -> None:
    """The error names what is wrong."""
    with pytest.raises(BadCalendar, match=told):
        read_calendar(zone, holidays)


def _at(day: str) -> datetime:
    return datetime.fromisoformat(day).replace(hour=12, tzinfo=UTC)


def _local_day(at: datetime, calendar: Calendar) -> str:
    return calendar.day_of(at).isoformat()
