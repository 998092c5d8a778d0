"""A legal hold keeps what it covers; the rest is erased, and the erasure goes on by itself when it is lifted."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from datetime import timedelta
from typing import TYPE_CHECKING

import pytest

from audit.events import Retention
from audit.reading import reading
from compliance import ErasedCount, PrivacyDesk, Status
from compliance.erasures.receipt import verify
from compliance.errors import MoveNotAllowed
from compliance.requests.cases import Case
from compliance.requests.reasons import Exemption
from compliance.subjects import SubjectState, state_of

if TYPE_CHECKING:
    from collections.abc import Iterator

    from conftest import House

    from compliance.places import ExportPart


@dataclass
class Shelf:
    """A place that holds one thing of everybody."""

    name: str
    gone: set[str] = field(default_factory=set)

    def export(self, subject: str) -> Iterator[ExportPart]:
        return iter(())

    def erase(self, subject: str) -> ErasedCount:
        self.gone.add(subject)
        return ErasedCount(rows=1)

    def count(self, subject: str) -> int:
        return int(subject not in self.gone)


@pytest.fixture
def shelves(house: House) -> dict[str, Shelf]:
    """The desk with three places, of which the third leads to the second."""
    made = {name: Shelf(name) for name in ("free", "updates", "clients")}
    parts = replace(house.desk._parts, places=tuple(made.values()), leads={"clients": frozenset({"updates"})})
    house.desk = PrivacyDesk(parts)
    return made


def _hold(house: House, person: str, *scope: str) -> str:
    review = house.clock() + timedelta(days=90)
    place = house.desk.holds.place
    basis = Exemption("e")
    return place(person, matter="a claim", scope=scope, basis=basis, review_at=review, by=house.officer).id


def _lift(house: House, hold_id: str) -> None:
    house.desk.holds.ask_release(hold_id, by=house.officer)
    house.desk.holds.release(hold_id, by=replace(house.officer, subject=house.person("second")))


def _erase(house: House, person: str) -> Case:
    case = house.desk.open("erasure", person, requested_by=house.officer)
    return house.desk.run(house.desk.approve(case.id, by=house.officer).id)


def test_what_is_free_is_erased_and_what_is_held_stays(house: House, shelves: dict[str, Shelf]) -> None:
    """Art. 17(3): what is held, what leads to it, and the keys that open it stay; the request rests."""
    person = house.person()
    _hold(house, person, "updates")

    resting = _erase(house, person)

    assert resting.status is Status.ON_HOLD
    assert {name: shelf.count(person) for name, shelf in shelves.items()} == {
        "free": 0,
        "updates": 1,
        "clients": 1,
    }
    assert len(house.keystore.keys_of(person, Retention.PARTICIPATION)) == 1
    assert not house.keystore.is_forbidden(person)  # a restore must bring back what is held
    with reading(house.engine) as conn:
        assert state_of(conn, person) is SubjectState.ERASING
    assert resting.receipt is None


def test_the_erasure_goes_on_by_itself_when_the_hold_is_lifted(
    house: House, shelves: dict[str, Shelf]
) -> None:
    """Partial progress is kept: the receipt tells when each place was emptied."""
    person = house.person()
    hold = _hold(house, person, "updates")
    resting = _erase(house, person)
    assert house.desk.resume_open() == []
    house.clock.advance(timedelta(days=1))
    _lift(house, hold)

    (done,) = house.desk.resume_open()

    assert (done.id, done.status) == (resting.id, Status.COMPLETED)
    places = {line["name"]: line for line in verify(str(done.receipt), house.public_keys())["places"]}
    assert (places["free"]["found"], places["free"]["at"]) == (1, "2026-11-24T12:00:00Z")
    assert places["updates"]["at"] == "2026-11-25T12:00:00Z"
    assert not any(shelf.count(person) for shelf in shelves.values())
    assert house.keystore.keys_of(person, Retention.PARTICIPATION) == []
    assert house.event_types().count("intent.erase") == 2


def test_the_receipt_lists_every_request_and_hold_that_stays(house: House, shelves: dict[str, Shelf]) -> None:
    """Issue: exceptions with legal basis and date; an answered request and a lifted hold are kept as proof."""
    person = house.person()
    house.desk.open("access", person, requested_by=house.officer)
    hold = _hold(house, person, "updates")
    _erase(house, person)
    _lift(house, hold)

    (done,) = house.desk.resume_open()

    exceptions = verify(str(done.receipt), house.public_keys())["exceptions"]
    assert [line["count"] for line in exceptions[1:]] == [2, 1]
    assert all(line["until"] and "Art." in line["basis"] for line in exceptions)
    assert shelves["updates"].count(person) == 0


def test_lifting_one_of_two_holds_frees_what_the_other_does_not_cover(
    house: House, shelves: dict[str, Shelf]
) -> None:
    """The request rests again on what is still held."""
    person = house.person()
    first, second = _hold(house, person, "free"), _hold(house, person, "updates")
    _erase(house, person)
    assert shelves["free"].count(person) == 1
    _lift(house, first)

    (resting,) = house.desk.resume_open()

    assert (resting.status, shelves["free"].count(person)) == (Status.ON_HOLD, 0)
    _lift(house, second)
    assert house.desk.resume_open()[0].status is Status.COMPLETED


def test_a_hold_on_everything_stops_an_erasure_that_nobody_has_to_approve_again(house: House) -> None:
    """It was approved: with the hold its only obstacle is gone."""
    person = house.person()
    hold = _hold(house, person, "*")
    held = _erase(house, person)
    assert held.status is Status.ON_HOLD
    with reading(house.engine) as conn:
        assert state_of(conn, person) is SubjectState.ACTIVE
    assert house.desk.resume_open() == []
    _lift(house, hold)

    (done,) = house.desk.resume_open()

    assert done.status is Status.COMPLETED


def test_an_erasure_that_a_person_lets_rest_does_not_go_on_by_itself(house: House) -> None:
    """`hold` and `resume` are an officer's: they have nothing to do with legal holds."""
    person = house.person()
    legal = _hold(house, person, "*")
    held = _erase(house, person)
    house.desk.resume(held.id, by=house.officer)
    house.desk.hold(held.id, by=house.officer, reason="a question")
    _lift(house, legal)

    assert house.desk.resume_open() == []

    assert house.desk.show(held.id).status is Status.ON_HOLD


def test_a_half_done_erasure_cannot_be_taken_back(house: House, shelves: dict[str, Shelf]) -> None:
    """Part of the data is gone: the request neither is withdrawn nor refused."""
    person = house.person()
    _hold(house, person, "updates")
    resting = _erase(house, person)

    for move in (house.desk.withdraw, house.desk.resume):
        with pytest.raises(MoveNotAllowed):
            move(resting.id, by=house.officer)

    assert shelves["free"].count(person) == 0
