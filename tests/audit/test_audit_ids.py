"""Entry ids: UUIDv7 that sort by time, and by the order of drawing within a microsecond."""

from __future__ import annotations

import os
import threading
from datetime import UTC, datetime, timedelta
from uuid import UUID

from hypothesis import given
from hypothesis import strategies as st

from audit.ids import IdMaker

TIMES = st.datetimes(datetime(1970, 1, 2), datetime(2500, 1, 1), timezones=st.just(UTC))  # noqa: DTZ001
NOON = datetime(2026, 11, 24, 12, tzinfo=UTC)


@given(TIMES)
def test_an_id_is_a_version_7_uuid_of_its_time(now: datetime) -> None:
    """RFC 9562, 5.7: 48 bits of milliseconds since 1970, version 7, variant 10."""
    made = UUID(IdMaker()(now))

    assert (made.version, made.variant) == (7, "specified in RFC 4122")
    assert made.int >> 80 == (now - datetime(1970, 1, 1, tzinfo=UTC)) // timedelta(milliseconds=1)


@given(TIMES, TIMES)
def test_ids_sort_as_their_times_do(one: datetime, other: datetime) -> None:
    """The log orders by time, then id: both agree (within the 0.25 µs that the id can tell)."""
    make = IdMaker()

    first, second = sorted((one, other))

    if second - first > timedelta(microseconds=1):
        assert make(first) < make(second)


def test_ids_of_one_moment_sort_as_they_were_drawn() -> None:
    """Entries of one transaction keep their order, though the clock stood still."""
    make = IdMaker()

    drawn = [make(NOON) for _ in range(1000)]

    assert drawn == sorted(set(drawn))


def test_two_makers_at_one_moment_draw_different_ids() -> None:
    """Processes need not know of each other."""
    assert len({IdMaker()(NOON) for _ in range(1000)}) == 1000


def test_the_last_number_of_a_moment_is_not_passed() -> None:
    """The counter never runs into the variant bits."""
    make = IdMaker(random=lambda count: b"\xff" * count)

    drawn = [UUID(make(NOON)) for _ in range(5)]

    assert {each.variant for each in drawn} == {"specified in RFC 4122"}
    assert drawn == sorted(drawn)


def test_threads_never_draw_the_same_id() -> None:
    """One maker serves all threads of a process."""
    make, drawn = IdMaker(os.urandom), list[str]()
    threads = [
        threading.Thread(target=lambda: drawn.extend([make(NOON) for _ in range(200)])) for _ in range(8)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

    assert len(set(drawn)) == 1600
