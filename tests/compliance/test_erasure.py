"""Erasure: whatever crashes or waits, it ends, nothing of the person can be read, the receipt says so."""

from __future__ import annotations

import shutil
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from datetime import timedelta
from typing import TYPE_CHECKING

import pytest
from sqlalchemy import event, text

from audit.draft import Personal
from audit.entry import Sealed, parse_entry
from audit.errors import KeyDestroyed
from audit.events import EventType, Retention
from audit.reading import reading
from audit.store import each_entry
from compliance import KeyStore, Status, SubjectErasing, SubjectSealer
from compliance.erasures.erasure import erase_everywhere
from compliance.erasures.receipt import verify
from compliance.errors import NoPackage, SubjectErased
from compliance.log_place import LogPlace
from compliance.requests.cases import Case
from compliance.requests.reasons import Refusal
from compliance.subjects import SubjectState, state_of

if TYPE_CHECKING:
    from conftest import House


class PowerCut(BaseException):
    """The process dies here."""


def _approved(house: House, person: str) -> Case:
    case = house.desk.open("erasure", person, requested_by=house.officer)
    return house.desk.approve(case.id, by=house.officer)


def _erased(house: House, person: str) -> Case:
    return house.desk.run(_approved(house, person).id)


def _readable(house: House, sealer: SubjectSealer) -> list[object]:
    """Every sealed field of the log that opens."""
    house.sequence()
    opened: list[object] = []
    with reading(house.engine) as conn:
        entries = [parse_entry(stored.canonical) for stored in each_entry(conn)]
    for entry in entries:
        for name, value in [("actor", entry.members["actor"]), *_details(entry.details)]:
            sealed = Sealed.read(value)
            if sealed is not None:
                try:
                    opened.append(sealer.open(sealed, f"{entry.id}.{name}"))
                except KeyDestroyed:
                    continue
    return opened


def _details(details: object) -> list[tuple[str, object]]:
    return [(f"details.{name}", value) for name, value in details.items()]  # type: ignore[attr-defined]


def test_an_erased_person_is_readable_nowhere(house: House) -> None:
    """Promise 5: rows are gone, and the log's fields are noise without the key; others stay."""
    person, other = house.person("canary-ada"), house.person("canary-bob")
    assert "canary-ada" in _readable(house, house.sealer)

    case = _erased(house, person)

    readable = _readable(house, house.sealer)
    assert case.status is Status.COMPLETED
    assert "canary-ada" not in readable
    assert "canary-bob" in readable
    assert house.place.count(person) == 0
    assert house.place.count(other) == 1
    with reading(house.engine) as conn:
        assert state_of(conn, person) is SubjectState.ERASED


def test_an_erasure_leaves_its_trail_in_order(house: House) -> None:
    """RULES 2: an intent before, its end after, each move one entry."""
    _erased(house, house.person())

    assert house.event_types() == [
        "client.registered",
        "privacy.requested",
        "privacy.moved",
        "intent.erase",
        "privacy.moved",
        "privacy.erased",
        "intent.erase",
        "privacy.moved",
    ]


def test_the_receipt_is_signed_and_names_nobody(house: House) -> None:
    """RULES 19: places with counts, what is left, what is kept and why, models, SIEM copies."""
    person = house.person("canary-ada")
    house.sequence()

    case = _erased(house, person)

    assert case.receipt is not None
    payload = verify(case.receipt, house.public_keys())
    assert payload["request_id"] == case.id
    assert person not in str(payload)
    assert payload["left"] == 0
    at = "2026-11-24T12:00:00Z"
    assert {"name": "notes", "found": 1, "method": "deleted", "left": 0, "at": at} in payload["places"]
    log_line = {"name": "audit_log", "found": 1, "method": "key_destroyed", "left": 0, "at": at}
    assert log_line in payload["places"]
    assert any(
        "accountability" in line["what"] and "17(3)" in line["basis"] for line in payload["exceptions"]
    )
    assert [model["first_version"] for model in payload["models"]] == ["1.0.1"]
    assert payload["recipients"] == [{"name": "siem.example", "told": None}]
    assert payload["backups_until"] == "2026-12-29"
    assert "all" not in str(payload["places"])
    assert payload["finished"] == "2026-11-24T12:00:00Z"


def test_a_person_can_ask_for_its_own_erasure(house: House) -> None:
    """Art. 17(1): the asker's own trail of asking stays as proof, its participation goes."""
    person = house.person("canary-ada")
    house.sequence()
    myself = Personal(person, "canary-ada asks")
    case = house.desk.open("erasure", person, requested_by=myself)

    done = house.desk.run(house.desk.approve(case.id, by=myself).id)

    readable = _readable(house, house.sealer)
    assert done.status is Status.COMPLETED
    assert "canary-ada" not in readable
    assert "canary-ada asks" in readable
    assert house.keystore.keys_of(person, Retention.PARTICIPATION) == []


def test_nothing_is_written_for_a_person_once_the_erasure_began(house: House) -> None:
    """RULES 18: neither with a key cached before, nor with a new one."""
    person = house.person()
    told = {"model_id": "m", "model_version": "1.0.0", "checksum": "0" * 64, "status": 200}
    late = house.trail.draft(EventType.MODEL_DOWNLOADED, details=told, actor=Personal(person, "late"))

    _erased(house, person)

    with pytest.raises(SubjectErased):
        house.trail.draft(EventType.MODEL_DOWNLOADED, details=told, actor=Personal(person, "later"))
    with house.engine.begin() as conn, pytest.raises(SubjectErasing):
        house.trail.write(conn, late)


@pytest.mark.parametrize("moment", ["before_places", "after_places", "after_keys"])
def test_an_erasure_that_was_killed_is_finished_at_the_next_start(house: House, moment: str) -> None:
    """RULES 2: every open intent is finished; what was erased already is not asked for twice."""
    person = house.person("canary-ada")
    case = _approved(house, person)

    def die() -> None:
        raise PowerCut

    if moment == "after_places":
        house.place.crash = die
    elif moment == "before_places":
        house.keystore.forbid, healthy = lambda _subject: die(), house.keystore.forbid  # type: ignore[method-assign]
    else:
        house.keystore.forget_pseudonym, healthy = lambda _subject: die(), house.keystore.forget_pseudonym  # type: ignore[method-assign]
    with pytest.raises(PowerCut):
        house.desk.run(case.id)
    assert house.desk.show(case.id).status is Status.RUNNING
    house.place.crash = lambda: None
    if moment == "before_places":
        house.keystore.forbid = healthy  # type: ignore[method-assign]
    elif moment == "after_keys":
        house.keystore.forget_pseudonym = healthy  # type: ignore[method-assign]

    (done,) = house.desk.resume_open()

    assert done.status is Status.COMPLETED
    assert verify(str(done.receipt), house.public_keys())["places"][0]["found"] == 1
    assert "canary-ada" not in _readable(house, house.sealer)
    assert house.event_types().count("intent.erase") == 2
    assert house.event_types().count("privacy.erased") == 1


def test_an_erasure_waits_for_a_frozen_cohort(house: House) -> None:
    """RULES 5: keys stay until the round is over, nothing is written meanwhile, then it ends by itself."""
    person = house.person("canary-ada")
    house.place.is_frozen = True

    waiting = _erased(house, person)

    assert (waiting.status, waiting.last_error, waiting.attempts) == (Status.RUNNING, "NOT_NOW", 1)
    assert len(house.keystore.keys_of(person, Retention.PARTICIPATION)) == 1
    assert "canary-ada" in _readable(house, house.sealer)
    with reading(house.engine) as conn:
        assert state_of(conn, person) is SubjectState.ERASING
    with pytest.raises(SubjectErased):
        house.keystore.key_for(person, Retention.ACCOUNTABILITY, house.clock())
    assert house.keystore.apply_state() == 0  # a restart does not take the keys from the round
    house.place.is_frozen = False
    assert house.desk.resume_open()[0].status is Status.COMPLETED


def test_what_comes_after_a_waiting_place_waits_too(house: House) -> None:
    """RULES 5: the client's row leads to its frozen update; erased first, the update would never be found."""
    first, second = (replace(house.place, name=name) for name in ("updates", "clients"))
    first.is_frozen = True
    person = house.person()
    log = LogPlace(house.engine, house.keystore, house.sealer)

    look = erase_everywhere(person, (first, second, log))

    assert look.problem == "NOT_NOW"
    assert look.left == {"updates": 1, "clients": 1, "audit_log": 1}


def test_an_erasure_is_not_called_done_while_something_is_left(house: House) -> None:
    """STYLE: look again and report what is left; a receipt is never better than the truth."""
    person = house.person()
    erase = house.place.erase
    house.place.erase = lambda _subject: None  # type: ignore[method-assign,assignment,return-value]

    case = _erased(house, person)

    assert (case.status, case.last_error, case.receipt) == (Status.RUNNING, "DATA_LEFT", None)
    house.place.erase = erase  # type: ignore[method-assign]
    assert house.desk.resume_open()[0].status is Status.COMPLETED


def test_running_an_erasure_twice_or_at_once_gives_one_receipt(house: House) -> None:
    """Workers may double a message: one end, one receipt."""
    case = _approved(house, house.person())

    with ThreadPoolExecutor(3) as pool:
        runs = list(pool.map(lambda _: house.desk.resume_open(), range(3)))
    again = house.desk.run(case.id)

    assert again.status is Status.COMPLETED
    assert house.event_types().count("privacy.erased") == 1
    assert {done.receipt for run in runs for done in run if done.receipt} <= {again.receipt}


def test_an_erasure_removes_the_persons_export_packages(house: House) -> None:
    """API.md: an erasure removes the package."""
    person = house.person()
    access = house.desk.open("access", person, requested_by=house.officer)
    house.desk.run(house.desk.approve(access.id, by=house.officer).id)
    assert len(list(house.blobs.names())) == 1

    _erased(house, person)

    assert list(house.blobs.names()) == []
    with pytest.raises(NoPackage):
        house.desk.packages.open(access.id)


def test_an_access_request_of_an_erased_person_is_refused(house: House) -> None:
    """There is nothing left to export; the request does not stay open for ever."""
    person = house.person()
    access = house.desk.open("access", person, requested_by=house.officer)
    house.desk.approve(access.id, by=house.officer)
    _erased(house, person)

    (ended,) = house.desk.resume_open()

    assert (ended.status, ended.last_error) == (Status.REFUSED, "SUBJECT_ERASED")
    assert ended.refusal is Refusal.NOT_COVERED  # issue: a refusal carries its ground
    assert house.desk.resume_open() == []


def test_a_second_erasure_of_an_erased_person_ends_with_the_same_receipt(house: House) -> None:
    """Issue: a duplicate is not dropped, and does not fail for ever: what it asks for is done."""
    person = house.person()
    first, second, held = (house.desk.open("erasure", person, requested_by=house.officer) for _ in range(3))
    hold = house.hold(person)
    house.desk.run(house.desk.approve(held.id, by=house.officer).id)
    house.lift(hold)
    done = house.desk.run(house.desk.approve(first.id, by=house.officer).id)

    again = house.desk.run(house.desk.approve(second.id, by=house.officer).id)
    house.desk.resume_open()

    assert (again.status, again.receipt, again.last_error) == (Status.COMPLETED, done.receipt, None)
    assert done.receipt is not None
    assert house.desk.show(held.id).receipt == done.receipt
    assert (house.desk.resume_open(), house.event_types().count("privacy.erased")) == ([], 1)


def test_a_legal_hold_stops_an_erasure_before_it_begins(house: House) -> None:
    """Art. 17(3): the request rests, nothing is erased; once lifted, it can be approved again."""
    person = house.person("canary-ada")
    hold = house.hold(person, matter="court case canary-reason")

    held = _erased(house, person)

    assert held.status is Status.ON_HOLD
    assert house.place.count(person) == 1
    assert b"canary-reason" not in house.every_byte()
    with reading(house.engine) as conn:
        assert state_of(conn, person) is SubjectState.ACTIVE
    house.lift(hold)
    house.desk.resume(held.id, by=house.officer)
    assert house.desk.run(house.desk.approve(held.id, by=house.officer).id).status is Status.COMPLETED
    assert {"hold.placed", "hold.lifted"} <= set(house.event_types())


def test_a_hold_on_a_person_being_erased_comes_too_late(house: House) -> None:
    """A hold that could not keep what it names is refused, not promised."""
    person = house.person()
    house.place.is_frozen = True
    _erased(house, person)

    with pytest.raises((SubjectErasing, SubjectErased)):
        house.hold(person)

    assert house.desk.holds.active(person) == []


def test_a_restored_database_and_key_store_bring_nobody_back(house: House) -> None:
    """Promise 5, RULES 1: backups of both, and the master key, do not open an erased person's data."""
    person = house.person("canary-ada")
    house.sequence()
    for name in ("main.db", "keys.db"):
        with (house.engine if name == "main.db" else house.keystore_engine).connect() as conn:
            conn.execute(text("SELECT 1"))
    house.engine.dispose()
    house.keystore_engine.dispose()
    shutil.copytree(house.folder, house.folder.parent / "backup", dirs_exist_ok=True)
    _erased(house, person)
    house.engine.dispose()
    house.keystore_engine.dispose()
    for name in ("main.db", "keys.db"):
        for stale in house.folder.glob(f"{name}*"):
            stale.unlink()
        shutil.copy(house.folder.parent / "backup" / name, house.folder / name)

    restored = KeyStore(house.keystore_engine, bytes(range(32)), state=house.state, clock=house.clock)
    restored.apply_state()

    assert "canary-ada" not in _readable(house, SubjectSealer(restored))
    assert restored.keys_of(person, Retention.PARTICIPATION) == []


def test_the_last_sweep_finds_what_a_late_request_wrote(house: House) -> None:
    """RULES 18: one more look after the longest request time-out, once."""
    person = house.person()
    case = _erased(house, person)
    with house.engine.begin() as conn:
        conn.execute(
            text("INSERT INTO notes VALUES (:id, :subject, '{}')"), {"id": case.id, "subject": person}
        )
    assert house.desk.sweep(house.clock.now) == 0
    house.clock.advance(timedelta(hours=1))

    swept = house.desk.sweep(house.clock.now)

    assert swept == 1
    assert house.place.count(person) == 0
    assert house.desk.sweep(house.clock.now) == 0


def test_a_destroyed_key_leaves_the_files_once_nobody_reads_them(house: House) -> None:
    """Promise 5: who reads keeps SQLite's log as it is, a destroyed key within; the last sweep asks again."""
    log_of_keys, person = house.folder / "keys.db-wal", house.person()
    event.listen(house.keystore_engine, "checkout", lambda raw, *_: raw.execute("PRAGMA busy_timeout=0"))

    with reading(house.keystore_engine) as reader:
        reader.execute(text("SELECT count(*) FROM subject_keys")).scalar()
        _erased(house, person)
        house.clock.advance(timedelta(hours=1))
        assert house.desk.sweep(house.clock.now) == 0
    assert log_of_keys.stat().st_size > 0
    swept = house.desk.sweep(house.clock.now)

    assert swept == 1
    assert log_of_keys.stat().st_size == 0


def test_one_broken_case_does_not_keep_the_others_from_ending(house: House) -> None:
    """At start, what can be finished is finished; the rest says why not."""
    first, second = _approved(house, house.person()), _approved(house, house.person())
    erase, calls = house.place.erase, []

    def fails_once(subject: str) -> object:
        calls.append(subject)
        if len(calls) == 1:
            raise OSError("disk gone")
        return erase(subject)

    house.place.erase = fails_once  # type: ignore[method-assign,assignment]

    statuses = sorted(case.status for case in house.desk.resume_open())

    assert statuses == [Status.COMPLETED, Status.RUNNING]
    errors = {house.desk.show(case.id).last_error for case in (first, second)}
    assert errors == {None, "OSError"}


def test_access_and_erasure_work_on_postgresql(postgresql_house: House) -> None:
    """DESIGN: the same promises in production; three workers at once give one receipt."""
    house = postgresql_house
    person = house.person("canary-ada")
    house.sequence()
    access = house.desk.open("access", person, requested_by=house.officer)
    assert house.desk.run(house.desk.approve(access.id, by=house.officer).id).status is Status.COMPLETED
    hold = house.hold(person)
    house.lift(hold)
    case = _approved(house, person)

    with ThreadPoolExecutor(3) as pool:
        list(pool.map(lambda _: house.desk.resume_open(), range(3)))

    done = house.desk.run(case.id)
    assert done.status is Status.COMPLETED
    assert verify(str(done.receipt), house.public_keys())["left"] == 0
    assert "canary-ada" not in _readable(house, house.sealer)
    assert house.event_types().count("privacy.erased") == 1
    assert list(house.blobs.names()) == []


def test_an_erasure_that_a_backup_knows_as_approved_ends_after_the_restore(house: House) -> None:
    """RULES 20: the state knows that the person is erased; the request of the older database ends all the same."""
    person = house.person()
    case = house.desk.open("erasure", person, requested_by=house.officer)
    approved = house.desk.approve(case.id, by=house.officer)
    house.keystore.forbid(person)
    house.keystore.destroy([row.key_id for row in house.keystore.keys_of(person, Retention.PARTICIPATION)])

    done = house.desk.run(approved.id)

    assert done.status is Status.COMPLETED
