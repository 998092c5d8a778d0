"""Art. 19: whoever got copies is told of the erasure, under the name they know, before that name is forgotten."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from datetime import timedelta
from typing import TYPE_CHECKING, Any

import pytest
from sqlalchemy import text

from audit.entry import parse_entry
from audit.events import Retention
from audit.reading import reading
from audit.store import each_entry
from compliance import PrivacyDesk, Status
from compliance.erasures.receipt import verify
from compliance.parts import Telling
from compliance.requests.cases import Case

if TYPE_CHECKING:
    from conftest import House

SINK = "siem.example"


class Listener:
    """A sink that takes the news when the test says so."""

    def __init__(self) -> None:
        self.state = Telling.WAITING
        self.asked: list[str] = []

    def __call__(self, entry_id: str) -> Mapping[str, Telling]:
        self.asked.append(entry_id)
        return {SINK: self.state}


@pytest.fixture
def listener(house: House) -> Listener:
    """The house's desk, with a SIEM that has got nothing yet."""
    heard = Listener()
    house.desk = PrivacyDesk(replace(house.desk._parts, told=heard))
    return heard


def _known(house: House) -> str:
    """A person whom a SIEM knows."""
    person = house.person("canary-ada")
    house.sequence()
    house.keystore.pseudonym(person)
    return person


def _erase(house: House, person: str) -> Case:
    case = house.desk.open("erasure", person, requested_by=house.officer)
    return house.desk.run(house.desk.approve(case.id, by=house.officer).id)


def _news(house: House) -> list[Any]:
    house.sequence()
    with reading(house.engine) as conn:
        entries = [parse_entry(stored.canonical) for stored in each_entry(conn)]
    return [entry for entry in entries if entry.members["event_type"] == "privacy.told"]


def test_the_name_stays_until_the_siem_was_told(house: House, listener: Listener) -> None:
    """The data and the keys are gone at once; name and receipt wait for the SIEM."""
    person = _known(house)

    waiting = _erase(house, person)

    assert (waiting.status, waiting.last_error) == (Status.RUNNING, "RECIPIENTS_NOT_TOLD")
    assert house.place.count(person) == 0
    assert house.keystore.keys_of(person, Retention.PARTICIPATION) == []
    assert house.keystore.known_pseudonym(person) is not None
    listener.state = Telling.TOLD
    (done,) = house.desk.resume_open()
    assert done.status is Status.COMPLETED
    assert house.keystore.known_pseudonym(person) is None
    payload = verify(str(done.receipt), house.public_keys())
    assert payload["recipients"] == [{"name": SINK, "told": "2026-11-24T12:00:00Z"}]


def test_the_news_can_be_rendered_under_the_name(house: House, listener: Listener) -> None:
    """RULES 28: the entry is sealed under a key of the person's, from which the forwarder finds the pseudonym."""
    person = _known(house)
    name = house.keystore.known_pseudonym(person)

    case = _erase(house, person)

    (news,) = _news(house)
    assert listener.asked[-1] == news.id
    assert news.details["case_id"] == case.id
    assert news.details["recipients"] == [SINK]
    key = news.details["subject"]["key"]  # type: ignore[call-overload,index]
    assert house.keystore.subject_of(str(key)) == person
    assert house.keystore.known_pseudonym(person) == name


def test_a_siem_that_is_down_holds_the_receipt_up_for_a_day_at_most(house: House, listener: Listener) -> None:
    """A dead sink must not keep a name for ever; the receipt then says that it was not told."""
    person = _known(house)
    case = _erase(house, person)
    house.clock.advance(timedelta(hours=23, minutes=59))
    assert house.desk.resume_open()[0].status is Status.RUNNING
    house.clock.advance(timedelta(minutes=1))

    (done,) = house.desk.resume_open()

    assert (done.id, done.status) == (case.id, Status.COMPLETED)
    assert verify(str(done.receipt), house.public_keys())["recipients"] == [{"name": SINK, "told": None}]
    assert house.keystore.known_pseudonym(person) is None


def test_a_siem_that_refused_the_news_was_not_told(house: House, listener: Listener) -> None:
    """A dead letter is no telling: the operator sees in the receipt whom to write to."""
    listener.state = Telling.REFUSED

    done = _erase(house, _known(house))

    assert done.status is Status.COMPLETED
    assert verify(str(done.receipt), house.public_keys())["recipients"] == [{"name": SINK, "told": None}]


def test_waiting_moves_the_request_once(house: House, listener: Listener) -> None:
    """Each look is no change: an officer who has the request open is not told that somebody moved it."""
    first = _erase(house, _known(house))

    again = [house.desk.resume_open()[0] for _ in range(3)]

    assert {case.version for case in again} == {first.version}
    assert len(_news(house)) == 1


def test_who_is_unknown_to_every_siem_is_not_told_of(house: House, listener: Listener) -> None:
    """Without a name there is no copy to erase, and nothing to wait for."""
    done = _erase(house, house.person())

    assert done.status is Status.COMPLETED
    assert listener.asked == []
    assert _news(house) == []


def test_a_crash_after_the_news_tells_it_once(house: House, listener: Listener) -> None:
    """RULES 2: what was told and destroyed is written down in one transaction."""
    person = _known(house)
    _erase(house, person)
    listener.state = Telling.TOLD
    forget, house.keystore.forget_pseudonym = house.keystore.forget_pseudonym, _die  # type: ignore[method-assign]
    with pytest.raises(KeyboardInterrupt):
        house.desk.resume_open()
    house.keystore.forget_pseudonym = forget  # type: ignore[method-assign]

    (done,) = house.desk.resume_open()

    assert done.status is Status.COMPLETED
    assert len(_news(house)) == 1


def test_dead_letters_of_the_person_are_forgotten_with_it(house: House) -> None:
    """What a SIEM refused waits on this side: the letters of the person go, those of others stay."""
    person, other = house.person(), house.person()
    house.sequence()
    with house.engine.begin() as conn:
        for seq in (0, 1):
            conn.execute(
                text("INSERT INTO siem_dead_letters VALUES ('s', :seq, 'bad', '2026-11-24')"), {"seq": seq}
            )

    done = _erase(house, person)

    with reading(house.engine) as conn:
        assert list(conn.execute(text("SELECT seq FROM siem_dead_letters")).scalars()) == [1]
    places = {line["name"]: line for line in verify(str(done.receipt), house.public_keys())["places"]}
    assert (places["siem_dead_letters"]["found"], places["siem_dead_letters"]["left"]) == (1, 0)
    assert house.place.count(other) == 1


def _die(_subject: str) -> bool:
    raise KeyboardInterrupt
