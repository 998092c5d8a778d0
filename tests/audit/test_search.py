"""The log explorer's questions: by type, outcome, time and place, in pages of bounded work."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

import pytest
from logbook import ALICE, UPDATE, Logbook
from sqlalchemy import event

from audit.draft import draft
from audit.entry import Draft, Entry
from audit.events import EventType, Outcome
from audit.reading import reading
from audit.search import Found, Wanted, find_entries, place_of_time
from audit.store import stage

REFUSED = {"reason": "NO_TOKEN", "status": 401}
UPDATES, REFUSALS = frozenset({"update.accepted"}), frozenset({"access.refused"})


def fill(log: Logbook, count: int = 40) -> list[Entry]:
    """A log of updates, a minute apart, of which each tenth entry is a refusal; the newest first."""
    drafts = [_entry(log, number) for number in range(count)]
    with log.engine.begin() as conn:
        stage(conn, *drafts)
    log.sequence()
    return list(find(log, Wanted(), limit=count).entries)


def _entry(log: Logbook, number: int) -> Draft:
    log.clock.advance(timedelta(minutes=1))
    is_refusal = number % 10 == 9
    return draft(
        EventType.ACCESS_REFUSED if is_refusal else EventType.UPDATE_ACCEPTED,
        sealer=log.sealer,
        now=log.clock(),
        actor=ALICE,
        action="refused" if is_refusal else "accepted",
        details=REFUSED if is_refusal else {**UPDATE, "round_number": number, "norm": "1.25"},
    )


def find(log: Logbook, wanted: Wanted, **more: Any) -> Found:
    """One page."""
    with reading(log.engine) as conn:
        return find_entries(conn, wanted, **more)


def seqs(found: Found) -> list[int]:
    """The places on a page."""
    return [entry.seq for entry in found.entries]


def every_seq(log: Logbook, wanted: Wanted, **more: Any) -> list[int]:
    """All pages, one after the other, by going on to what is older."""
    page = find(log, wanted, **more)
    found = seqs(page)
    while page.older is not None:
        page = find(log, wanted, before=page.older, **more)
        found += seqs(page)
    return found


@pytest.mark.parametrize(
    ("wanted", "expected"),
    [
        (Wanted(), range(40)),
        (Wanted(types=REFUSALS), (9, 19, 29, 39)),
        (Wanted(types=UPDATES | REFUSALS), range(40)),
        (Wanted(outcome=Outcome.DENIED), (9, 19, 29, 39)),
        (Wanted(outcome=Outcome.SUCCESS, types=REFUSALS), ()),
        (Wanted(outcome=Outcome.FAILURE), ()),
        (Wanted(first=5, last=12), range(5, 13)),
        (Wanted(types=REFUSALS, first=10, last=29), (19, 29)),
        (Wanted(first=100), ()),
        (Wanted(types=frozenset({"no.such"})), ()),
    ],
)
@pytest.mark.parametrize("limit", [3, 50])
def test_every_page_together_is_exactly_what_was_asked_for(
    log: Logbook, wanted: Wanted, expected: Any, limit: int
) -> None:
    """Filters of type, outcome and place; the newest first; no entry twice, none left out."""
    fill(log)

    found = every_seq(log, wanted, limit=limit)

    assert found == sorted(expected, reverse=True)


def test_a_time_is_found_by_halving_to_the_microsecond(log: Logbook) -> None:
    """`since` is within, `until` is not; a moment before the log and one behind it are no mistakes."""
    entries = fill(log)[::-1]
    since, until, second = entries[7].time, entries[21].time, timedelta(seconds=1)

    found = every_seq(log, Wanted(since=since, until=until), limit=6)
    none = [
        every_seq(log, Wanted(since=entries[-1].time + second)),
        every_seq(log, Wanted(until=entries[0].time)),
    ]

    assert found == list(range(20, 6, -1))
    assert none == [[], []]


def test_an_entry_whose_time_lags_is_found_where_its_time_says(log: Logbook) -> None:
    """RULES 22: `time` may lag the latest seen by up to 60 s, and the log's order is not that of times."""
    start = log.clock()
    times = [start + timedelta(seconds=at) for at in (0, 100, 45, 101, 155, 150, 102, 300)]
    for moment in times:
        log.clock.advance(moment - log.clock())
        log.stage(1)
        log.sequence()
    since, until = start + timedelta(seconds=60), start + timedelta(seconds=103)

    found = every_seq(log, Wanted(since=since, until=until))

    assert found == [6, 3, 1]


def test_the_way_back_shows_the_nearest_newer_ones(log: Logbook) -> None:
    """From any page, `newer` leads to the page that it came from; the first page has nothing newer."""
    fill(log)
    first = find(log, Wanted(types=UPDATES), limit=5)
    second = find(log, Wanted(types=UPDATES), limit=5, before=first.older)

    back = find(log, Wanted(types=UPDATES), limit=5, after=second.newer)

    assert first.newer is None
    assert seqs(back) == seqs(first)
    assert seqs(find(log, Wanted(types=UPDATES), limit=5, before=back.older)) == seqs(second)


def test_a_page_ends_when_it_has_looked_at_enough_and_says_where_to_go_on(log: Logbook) -> None:
    """However rare what is wanted may be, a page is a bounded amount of work."""
    fill(log)
    rare = Wanted(types=frozenset({"update.accepted"}), outcome=Outcome.FAILURE)

    page = find(log, rare, looked_at=10)
    pages = every_seq(log, Wanted(outcome=Outcome.SUCCESS), looked_at=7, limit=4)

    assert (page.entries, page.is_cut) == ((), True)
    assert page.older == 29 - 1  # the tenth update from the end
    assert pages == [seq for seq in range(39, -1, -1) if seq % 10 != 9]


def test_the_cost_of_a_page_does_not_grow_with_the_log(sqlite_log: Logbook) -> None:
    """No scan: each statement of a page goes by an index, and there are few of them."""
    log = sqlite_log
    fill(log, 60)
    sent: list[tuple[str, Any]] = []
    event.listen(log.engine, "before_cursor_execute", lambda *heard: sent.append((heard[2], heard[3])))

    find(log, Wanted(types=REFUSALS, since=log.clock() - timedelta(minutes=30)), limit=2)

    statements = [(one, values) for one, values in sent if one.startswith("SELECT")]
    with log.engine.connect() as conn:
        plans = [
            conn.exec_driver_sql(f"EXPLAIN QUERY PLAN {one}", values).all() for one, values in statements
        ]
    told = [row.detail for plan in plans for row in plan]
    assert not [line for line in told if line.startswith("SCAN audit_log") and "USING" not in line], told
    assert any("ix_audit_log_event_type_seq" in line for line in told), told
    assert len(statements) < 12, statements


def test_the_place_of_a_time_is_the_first_that_is_not_older(log: Logbook) -> None:
    """The halving itself: before all, between, exactly at one, behind all, and in an empty log."""
    with reading(log.engine) as conn:
        empty = place_of_time(conn, log.clock())
    entries = fill(log, 9)[::-1]
    second = timedelta(seconds=1)
    moments = [entries[0].time - second, entries[4].time, entries[4].time + second, entries[8].time + second]

    with reading(log.engine) as conn:
        found = [place_of_time(conn, moment) for moment in moments]

    assert (empty, found) == (0, [0, 4, 5, 9])


def test_an_entry_that_cannot_be_read_is_named_and_not_passed_over(sqlite_log: Logbook) -> None:
    """Promise 2: what somebody has overwritten in the database does not vanish from the reader's sight."""
    fill(sqlite_log, 12)
    sqlite_log.tamper("UPDATE audit_log SET canonical = 'nonsense' WHERE seq IN (3, 5)")

    newest, updates = find(sqlite_log, Wanted(), limit=4), find(sqlite_log, Wanted(types=UPDATES), limit=50)

    assert newest.unreadable == ()
    assert updates.unreadable == (5, 3)
    assert not {3, 5} & set(seqs(updates))
