"""Restriction, objection, rectification: the desk completes them together with what their carrier writes."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import pytest
from request_desk import entries, opened, use
from sqlalchemy import Connection, text

from compliance.errors import CorrectionNeeded, NotNow, UnsupportedRequest
from compliance.requests.cases import Case, RequestType, Status

if TYPE_CHECKING:
    from conftest import House


@dataclass
class Forgetting:
    """A carrier as the gateway has one for each type: this one takes a note away, if it may."""

    waits: bool = False
    fails: bool = False
    seen: list[Case] = field(default_factory=list)

    def prepare(self, case: Case, /) -> Callable[[Connection], None]:
        if self.waits:
            raise NotNow
        self.seen.append(case)

        def write(conn: Connection) -> None:
            conn.execute(text("DELETE FROM notes WHERE subject_id = :subject"), {"subject": case.subject_id})
            if self.fails:
                raise OSError("disk gone")

        return write


@pytest.mark.parametrize("kind", [RequestType.RESTRICTION, RequestType.OBJECTION, RequestType.RECTIFICATION])
def test_a_request_is_completed_with_what_its_carrier_writes(house: House, kind: RequestType) -> None:
    """One transaction, one entry: both or none."""
    carrier = Forgetting()
    desk = use(house, carriers={kind: carrier})
    case = _approved(house, kind)

    done = desk.run(case.id)

    assert (done.status, done.attempts, house.place.count(case.subject_id)) == (Status.COMPLETED, 1, 0)
    assert [one.id for one in carrier.seen] == [case.id]
    assert entries(house, "privacy.moved")[-1]["to_status"] == "completed"
    assert desk.run(case.id) == done


def test_a_carrier_that_must_wait_is_asked_again(house: House) -> None:
    """As an erasure waits for a frozen cohort."""
    carrier = Forgetting(waits=True)
    desk = use(house, carriers={RequestType.OBJECTION: carrier})
    case = _approved(house, RequestType.OBJECTION)

    waiting = desk.run(case.id)
    carrier.waits = False
    (done,) = desk.resume_open()

    assert (waiting.status, waiting.last_error) == (Status.APPROVED, "NOT_NOW")
    assert (done.status, done.last_error, done.attempts) == (Status.COMPLETED, None, 2)


def test_a_carrier_that_fails_leaves_the_request_as_it_was(house: House) -> None:
    """What it wrote is rolled back with the move; the failure is shown, and it is tried again."""
    carrier = Forgetting(fails=True)
    desk = use(house, carriers={RequestType.RESTRICTION: carrier})
    case = _approved(house, RequestType.RESTRICTION)

    (failed,) = desk.resume_open()

    assert (failed.status, failed.last_error, failed.attempts) == (Status.APPROVED, "OSError", 1)
    assert house.place.count(case.subject_id) == 1


def test_a_try_that_fails_again_takes_no_officers_version_away(house: House) -> None:
    """The version counts moves: who has read the request can still withdraw it, however often it was tried since."""
    desk = use(house, carriers={RequestType.RESTRICTION: Forgetting(fails=True)})
    case = _approved(house, RequestType.RESTRICTION)

    tried = [desk.resume_open()[0] for _ in range(3)][-1]

    assert (tried.attempts, tried.last_error, tried.version) == (3, "OSError", case.version)
    assert desk.withdraw(case.id, by=house.officer, version=case.version).status is Status.WITHDRAWN


def test_a_type_that_nobody_carries_out_is_not_taken_down(house: House) -> None:
    """And if its carrier is gone since, the request waits and says why."""
    case = _with_carrier(house)

    desk = use(house, carriers={})
    with pytest.raises(UnsupportedRequest):
        opened(house, "objection")

    assert desk.resume_open()[0].last_error == "REQUEST_TYPE_UNSUPPORTED"
    assert desk.show(case.id).status is Status.APPROVED


def test_a_rectification_says_what_is_to_be_put_right(house: House) -> None:
    """Art. 16: without it there is nothing to do; it is kept sealed, under the person's key."""
    use(house, carriers={RequestType.RECTIFICATION: Forgetting()})

    with pytest.raises(CorrectionNeeded):
        opened(house, "rectification")
    case = opened(house, "rectification", correction={"name": "canary-name"})

    assert case.correction is not None
    told = house.sealer.open_column(case.correction, "privacy_requests", "correction", case.id)
    assert told == {"name": "canary-name"}
    assert house.keystore.subject_of(case.correction["key"]) == case.subject_id
    assert b"canary-name" not in house.every_byte()


def _with_carrier(house: House) -> Case:
    use(house, carriers={RequestType.OBJECTION: Forgetting()})
    return _approved(house, RequestType.OBJECTION)


def _approved(house: House, kind: RequestType) -> Case:
    beside = {"correction": {"name": "Ada"}} if kind is RequestType.RECTIFICATION else {}
    return house.desk.approve(opened(house, kind, **beside).id, by=house.officer)
