"""Retention: terms fit each other, a dry run comes first, nothing goes that a hold or request needs (Art. 5(1)(e))."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import timedelta
from typing import TYPE_CHECKING, Any
from uuid import uuid4

import pytest
from request_desk import opened, use
from sqlalchemy import Connection, event, func, insert, select
from sqlalchemy.engine import Row

from audit.events import Retention as Class
from audit.reading import reading
from compliance import Status
from compliance.errors import BadSchedule
from compliance.keeping.hold import Hold
from compliance.keeping.retention import BATCH, Kind, Over, Retention, desk_kinds
from compliance.keeping.terms import ACCOUNTABLE_LEAST, DAY, Bounds, Term, least_of, parse_schedule, shown
from compliance.requests.cases import Case, RequestType
from compliance.subjects import Ground, lift, restrict
from compliance.tables import privacy_holds, privacy_requests

if TYPE_CHECKING:
    from conftest import House

BOUNDS = (
    Bounds("updates", DAY),
    Bounds("clients", DAY, outlives=("updates",)),
    Bounds("requests", ACCOUNTABLE_LEAST),
)
THREE_YEARS = timedelta(days=3 * 365)


def test_a_schedule_is_read_with_its_least_and_its_most() -> None:
    """Issue: schedules per data category, minimum and maximum terms; what is not named is kept."""
    terms = parse_schedule(" updates=180d; requests = 800d..1825d;", BOUNDS)

    assert terms == {
        "updates": Term(timedelta(days=180)),
        "requests": Term(timedelta(days=1825), timedelta(days=800)),
    }
    assert parse_schedule("", BOUNDS) == {}
    assert shown(terms, BOUNDS) == [
        {"category": "updates", "least_days": 1, "most_days": 180},
        {"category": "clients", "least_days": 1, "most_days": None},
        {"category": "requests", "least_days": 800, "most_days": 1825},
    ]


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("updats=90d", "updats is no kind of data: name one of updates, clients, requests"),
        ("updates", "updates has no term"),
        ("updates=90", "updates has no term"),
        ("updates=-5d", "updates has no term"),
        ("=90d", "an empty name is no kind of data"),
        ("updates=90d;updates=91d", "updates is there twice"),
        ("updates=0d", "updates must be kept for 1 days at least"),
        ("updates=91d..90d", "updates must be kept for longer than it may be kept"),
        ("requests=729d", "requests must be kept for 730 days at least"),
        ("clients=90d", "clients goes after updates: give updates a term too"),
        ("clients=90d;updates=91d", "clients goes after updates: its term must not be shorter"),
        ("updates=999999d", "updates is kept for longer than a hundred years"),
    ],
)
def test_terms_that_contradict_each_other_are_refused(text: str, told: str) -> None:
    """Issue: minimum and maximum terms are checked against each other, whichever is written first."""
    with pytest.raises(BadSchedule) as refused:
        parse_schedule(text, BOUNDS)

    assert str(refused.value).startswith(told)


def test_what_the_data_map_calls_accountability_is_kept_for_two_years() -> None:
    """RULES 19: the least term comes from the data map, not from a list beside it."""
    assert least_of(privacy_requests) == least_of(privacy_holds) == ACCOUNTABLE_LEAST
    assert [kind.bounds.least for kind in desk_kinds()] == [ACCOUNTABLE_LEAST] * 2


@dataclass(frozen=True)
class Marking:
    """The gateway's carrier of objections, without its rounds."""

    house: House

    def prepare(self, case: Case, /) -> Callable[[Connection], None]:
        return lambda conn: restrict(conn, case.subject_id, Ground.OBJECTION, self.house.clock())


def _closed(house: House, person: str | None = None) -> str:
    case = house.desk.open("access", person or house.person(), requested_by=house.officer)
    return house.desk.withdraw(case.id, by=house.officer).id


def _retention(house: House, *kinds: Kind, days: int = 730) -> Retention:
    chosen = kinds or desk_kinds()
    terms = {kind.name: Term(timedelta(days=days)) for kind in chosen}
    return Retention(house.desk._parts, chosen, terms)


def _rows(house: House, table: Any = privacy_requests) -> int:
    with reading(house.engine) as conn:
        return conn.scalar(select(func.count()).select_from(table)) or 0


def test_a_dry_run_tells_what_would_go_and_changes_nothing(house: House) -> None:
    """Issue: dry run first."""
    _closed(house)
    house.lift(house.hold(house.person("Grace")))
    house.clock.advance(THREE_YEARS)
    before = house.clock() - timedelta(days=730)

    found = _retention(house).look()

    assert found == [Over("requests", before, 1, 0), Over("holds", before, 1, 0)]
    assert (_rows(house), _rows(house, privacy_holds)) == (1, 1)
    assert "retention.applied" not in house.event_types()


def test_what_is_over_goes_and_what_is_not_stays(house: House) -> None:
    """Issue: each deletion is audited; requests that are open, and young ones, stay."""
    old, retention = _closed(house), _retention(house)
    house.clock.advance(timedelta(days=730))
    young = _closed(house)
    waiting = house.desk.open("access", house.person(), requested_by=house.officer).id
    assert retention.run()[0].rows == 0  # to the day
    house.clock.advance(timedelta(seconds=1))

    assert [(over.category, over.rows) for over in retention.run()] == [("requests", 1), ("holds", 0)]
    assert retention.run()[0].rows == 0

    assert {case.id for case in house.desk.cases()} == {young, waiting}
    assert old not in {young, waiting}
    assert house.event_types().count("retention.applied") == 1


@pytest.mark.parametrize(("scope", "stays"), [("*", 1), ("privacy_requests", 1), ("notes", 0)])
def test_a_hold_keeps_what_it_covers(house: House, scope: str, stays: int) -> None:
    """Issue: a hold blocks retention of what it covers, and of nothing else; once lifted, it goes."""
    person = house.person()
    _closed(house, person)
    hold = house.hold(person, scope)
    house.clock.advance(THREE_YEARS)
    (kind, _) = desk_kinds()

    (over,) = _retention(house, kind).run()

    assert (over.rows, over.kept_back) == (1 - stays, stays)
    assert _rows(house) == stays
    house.lift(hold)
    _retention(house, kind).run()
    assert _rows(house) == 0


def test_an_open_request_keeps_its_persons_data(house: House) -> None:
    """What somebody has asked to see does not run out while the answer is owed."""
    person = house.person()
    _closed(house, person)
    house.clock.advance(THREE_YEARS)
    waiting = house.desk.open("access", person, requested_by=house.officer)

    assert _retention(house).run()[0].kept_back == 1
    house.desk.withdraw(waiting.id, by=house.officer)

    assert _retention(house).run()[0].rows == 1


def test_what_is_restricted_is_stored_until_that_is_lifted(house: House) -> None:
    """Art. 18(2): stored, and not removed either: the person may need it (Art. 18(1)(b), (c)), until it is erased."""
    person, gone = house.person(), house.person("Grace")
    for one in (person, gone):
        _closed(house, one)
        with house.engine.begin() as conn:
            restrict(conn, one, Ground.RESTRICTION, house.clock())
    erasure = house.desk.open("erasure", gone, requested_by=house.officer)
    house.desk.run(house.desk.approve(erasure.id, by=house.officer).id)
    house.clock.advance(THREE_YEARS)

    found = _retention(house).run()
    with house.engine.begin() as conn:
        lift(conn, person, Ground.RESTRICTION)
    later = _retention(house).run()

    assert [(over.rows, over.kept_back) for over in (found[0], later[0])] == [(2, 1), (1, 0)]


def test_an_objection_that_stands_keeps_its_request(house: House) -> None:
    """Art. 21: by that request it is lifted one day; of a person who was erased there is nothing to lift."""
    use(house, carriers={RequestType.OBJECTION: Marking(house)})
    cases = [opened(house, "objection") for _ in range(2)]
    cases.append(house.desk.open("erasure", cases[1].subject_id, requested_by=house.officer))
    for case in cases:
        assert house.desk.run(house.desk.approve(case.id, by=house.officer).id).status is Status.COMPLETED
    house.clock.advance(THREE_YEARS)

    assert _retention(house).run()[0].rows == 2

    with reading(house.engine) as conn:
        assert conn.execute(select(privacy_requests.c.id)).scalars().all() == [cases[0].id]


def test_a_hold_that_comes_between_the_look_and_the_removal_counts(house: House) -> None:
    """The batch is judged again under the lock that a hold takes too: nothing of it goes, then what is free."""
    persons = [house.person("Ada"), house.person("Grace")]
    for person in persons:
        _closed(house, person)
    house.clock.advance(THREE_YEARS)
    retention, holds = _retention(house), list[Hold]()

    read = retention._chosen

    def late(kind: Kind, before: Any) -> Sequence[Row[Any]]:
        rows = read(kind, before)
        if kind.name == "requests" and not holds:
            holds.append(house.hold(persons[0]))
        return rows

    retention._chosen = late  # type: ignore[method-assign]
    (over, _) = retention.run()

    assert (over.rows, over.kept_back) == (1, 1)
    assert [case.subject_id for case in house.desk.cases()] == [persons[0]]


def test_a_removal_and_its_entry_commit_together(house: House) -> None:
    """Promise 1: where the entry cannot be staged, nothing goes."""
    _closed(house)
    house.clock.advance(THREE_YEARS)

    def fail(_conn: Any, _cursor: Any, statement: str, *_rest: Any) -> None:
        if "INTO audit_pending" in statement:
            raise OSError("gone")

    event.listen(house.engine, "before_cursor_execute", fail)
    with pytest.raises(OSError, match="gone"):
        _retention(house).run()
    event.remove(house.engine, "before_cursor_execute", fail)

    assert _rows(house) == 1


def test_much_goes_in_batches_each_with_its_entry(postgresql_house: House) -> None:
    """House rule: 500 a transaction; the entries add up to what went."""
    house = postgresql_house
    person = house.person()
    (kind, _) = desk_kinds()
    with house.engine.begin() as conn:
        _add_closed(conn, house, person, 2 * BATCH + 1)
    house.clock.advance(THREE_YEARS)

    (over,) = _retention(house, kind).run()

    assert (over.rows, _rows(house)) == (2 * BATCH + 1, 0)
    assert house.event_types().count("retention.applied") == 3


def _add_closed(conn: Connection, house: House, person: str, count: int) -> None:
    asker = house.sealer.seal_column(
        person, Class.ACCOUNTABILITY, "privacy_requests", "requested_by", "x", "Ada", house.clock()
    )
    same = {
        "type": "access",
        "status": Status.WITHDRAWN.value,
        "subject_id": person,
        "version": 2,
        "received_at": house.clock(),
        "due_at": house.clock(),
        "requested_by": asker,
        "may_approve_alone": True,
        "attempts": 0,
        "finished_at": house.clock(),
    }
    conn.execute(insert(privacy_requests), [{"id": str(uuid4()), **same} for _ in range(count)])
