"""Who does what with a request: owners, approvals by two, grounds of a refusal, repetitions, lists."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta
from typing import TYPE_CHECKING

import pytest
from request_desk import entries, officer_named, opened, use

from compliance.errors import ApprovalNeedsAnother, BadRefusal, CaseChanged, CorrectionNeeded, MoveNotAllowed
from compliance.requests.cases import RequestType, Status
from compliance.requests.listing import CaseFilter
from compliance.requests.reasons import Exemption, Refusal

if TYPE_CHECKING:
    from conftest import House


@pytest.fixture(params=["house", "postgresql_house"])
def either(request: pytest.FixtureRequest) -> House:
    """The house on SQLite, and on PostgreSQL."""
    built: House = request.getfixturevalue(request.param)
    return built


# Owners


def test_a_request_is_taken_in_hand_and_by_another_taken_over(house: House) -> None:
    """One entry each time; the name is sealed under the owner's own key; one's own again changes nothing."""
    case, other = opened(house), officer_named(house, "canary-officer")

    mine = house.desk.take(case.id, by=house.officer)
    again = house.desk.take(case.id, by=house.officer)
    theirs = house.desk.take(case.id, by=other)

    assert again == mine
    assert mine.owner is not None
    assert theirs.owner is not None
    assert house.keystore.subject_of(mine.owner["key"]) == house.officer.subject
    assert house.keystore.subject_of(theirs.owner["key"]) == other.subject
    assert [entry["transition"] for entry in entries(house, "privacy.moved")] == ["take", "take"]
    assert b"canary-officer" not in house.every_byte()


def test_nobody_takes_a_closed_request_or_one_that_moved(house: House) -> None:
    """Compare-and-set on the version, as with every move."""
    case = opened(house)
    house.desk.review(case.id, by=house.officer)
    with pytest.raises(CaseChanged):
        house.desk.take(case.id, by=house.officer, version=case.version)

    house.desk.withdraw(case.id, by=house.officer)

    with pytest.raises(MoveNotAllowed):
        house.desk.take(case.id, by=house.officer)


# Approvals


def test_a_second_person_approves_where_that_is_asked_for(house: House) -> None:
    """Who asked may not approve alone: off by default, on by `may_approve_alone=False`."""
    case, other = opened(house, may_approve_alone=False), officer_named(house, "other")

    with pytest.raises(ApprovalNeedsAnother):
        house.desk.approve(case.id, by=house.officer)

    assert house.desk.approve(case.id, by=other).status is Status.APPROVED


def test_an_erasure_waits_for_two_people(house: House) -> None:
    """FLG_ERASURE_APPROVALS=2: the first approval is noted, a second one by the same person refused."""
    desk, other = use(house, erasure_approvals=2), officer_named(house, "other")
    case = opened(house, "erasure")

    once = desk.approve(case.id, by=house.officer)
    with pytest.raises(ApprovalNeedsAnother):
        desk.approve(case.id, by=house.officer)
    ran = desk.run(case.id)
    twice = desk.approve(case.id, by=other)

    assert (once.status, desk.approvals_given(once), desk.approvals_needed(once)) == (Status.IN_REVIEW, 1, 2)
    assert ran == once  # nothing is carried out on one word
    assert (twice.status, desk.approvals_given(twice)) == (Status.APPROVED, 2)
    steps = [(entry["from_status"], entry["to_status"]) for entry in entries(house, "privacy.moved")]
    assert steps == [("received", "in_review"), ("in_review", "approved")]


def test_an_access_needs_one_person_also_where_an_erasure_needs_two(house: House) -> None:
    """What can be undone, or gives nothing away to others, needs no second word."""
    desk = use(house, erasure_approvals=2)

    assert desk.approve(opened(house).id, by=house.officer).status is Status.APPROVED


def test_an_erasure_that_rested_is_approved_anew_by_two(house: House) -> None:
    """What the first person looked at may have changed."""
    desk, other = use(house, erasure_approvals=2), officer_named(house, "other")
    case = opened(house, "erasure")
    desk.approve(case.id, by=other)
    desk.hold(case.id, by=house.officer, reason="a lawsuit")

    desk.resume(case.id, by=house.officer)

    assert desk.approve(case.id, by=house.officer).status is Status.IN_REVIEW
    assert desk.approve(case.id, by=other).status is Status.APPROVED


def test_of_two_first_approvals_at_once_one_counts(either: House) -> None:
    """The other one is told that the request moved, and looks again."""
    desk = use(either, erasure_approvals=2)
    officers = [officer_named(either, f"officer {number}") for number in range(4)]
    case = opened(either, "erasure")

    def approved(number: int) -> bool:
        try:
            return bool(desk.approve(case.id, by=officers[number], version=case.version))
        except CaseChanged:
            return False

    with ThreadPoolExecutor(4) as pool:
        counted = list(pool.map(approved, range(4)))

    assert counted.count(True) == 1
    assert desk.show(case.id).status is Status.IN_REVIEW


# Refusals


@pytest.mark.parametrize("reason", list(Refusal))
def test_a_refusal_has_a_ground_and_its_note_is_sealed(house: House, reason: Refusal) -> None:
    """Art. 12(4): the ground is a code that the entry tells; what else was thought is nobody's business."""
    case = opened(house, "erasure")
    letter = Exemption.LEGAL_CLAIMS if reason is Refusal.EXEMPT else None

    refused = house.desk.refuse(
        case.id, by=house.officer, reason=reason, exemption=letter, note="canary-note"
    )

    assert (refused.status, refused.refusal, refused.exemption) == (Status.REFUSED, reason, letter)
    (entry,) = entries(house, "privacy.moved")
    assert (entry["refusal"], entry.get("exemption")) == (reason.value, letter.value if letter else None)
    assert b"canary-note" not in house.every_byte()


@pytest.mark.parametrize(
    ("kind", "reason", "exemption"),
    [
        ("erasure", Refusal.EXEMPT, None),
        ("erasure", Refusal.EXCESSIVE, Exemption.ARCHIVE),
        ("access", Refusal.EXEMPT, Exemption.ARCHIVE),
    ],
)
def test_an_exemption_names_its_letter_and_is_for_erasures(
    house: House, kind: str, reason: Refusal, exemption: Exemption | None
) -> None:
    """Art. 17(3) is an exception to Art. 17."""
    case = opened(house, kind)

    with pytest.raises(BadRefusal):
        house.desk.refuse(case.id, by=house.officer, reason=reason, exemption=exemption)

    assert house.desk.show(case.id) == case


def test_what_has_begun_is_neither_refused_nor_stopped(house: House) -> None:
    """Half an erasure cannot be taken back: it rests or goes on by itself, and ends."""
    case = opened(house, "erasure")
    house.place.is_frozen = True
    begun = house.desk.run(house.desk.approve(case.id, by=house.officer).id)
    assert begun.is_begun

    for move, more in (
        ("refuse", {"reason": Refusal.EXCESSIVE}),
        ("withdraw", {}),
        ("hold", {}),
        ("resume", {}),
    ):
        with pytest.raises(MoveNotAllowed):
            getattr(house.desk, move)(case.id, by=house.officer, **more)


# Repetitions


def test_a_repetition_is_linked_to_the_first_open_one_and_never_dropped(house: House) -> None:
    """The same person and type; another type, another person, or an answered request is no repetition."""
    person = house.person()

    def ask(kind: str) -> str | None:
        return house.desk.open(kind, person, requested_by=house.officer).duplicate_of

    first = house.desk.open("access", person, requested_by=house.officer)
    house.clock.advance(timedelta(seconds=1))
    assert (ask("access"), ask("access"), ask("erasure")) == (first.id, first.id, None)
    assert opened(house).duplicate_of is None
    for case in house.desk.cases(subject_id=person):
        house.desk.withdraw(case.id, by=house.officer)

    assert ask("access") is None
    assert len(house.desk.cases(subject_id=person)) == 5
    linked = [entry.get("duplicate_of") for entry in entries(house, "privacy.requested")]
    assert linked == [None, first.id, first.id, None, None, None]


def test_of_requests_at_once_one_is_the_first(either: House) -> None:
    """The others are linked to it, whoever comes in when."""
    person = either.person()

    with ThreadPoolExecutor(4) as pool:
        cases = list(
            pool.map(lambda _: either.desk.open("access", person, requested_by=either.officer), range(8))
        )

    (first,) = [case for case in cases if case.duplicate_of is None]
    assert {case.duplicate_of for case in cases} == {None, first.id}


# Lists


def test_requests_are_listed_by_page_those_due_first_first(either: House) -> None:
    """Each filter lets through what it says, and the pages together are all of them."""
    desk, now = either.desk, either.clock()
    cases = [
        opened(either, kind, received_at=now - timedelta(days=days))
        for kind, days in (("access", 1), ("erasure", 9), ("access", 5), ("portability", 3))
    ]
    late, middle = cases[1], cases[2]
    desk.take(late.id, by=either.officer)
    desk.review(middle.id, by=either.officer)

    def ids(wanted: CaseFilter, **page: int) -> list[str]:
        return [case.id for case in desk.page(wanted, **page)[0]]

    order = [cases[place].id for place in (1, 2, 3, 0)]
    assert ids(CaseFilter()) == order
    assert ids(CaseFilter(), limit=2, offset=1) == order[1:3]
    assert desk.page(CaseFilter(), limit=1)[1] == 4
    assert ids(CaseFilter(status=Status.IN_REVIEW)) == [middle.id]
    assert ids(CaseFilter(type=RequestType.ACCESS)) == [cases[2].id, cases[0].id]
    assert ids(CaseFilter(subject_id=late.subject_id)) == [late.id]
    assert ids(CaseFilter(due_before=middle.due_at)) == [late.id]
    assert ids(CaseFilter(is_owned=True)) == [late.id]
    assert ids(CaseFilter(is_owned=False)) == order[1:]


# Corrections


def test_only_a_rectification_says_what_is_to_be_put_right(house: House) -> None:
    """Art. 16: an access that bears a correction was meant otherwise."""
    with pytest.raises(CorrectionNeeded):
        opened(house, correction={"name": "Ada"})

    assert house.desk.cases() == []
