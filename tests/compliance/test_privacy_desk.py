"""The privacy desk: requests move by the rules, each move once, each with its entry (Art. 12)."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta
from pathlib import Path
from threading import Barrier
from typing import TYPE_CHECKING
from uuid import uuid4
from zipfile import ZipFile

import pytest
from sqlalchemy.exc import OperationalError

from audit.draft import Personal
from audit.reading import reading
from audit.store import pending_count
from compliance import Status, SubjectErasing
from compliance.errors import (
    CaseChanged,
    ComplianceError,
    MoveNotAllowed,
    NoPackage,
    UnknownRequest,
    UnknownSubject,
    UnsupportedRequest,
)
from compliance.keyring.keys import SigningUse
from compliance.packages.verifying import verify_package
from compliance.requests.cases import Case, Move
from compliance.requests.reasons import Refusal

if TYPE_CHECKING:
    from conftest import House

    from gateway.storage.blobs import Incoming


def _opened(house: House, kind: str = "access") -> Case:
    return house.desk.open(kind, house.person(), requested_by=house.officer)


def test_a_request_is_taken_down_with_its_deadline(house: House) -> None:
    """Art. 12(3): one month from receipt; the answer names nobody."""
    case = _opened(house)

    assert case.status is Status.RECEIVED
    assert case.due_at == datetime(2026, 12, 24, 23, 59, 59, tzinfo=UTC)
    assert case.public()["due_at"] == "2026-12-24T23:59:59Z"
    assert house.event_types() == ["client.registered", "privacy.requested"]
    assert b"dpo" not in house.every_byte()


@pytest.mark.parametrize("kind", ["restriction", "objection", "rectification", "", "Erasure"])
def test_a_request_that_is_not_carried_out_is_refused_by_name(house: House, kind: str) -> None:
    """The error says what is supported now, and nothing is left behind."""
    person = house.person()

    with pytest.raises(UnsupportedRequest, match="access and portability and erasure"):
        house.desk.open(kind, person, requested_by=house.officer)

    assert house.desk.cases() == []


def test_an_unknown_subject_or_request_is_refused(house: House) -> None:
    """Promise 7: a clear error, and no row."""
    with pytest.raises(UnknownSubject):
        house.desk.open("access", str(uuid4()), requested_by=house.officer)
    with pytest.raises(UnknownRequest):
        house.desk.show(str(uuid4()))


def test_approving_twice_changes_nothing(house: House) -> None:
    """API.md: `approve` works from `received`; again, it answers the same."""
    case = _opened(house)

    once = house.desk.approve(case.id, by=house.officer)
    twice = house.desk.approve(case.id, by=house.officer)

    assert once == twice
    assert once.status is Status.APPROVED
    assert house.event_types().count("privacy.moved") == 1


def test_approvals_at_once_are_one(house: House, monkeypatch: pytest.MonkeyPatch) -> None:
    """A request that is repeated while the first is still at work gets the answer of the first."""
    case, together, read = _opened(house), Barrier(4), house.desk._at_version

    def all_have_read(case_id: str, version: int | None) -> Case:
        found = read(case_id, version)
        together.wait(10)
        return found

    monkeypatch.setattr(house.desk, "_at_version", all_have_read)
    with ThreadPoolExecutor(4) as pool:
        found = list(pool.map(lambda _: house.desk.approve(case.id, by=house.officer), range(4)))

    assert {one.status for one in found} == {Status.APPROVED}
    assert house.event_types().count("privacy.moved") == 1


@pytest.mark.parametrize(
    ("steps", "status"),
    [
        (["identify"], Status.AWAITING_IDENTITY),
        (["identify", "review"], Status.IN_REVIEW),
        (["review", "approve"], Status.APPROVED),
        (["hold"], Status.ON_HOLD),
        (["approve", "hold", "resume"], Status.IN_REVIEW),
        (["review", "refuse"], Status.REFUSED),
        (["withdraw"], Status.WITHDRAWN),
    ],
)
def test_a_request_goes_the_way_of_its_moves(house: House, steps: list[str], status: Status) -> None:
    """API.md: the transitions, each with one entry."""
    case = _opened(house)

    for step in steps:
        reason = {"reason": Refusal.EXCESSIVE} if step == "refuse" else {}
        case = getattr(house.desk, step)(case.id, by=house.officer, **reason)

    assert case.status is status
    assert house.event_types().count("privacy.moved") == len(steps)
    assert case.is_open == (status not in {Status.REFUSED, Status.WITHDRAWN})


@pytest.mark.parametrize("move", [move for move in Move if move is not Move.APPROVE])
def test_a_closed_request_moves_no_more(house: House, move: Move) -> None:
    """What was answered stays answered."""
    case = house.desk.withdraw(_opened(house).id, by=house.officer)
    reason = {"reason": Refusal.EXCESSIVE} if move is Move.REFUSE else {}

    with pytest.raises(MoveNotAllowed):
        getattr(house.desk, move.value)(case.id, by=house.officer, **reason)
    with pytest.raises(MoveNotAllowed):
        house.desk.approve(case.id, by=house.officer)
    assert house.desk.show(case.id) == case


def test_an_unidentified_person_gets_nothing(house: House) -> None:
    """Art. 12(6): approval waits for the proof of identity."""
    case = house.desk.identify(_opened(house).id, by=house.officer)

    with pytest.raises(MoveNotAllowed):
        house.desk.approve(case.id, by=house.officer)


def test_a_stale_move_is_refused(house: House) -> None:
    """Two officers at one case: the second one reads it again first."""
    case = _opened(house)
    house.desk.review(case.id, by=house.officer, version=case.version)

    with pytest.raises(CaseChanged):
        house.desk.approve(case.id, by=house.officer, version=case.version)


def test_of_moves_at_once_one_succeeds(house: House) -> None:
    """Compare-and-set: one move, one entry, whoever races."""
    case = _opened(house)

    def attempt(move: str) -> bool:
        reason = {"reason": Refusal.EXCESSIVE} if move == "refuse" else {}
        try:
            getattr(house.desk, move)(case.id, by=house.officer, version=case.version, **reason)
        except ComplianceError:
            return False
        return True

    with ThreadPoolExecutor(4) as pool:
        succeeded = list(pool.map(attempt, ["refuse", "withdraw", "review", "hold"]))

    assert succeeded.count(True) == 1
    assert house.event_types().count("privacy.moved") == 1


def test_a_move_and_its_entry_commit_together(house: House) -> None:
    """Promise 1: where the entry cannot be staged, the move is not made."""
    person = house.person()
    case = house.desk.open("access", person, requested_by=house.officer)
    erasure = house.desk.approve(
        house.desk.open("erasure", person, requested_by=house.officer).id, by=house.officer
    )
    house.place.is_frozen = True
    house.desk.run(erasure.id)  # marks the person, then waits
    with reading(house.engine) as conn:
        before = pending_count(conn)

    with pytest.raises(ComplianceError):
        house.desk.review(case.id, by=Personal(person, "the person"))

    with reading(house.engine) as conn:
        assert pending_count(conn) == before
    assert house.desk.show(case.id).status is Status.RECEIVED


def test_an_access_request_ends_in_a_package_of_everything(house: House) -> None:
    """Art. 15: what places and log hold of the person, in clear, signed, and encrypted where it lies."""
    person = house.person("canary-ada")
    house.person("canary-bob")
    house.sequence()
    case = house.desk.open("access", person, requested_by=house.officer)
    house.desk.approve(case.id, by=house.officer)
    house.sequence()  # the officer's name stands in the entry of the request

    done = house.desk.run(case.id)

    package = house.desk.packages.open(case.id)
    with house.blobs.reader(package.blob_id, package.key) as reader:
        content = reader.read_at(0, package.size_bytes)
    path = house.folder / "package.zip"
    path.write_bytes(content)
    manifest = verify_package(path, house.public_keys()[house.keystore.signing_key(SigningUse.PACKAGE).kid])
    text = _text_of(path)
    assert done.status is Status.COMPLETED
    assert manifest.digest() == done.manifest_digest
    assert {"data/notes.json", "audit/entries.json", "data/privacy_requests.json", "article-15.json"} <= {
        file.path for file in manifest.files
    }
    assert text.count("canary-ada") >= 3  # the note, the actor, the device
    assert "canary-bob" not in text
    assert "privacy.requested" in text
    assert '"dpo"' not in text
    assert house.event_types()[-3:] == ["privacy.exported", "intent.export", "privacy.moved"]


def test_a_package_lies_encrypted_and_expires(house: House) -> None:
    """API.md: fetched for seven days, then gone."""
    case = _opened(house)
    house.desk.run(house.desk.approve(case.id, by=house.officer).id)
    stored = house.blobs.local_path(house.desk.packages.open(case.id).blob_id)
    assert not stored.read_bytes().startswith(b"PK")
    assert house.desk.packages.expire() == 0

    house.clock.advance(timedelta(days=7))

    with pytest.raises(NoPackage):
        house.desk.packages.open(case.id)
    assert house.desk.packages.expire() == 1
    assert not stored.exists()
    assert house.desk.packages.expire() == 0


def test_a_request_without_package_says_so(house: House) -> None:
    """Before it ran, there is nothing to fetch."""
    with pytest.raises(NoPackage):
        house.desk.packages.open(_opened(house).id)


def test_an_export_that_was_cut_off_runs_again(house: House) -> None:
    """RULES 2: the open intent is finished at the next start, under a fresh blob and key."""
    case = house.desk.approve(_opened(house).id, by=house.officer)
    healthy = house.place.sealer

    class Broken:
        def open_column(self, *_place: object) -> object:
            raise OSError("disk gone")

    house.place.sealer = Broken()
    with pytest.raises(OSError, match="disk gone"):
        house.desk.run(case.id)
    assert list(house.blobs.names()) == []
    assert house.desk.resume_open()[0].last_error == "OSError"
    house.place.sealer = healthy

    (done,) = house.desk.resume_open()

    assert done.status is Status.COMPLETED
    assert len(list(house.blobs.names())) == 1
    assert house.desk.resume_open() == []


def test_a_failure_is_told_to_who_asked_and_noted_by_its_kind(
    house: House, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The request says what it waits for; `e3q8`, as SQLAlchemy has it, tells nobody anything."""
    case = _opened(house)
    house.desk.approve(case.id, by=house.officer)

    def fail(_case: Case) -> Case:
        raise OperationalError("SELECT 1", {}, RuntimeError())

    monkeypatch.setattr(house.desk._accesses, "run", fail)
    with pytest.raises(OperationalError):
        house.desk.run(case.id)
    once = house.desk.show(case.id)
    (tried,) = house.desk.resume_open()

    assert (once.status, once.last_error, once.attempts) == (Status.APPROVED, "OperationalError", 1)
    assert (tried.last_error, tried.attempts) == ("OperationalError", 2)


def test_an_export_killed_after_its_blob_was_kept_leaves_one_package(house: House) -> None:
    """RULES 2: the kept blob that no commit names is removed when the request runs again."""
    case = house.desk.approve(_opened(house).id, by=house.officer)
    incoming = house.blobs.incoming

    def dies_after_keep(blob_id: str, key: bytes | None = None) -> Incoming:
        blob = incoming(blob_id, key)
        keep = blob.keep

        def die() -> None:
            keep()
            raise KeyboardInterrupt

        blob.keep = die
        return blob

    house.blobs.incoming = dies_after_keep
    with pytest.raises(KeyboardInterrupt):
        house.desk.run(case.id)
    assert len(list(house.blobs.names())) == 1
    house.blobs.incoming = incoming

    (done,) = house.desk.resume_open()

    assert done.status is Status.COMPLETED
    assert list(house.blobs.names()) == [done.package_blob]


def test_nothing_is_opened_for_a_person_who_is_being_erased(house: House) -> None:
    """RULES 18: a new request would write for the erased."""
    person = house.person()
    case = house.desk.open("erasure", person, requested_by=house.officer)
    house.desk.run(house.desk.approve(case.id, by=house.officer).id)

    with pytest.raises(SubjectErasing):
        house.desk.open("access", person, requested_by=house.officer)


def _text_of(path: Path) -> str:
    with ZipFile(path) as package:
        return "\n".join(package.read(name).decode() for name in package.namelist())


@pytest.mark.parametrize("kind", ["access", "erasure"])
def test_two_that_carry_out_the_same_request_at_once_see_it_through(house: House, kind: str) -> None:
    """The officer's own call and the worker: one does it, the other waits for it, neither is told of a conflict."""
    case = _opened(house, kind)
    house.desk.approve(case.id, by=house.officer)

    with ThreadPoolExecutor(4) as pool:
        ended = list(pool.map(lambda _: house.desk.run(case.id, patience_s=10.0), range(4)))

    assert [one.status for one in ended] == [Status.COMPLETED] * 4
    assert house.event_types().count("intent.erase" if kind == "erasure" else "intent.export") == 2
