"""Legal holds: placed with a matter, a scope, a ground and a review; ended by two people (Art. 17(3), 18(1)(c))."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from datetime import timedelta
from typing import TYPE_CHECKING
from uuid import uuid4

import pytest
from sqlalchemy import Connection, event, select

from audit.draft import Personal
from audit.reading import reading
from compliance import SubjectErasing
from compliance.errors import (
    ApprovalNeedsAnother,
    BadHold,
    HoldChanged,
    HoldEnded,
    ReleaseNotAsked,
    UnknownHold,
    UnknownSubject,
)
from compliance.keeping.hold import Hold
from compliance.keeping.holds import Holds, held_places
from compliance.parts import DeskAlarm
from compliance.requests.reasons import Exemption
from compliance.subjects import mark_erasing
from compliance.tables import privacy_holds

if TYPE_CHECKING:
    from conftest import House

YEAR = timedelta(days=365)


@pytest.fixture
def second(house: House) -> Personal:
    """Another officer."""
    return Personal(house.person("second officer"), "second officer")


def _held(house: House, subject: str) -> frozenset[str]:
    with reading(house.engine) as conn:
        return held_places(conn, subject, ["notes", "audit_log", "privacy_requests"])


def test_a_hold_says_what_it_covers_on_which_ground_and_until_when(house: House) -> None:
    """Issue: matter, scope, basis, review date; the matter is sealed, and one entry tells of it."""
    person = house.person()

    hold = house.hold(person, "notes", matter="canary-matter")

    assert hold.public() == {
        "id": hold.id,
        "subject": {"subject_id": person},
        "version": 1,
        "scope": ["notes"],
        "basis": "e",
        "review_at": "2027-11-24T12:00:00Z",
        "placed_at": "2026-11-24T12:00:00Z",
        "release_asked_at": None,
        "lifted_at": None,
        "is_active": True,
    }
    assert house.desk.holds.matter(hold.id) == "canary-matter"
    assert b"canary-matter" not in house.every_byte()
    assert house.event_types().count("hold.placed") == 1


def test_a_hold_covers_its_places_and_no_others(house: House) -> None:
    """Issue: it blocks the erasure of what it covers, the rest goes on."""
    person, other = house.person(), house.person("Grace")
    assert _held(house, person) == frozenset()

    notes = house.hold(person, "notes")
    house.hold(person, "audit_log")
    house.hold(other)

    assert _held(house, person) == {"notes", "audit_log"}
    assert _held(house, other) == {"notes", "audit_log", "privacy_requests"}
    house.lift(notes)
    assert _held(house, person) == {"audit_log"}


@pytest.mark.parametrize(
    ("change", "field"),
    [
        ({"matter": " "}, "matter"),
        ({"scope": ()}, "scope"),
        ({"scope": ("attic",)}, "scope"),
        ({"review_at": timedelta(0)}, "review_at"),
    ],
)
def test_a_hold_without_matter_place_or_review_is_refused(
    house: House, change: dict[str, object], field: str
) -> None:
    """A hold that nobody could check is none: no row, no entry."""
    whole = {"matter": "court case", "scope": ("*",), "basis": Exemption.LEGAL_CLAIMS, "review_at": YEAR}
    asked = {**whole, **change}
    asked["review_at"] = house.clock() + asked["review_at"]

    with pytest.raises(BadHold) as refused:
        house.desk.holds.place(house.person(), by=house.officer, **asked)

    assert refused.value.field == field
    assert house.desk.holds.list() == []
    assert "hold.placed" not in house.event_types()


def test_a_hold_needs_a_person_and_is_found_by_its_id(house: House) -> None:
    """Promise 7: clear errors."""
    with pytest.raises(UnknownSubject):
        house.hold(str(uuid4()))
    for step in (house.desk.holds.show, house.desk.holds.matter):
        with pytest.raises(UnknownHold):
            step(str(uuid4()))


def test_a_hold_is_ended_by_two_people(house: House, second: Personal) -> None:
    """Issue: two-person release; who asked may not agree, and until somebody does, it covers all."""
    person = house.person()
    holds, hold = house.desk.holds, house.hold(person)

    with pytest.raises(ReleaseNotAsked):
        holds.release(hold.id, by=second)
    asked = holds.ask_release(hold.id, by=house.officer)
    with pytest.raises(ApprovalNeedsAnother):
        holds.release(hold.id, by=house.officer)
    assert _held(house, person)
    ended = holds.release(hold.id, by=second)

    assert asked.release_asked_at == house.clock()
    assert asked.is_active
    assert (ended.is_active, ended.lifted_at) == (False, house.clock())
    assert _held(house, person) == frozenset()
    types = house.event_types()
    assert (types.count("hold.release_asked"), types.count("hold.lifted")) == (1, 1)
    assert b"second officer" not in house.every_byte()


def test_asking_and_ending_again_change_nothing(house: House, second: Personal) -> None:
    """A step that is repeated is the same step: one entry each."""
    holds, hold = house.desk.holds, house.hold(house.person())

    asked = [holds.end(hold.id, by=house.officer) for _ in range(2)]
    ended = [holds.end(hold.id, by=second) for _ in range(2)]

    assert asked[0] == asked[1]
    assert ended[0] == ended[1]
    types = house.event_types()
    assert (types.count("hold.release_asked"), types.count("hold.lifted")) == (1, 1)


def test_a_review_moves_the_day_and_refuses_the_asked_release(house: House, second: Personal) -> None:
    """Who says that the grounds still stand has answered who wanted to end it."""
    holds, hold = house.desk.holds, house.hold(house.person())
    holds.ask_release(hold.id, by=house.officer)
    later = house.clock() + 2 * YEAR

    reviewed = holds.review(hold.id, review_at=later, by=second)

    assert (reviewed.review_at, reviewed.release_asked_at) == (later, None)
    with pytest.raises(ReleaseNotAsked):
        holds.release(hold.id, by=second)
    with pytest.raises(BadHold):
        holds.review(hold.id, review_at=house.clock(), by=second)
    assert house.event_types().count("hold.reviewed") == 1


def test_an_ended_hold_is_neither_reviewed_nor_ended_again(house: House) -> None:
    """It is history: the same grounds again are a new hold."""
    hold = house.lift(house.hold(house.person()))

    with pytest.raises(HoldEnded):
        house.desk.holds.review(hold.id, review_at=house.clock() + YEAR, by=house.officer)
    with pytest.raises(HoldEnded):
        house.desk.holds.ask_release(hold.id, by=house.officer)


def test_a_stale_step_is_refused(house: House, second: Personal) -> None:
    """Compare-and-set: who read the hold before another changed it reads it again first."""
    holds, hold = house.desk.holds, house.hold(house.person())
    holds.ask_release(hold.id, by=house.officer, version=1)

    for step in (
        lambda: holds.release(hold.id, by=second, version=1),
        lambda: holds.ask_release(hold.id, by=second, version=1),
        lambda: holds.review(hold.id, review_at=house.clock() + YEAR, by=second, version=1),
    ):
        with pytest.raises(HoldChanged):
            step()


def test_a_hold_is_ended_also_while_its_person_is_being_erased(house: House, second: Personal) -> None:
    """A part that is free is erased meanwhile: RULES 18 lets nothing be sealed for the person, a hold still ends."""
    person = house.person()
    hold = house.hold(person)
    with house.engine.begin() as conn:
        mark_erasing(conn, person)
    house.keystore.forbid(person)

    house.desk.holds.review(hold.id, review_at=house.clock() + 2 * YEAR, by=second)
    house.desk.holds.ask_release(hold.id, by=house.officer)
    assert not house.desk.holds.release(hold.id, by=second).is_active


def test_a_hold_comes_too_late_once_the_erasure_has_begun(house: House) -> None:
    """A hold that could not keep what it names is refused, not promised."""
    person = house.person()
    with house.engine.begin() as conn:
        mark_erasing(conn, person)

    with pytest.raises(SubjectErasing):
        house.hold(person)

    assert house.desk.holds.list() == []


def test_a_late_review_is_told_of_once(house: House) -> None:
    """Issue: an overdue review is an alarm, in the same transaction as its entry; a review re-arms it."""
    told: list[DeskAlarm] = []
    parts = replace(house.desk._parts, notify=lambda _conn, alarm: told.append(alarm))
    holds = Holds(parts, ("notes",))
    hold, ended = house.hold(house.person()), house.lift(house.hold(house.person("Grace")))
    assert not ended.is_active
    assert holds.raise_alarms() == 0
    house.clock.now += YEAR

    assert [holds.raise_alarms() for _ in range(2)] == [1, 0]
    assert told == [DeskAlarm(hold.id, "review_overdue", hold.review_at)]
    holds.review(hold.id, review_at=house.clock() + YEAR, by=house.officer)
    house.clock.now += YEAR
    assert holds.raise_alarms() == 1

    assert house.event_types().count("hold.overdue") == 2


def test_a_notice_that_fails_leaves_the_alarm_to_be_raised(house: House) -> None:
    """Promise 1: alarm, entry and notice are one transaction."""
    house.hold(house.person())
    house.clock.now += YEAR

    def fail(_conn: Connection, _alarm: DeskAlarm) -> None:
        raise OSError("gone")

    with pytest.raises(OSError, match="gone"):
        Holds(replace(house.desk._parts, notify=fail), ("notes",)).raise_alarms()

    assert house.desk.holds.raise_alarms() == 1
    assert house.event_types().count("hold.overdue") == 1


def test_holds_are_listed_by_person_state_and_review(house: House) -> None:
    """What is to be looked at first stands first; pages have an end."""
    ada, grace = house.person("Ada"), house.person("Grace")
    first, ended = house.hold(ada), house.lift(house.hold(ada, "notes"))
    holds = house.desk.holds
    later = holds.review(house.hold(grace).id, review_at=house.clock() + 2 * YEAR, by=house.officer)

    assert list(holds.list(is_active=True)) == [first, later]
    assert list(holds.list(is_active=False)) == [ended]
    assert {hold.id for hold in holds.list(subject_id=ada)} == {first.id, ended.id}
    assert later not in holds.list(review_before=house.clock() + YEAR + timedelta(days=1))
    assert list(holds.list(limit=1, offset=2)) == [later]
    assert (holds.total(), holds.total(is_active=True), holds.total(subject_id=grace)) == (3, 2, 1)
    assert list(holds.active(ada)) == [first]


def test_a_hold_and_its_entry_commit_together(house: House) -> None:
    """Promise 1: where the entry cannot be staged, there is no hold, and none ends."""
    person = house.person()
    kept = house.hold(person)
    steps: list[Callable[[], Hold]] = [
        lambda: house.hold(person),
        lambda: house.desk.holds.ask_release(kept.id, by=house.officer),
        lambda: house.desk.holds.review(kept.id, review_at=house.clock() + YEAR, by=house.officer),
    ]

    def fail(_conn: object, _cursor: object, statement: str, *_rest: object) -> None:
        if "INTO audit_pending" in statement:
            raise OSError("gone")

    event.listen(house.engine, "before_cursor_execute", fail)
    for step in steps:
        with pytest.raises(OSError, match="gone"):
            step()
    event.remove(house.engine, "before_cursor_execute", fail)

    assert list(house.desk.holds.list()) == [kept]


def test_of_two_that_agree_at_once_one_ends_it(postgresql_house: House) -> None:
    """DESIGN: the same promises in production; one entry, whoever races."""
    house = postgresql_house
    holds, hold = house.desk.holds, house.hold(house.person())
    holds.ask_release(hold.id, by=house.officer)
    others = [Personal(house.person(f"officer {n}"), f"officer {n}") for n in range(3)]

    def agree(by: Personal) -> bool:
        try:
            return not holds.release(hold.id, by=by).is_active
        except HoldChanged:
            return False

    with ThreadPoolExecutor(3) as pool:
        assert any(pool.map(agree, others))

    assert house.event_types().count("hold.lifted") == 1
    with reading(house.engine) as conn:
        assert conn.scalar(select(privacy_holds.c.version)) == 3
