"""The clock of a request: since when it runs, when it stands still, how it is extended, whom it alarms (Art. 12)."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING

import pytest
from request_desk import entries, opened, use
from sqlalchemy import Connection

from compliance.errors import BadReceiptDay, MoveNotAllowed
from compliance.parts import DeskAlarm
from compliance.requests.cases import Status
from compliance.requests.deadlines import read_calendar
from compliance.requests.reasons import Refusal

if TYPE_CHECKING:
    from conftest import House

NOTICE = {"reason": "complex: canary-reason", "notice": "letter of today: canary-notice"}
DAY = timedelta(days=1)  # the house's clock begins on 24 November 2026, at noon


def test_a_letter_s_term_runs_from_the_day_it_came(house: House) -> None:
    """Art. 12(3): one month from receipt, not from the day on which somebody typed it in."""
    case = opened(house, received_at=datetime(2026, 10, 31, 9, tzinfo=UTC))

    assert case.due_at == datetime(2026, 11, 30, 23, 59, 59, tzinfo=UTC)
    assert house.desk.days_left(case) == 6
    assert entries(house, "privacy.requested")[0]["received_at"] == "2026-10-31T09:00:00+00:00"


@pytest.mark.parametrize("received", ["2026-11-24T12:00:01+00:00", "2018-05-24T12:00:00+00:00"])
def test_nothing_is_received_in_the_future_or_before_the_law(house: House, received: str) -> None:
    """A slip of the pen would set a term that nobody can keep."""
    with pytest.raises(BadReceiptDay):
        opened(house, received_at=datetime.fromisoformat(received))

    assert house.desk.cases() == []


def test_days_are_the_controllers(house: House) -> None:
    """FLG_TIMEZONE and FLG_HOLIDAYS: Christmas Eve in Berlin, then the holidays, then a weekend."""
    use(house, calendar=read_calendar("Europe/Berlin", "2026-12-24,2026-12-25"))

    case = opened(house)

    assert case.due_at == datetime(2026, 12, 28, 22, 59, 59, tzinfo=UTC)


def test_the_clock_stands_still_while_a_proof_of_identity_is_owed(house: House) -> None:
    """Art. 12(6): ten days without proof are ten days more; the days left do not melt meanwhile."""
    case = opened(house)
    waiting = house.desk.identify(case.id, by=house.officer)
    house.clock.advance(10 * DAY + timedelta(hours=5))
    left = house.desk.days_left(house.desk.show(case.id))

    known = house.desk.review(case.id, by=house.officer)

    assert (waiting.status, waiting.paused_at is None, left) == (Status.AWAITING_IDENTITY, False, 30)
    assert (known.paused_at, known.paused_s) == (None, 10 * 86_400 + 5 * 3600)
    assert known.due_at == case.due_at + 10 * DAY
    assert entries(house, "privacy.moved")[-1]["due_at"] == known.due_at.isoformat()


def test_no_other_state_stops_the_clock(house: House) -> None:
    """A request that rests, or is on review, is due all the same."""
    case = opened(house)
    house.desk.hold(case.id, by=house.officer, reason="asked")
    house.clock.advance(10 * DAY)

    resumed = house.desk.resume(case.id, by=house.officer)

    assert (resumed.due_at, house.desk.days_left(resumed)) == (case.due_at, 20)


def test_resting_is_no_way_around_the_proof(house: House) -> None:
    """Art. 12(6): who did not show who they are gets no answer by way of a hold and its end."""
    case = house.desk.identify(opened(house).id, by=house.officer)

    for move in ("hold", "approve", "resume"):
        with pytest.raises(MoveNotAllowed):
            getattr(house.desk, move)(case.id, by=house.officer)


def test_a_pause_ends_with_its_request(house: House) -> None:
    """A refused request has no clock that stands still."""
    case = house.desk.identify(opened(house).id, by=house.officer)

    refused = house.desk.refuse(case.id, by=house.officer, reason=Refusal.NOT_IDENTIFIED)

    assert (refused.paused_at, house.desk.days_left(refused)) == (None, None)


def test_a_term_is_extended_to_three_months_from_receipt_once(house: House) -> None:
    """Art. 12(3): with a reason and the notice, both sealed; the entry tells the new day."""
    case = opened(house, received_at=datetime(2026, 10, 31, 9, tzinfo=UTC))

    longer = house.desk.extend(case.id, by=house.officer, **NOTICE)

    assert longer.due_at == datetime(2027, 1, 31, 23, 59, 59, tzinfo=UTC)
    assert (longer.status, longer.extended_at) == (Status.RECEIVED, house.clock())
    moved = entries(house, "privacy.moved")[-1]
    assert (moved["transition"], moved["due_at"]) == ("extend", longer.due_at.isoformat())
    assert b"canary-" not in house.every_byte()
    with pytest.raises(MoveNotAllowed):
        house.desk.extend(case.id, by=house.officer, **NOTICE)


def test_a_term_is_extended_inside_its_first_month_alone(house: House) -> None:
    """Art. 12(3): the person must be told within one month of the receipt; a pause makes that month longer."""
    late, paused = opened(house), house.desk.identify(opened(house).id, by=house.officer)
    house.clock.now = late.due_at + timedelta(seconds=1)

    with pytest.raises(MoveNotAllowed):
        house.desk.extend(late.id, by=house.officer, **NOTICE)

    assert house.desk.extend(paused.id, by=house.officer, **NOTICE).extended_at == house.clock()


def test_a_pause_and_an_extension_add_up(house: House) -> None:
    """In either order: three months from receipt, and the days of the pause."""
    first, second = opened(house), opened(house)
    house.desk.extend(first.id, by=house.officer, **NOTICE)
    for case in (first, second):
        house.desk.identify(case.id, by=house.officer)
    house.clock.advance(5 * DAY)
    house.desk.review(first.id, by=house.officer)
    house.desk.review(second.id, by=house.officer)

    house.desk.extend(second.id, by=house.officer, **NOTICE)

    due = {house.desk.show(case.id).due_at for case in (first, second)}
    assert due == {datetime(2027, 3, 1, 23, 59, 59, tzinfo=UTC)}


def test_alarms_ring_once_each(house: House) -> None:
    """Three days without an owner, ten days left, five days left: an entry and a notice in one transaction."""
    told: list[DeskAlarm] = []
    desk = use(house, notify=lambda _conn, alarm: told.append(alarm))
    case = opened(house)
    rang = []

    for day in range(1, 32):
        house.clock.advance(DAY)
        rang.append((day, desk.raise_alarms() + desk.raise_alarms()))

    assert [day for day, count in rang if count] == [3, 20, 25]
    assert {count for _, count in rang} == {0, 1}
    alarms = ["no_owner", "days_left_10", "days_left_5"]
    assert told == [DeskAlarm(case.id, alarm, case.due_at) for alarm in alarms]
    logged = [(entry["case_id"], entry["alarm"]) for entry in entries(house, "privacy.alarmed")]
    assert logged == [(case.id, alarm) for alarm in alarms]


def test_a_request_that_comes_late_rings_the_urgent_alarm_alone(house: House) -> None:
    """Ten days and five at once are one thing to say; who has an owner needs none."""
    desk, case = house.desk, opened(house, received_at=house.clock() - 27 * DAY)
    desk.take(case.id, by=house.officer)

    assert (desk.raise_alarms(), desk.raise_alarms()) == (1, 0)
    assert entries(house, "privacy.alarmed")[0]["alarm"] == "days_left_5"


def test_an_answered_or_paused_request_rings_nothing(house: House) -> None:
    """Its clock has stopped, or stands still."""
    desk = house.desk
    done, paused = opened(house), opened(house)
    desk.run(desk.approve(done.id, by=house.officer).id)
    desk.take(paused.id, by=house.officer)
    desk.identify(paused.id, by=house.officer)
    house.clock.advance(60 * DAY)

    assert desk.raise_alarms() == 0


def test_an_extended_term_rings_again(house: House) -> None:
    """What rang for the first month says nothing of the third."""
    desk, case = house.desk, opened(house)
    desk.take(case.id, by=house.officer)
    house.clock.advance(20 * DAY)
    assert desk.raise_alarms() == 1
    longer = desk.extend(case.id, by=house.officer, **NOTICE)
    assert longer.alarms == ()

    house.clock.now = longer.due_at - 10 * DAY

    assert desk.raise_alarms() == 1


def test_an_alarm_without_its_notice_has_not_rung(house: House) -> None:
    """Entry, notice and mark commit together, or it rings again."""

    def broken(_conn: Connection, _alarm: DeskAlarm) -> None:
        raise OSError("no outbox")

    opened(house)
    house.clock.advance(3 * DAY)
    use(house, notify=broken)
    with pytest.raises(OSError, match="no outbox"):
        house.desk.raise_alarms()
    assert entries(house, "privacy.alarmed") == []

    assert use(house, notify=lambda _conn, _alarm: None).raise_alarms() == 1
