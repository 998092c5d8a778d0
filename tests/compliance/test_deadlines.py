"""When an answer is due (Art. 12(3))."""

from __future__ import annotations

from datetime import UTC, datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st

from compliance.requests.deadlines import month_after


@pytest.mark.parametrize(
    ("received", "due"),
    [
        ("2026-08-31", "2026-09-30"),
        ("2027-01-31", "2027-02-28"),
        ("2028-01-31", "2028-02-29"),
        ("2027-02-01", "2027-03-01"),
        ("2026-03-05", "2026-04-05"),
        ("2026-12-31", "2027-01-31"),
    ],
)
def test_an_answer_is_due_a_month_later_at_most_on_the_months_last_day(received: str, due: str) -> None:
    """Regulation 1182/71 Art. 3(2)(c): the same date, or the last day of a shorter month."""
    assert month_after(_at(received)) == _at(due)


@given(st.datetimes(min_value=datetime(2020, 1, 1), max_value=datetime(2090, 1, 1)))  # noqa: DTZ001
def test_a_deadline_lies_in_the_next_month_at_the_same_time_of_day(received: datetime) -> None:
    """It is never more than 31 days away, and never in the month after next."""
    due = month_after(received.replace(tzinfo=UTC))

    assert 28 <= (due - received.replace(tzinfo=UTC)).days <= 31
    assert due.month == received.month % 12 + 1
    assert due.time() == received.time()


def test_an_extension_counts_from_the_receipt() -> None:
    """Art. 12(3): two further months, not one month twice clipped."""
    assert month_after(_at("2026-11-30"), months=3) == _at("2027-02-28")
    assert month_after(_at("2027-01-31"), months=3) == _at("2027-04-30")


def _at(day: str) -> datetime:
    return datetime.fromisoformat(day).replace(hour=12, tzinfo=UTC)
