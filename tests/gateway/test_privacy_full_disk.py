"""A disk that fills up while an export package is written: the request stands, says why, and goes on by itself."""

from __future__ import annotations

import io
import zipfile
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from federation import Federation, Silo, file_of
from flask import Flask
from flask.testing import FlaskClient
from services.small_disk import SmallDisk, small_disk
from staff import CHEAP, Browser, add_member

from audit.draft import Personal
from compliance.requests.cases import Case, Status
from gateway.auth.people.passwords import Passwords
from gateway.auth.people.signing_in import EXTENSION as PASSWORDS
from gateway.config import Config
from gateway.places import ClientBook
from gateway.privacy import privacy_desk
from gateway.services import Services

DESK = Personal("system", "test")
PATH = "/api/v1/privacy/requests"
NOISE = {
    "w": np.random.default_rng(7).standard_normal(1 << 17).astype(np.float32)
}  # half a mebibyte, incompressible
FULL = Path("/dev/full")
LEFT = pytest.mark.parametrize("left_bytes", [0, 1 << 18], ids=["no room", "room for half of it"])
Entries = Callable[..., list[dict[str, Any]]]


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[SmallDisk]:
    """Where the blobs are."""
    with small_disk(tmp_path / "disk", 16 << 20) as made:
        yield made


@pytest.fixture
def config(config: Config, disk: SmallDisk) -> Config:
    """Blobs on the small disk; databases and keys elsewhere."""
    return replace(config, blob_url=f"file:{disk.directory}/blobs")


@pytest.fixture
def federation(services: Services, http: FlaskClient) -> Federation:
    """A federation with a round."""
    made = Federation(services, http)
    made.add_model(NOISE)
    made.open_round()
    return made


@pytest.fixture
def silo(federation: Federation) -> Silo:
    """Who took part, and asks for the data."""
    found = federation.register("a device")
    assert federation.submit(found, file_of(NOISE)).status_code == 202
    return found


@pytest.fixture
def dpo(federation: Federation) -> dict[str, str]:
    """Credentials of the data-protection officer."""
    return federation.staff("dpo")


@pytest.fixture
def case(federation: Federation, silo: Silo) -> str:
    """A request that waits for its approval."""
    subject = ClientBook(federation.services).subject_of(silo.client_id)
    assert subject is not None
    return privacy_desk(federation.services).open("access", subject, requested_by=DESK).id


def wish(silo: Silo) -> dict[str, Any]:
    """An access request."""
    return {"type": "access", "subject": {"client_id": silo.client_id}}


def files(disk: SmallDisk) -> set[Path]:
    """Every file but the ballast."""
    return {path for path in disk.directory.rglob("*") if path.is_file() and path.name != "ballast"}


def waits(services: Services, case_id: str, code: str = "INSUFFICIENT_STORAGE") -> bool:
    """Whether the request is under way still, and says what it waits for."""
    found = privacy_desk(services).show(case_id)
    return (found.status, found.last_error, found.package_bytes) == (Status.RUNNING, code, None)


def is_answered(federation: Federation, case_id: str, dpo: dict[str, str], entries: Entries) -> bool:
    """Whether the worker, left alone, ends it with one whole package and one entry."""
    federation.work()
    answer = federation.http.get(f"{PATH}/{case_id}/package", headers=dpo, buffered=True)
    assert answer.status_code == 200, answer.text
    told = [entry for entry in entries("privacy.exported") if entry["details"]["case_id"] == case_id]
    found: Case = privacy_desk(federation.services).show(case_id)
    whole = zipfile.ZipFile(io.BytesIO(answer.data)).testzip() is None
    return whole and len(told) == 1 and (found.status, found.last_error) == (Status.COMPLETED, None)


@LEFT
def test_an_approval_whose_package_finds_no_room_is_507_and_goes_on_by_itself(
    federation: Federation, disk: SmallDisk, case: str, dpo: dict[str, str], entries: Entries, left_bytes: int
) -> None:
    """Promise 7: no half blob stays, the request says what it waits for, and approving again is harmless."""
    before = files(disk)
    disk.fill(leave_bytes=left_bytes)

    refused = [federation.http.post(f"{PATH}/{case}/approve", headers=dpo) for _ in range(2)]
    shown = federation.http.get(f"{PATH}/{case}", headers=dpo).json

    assert [(one.status_code, one.json["code"]) for one in refused] == [(507, "INSUFFICIENT_STORAGE")] * 2
    assert (shown["status"], shown["last_error"], shown["has_package"]) == (
        "running",
        "INSUFFICIENT_STORAGE",
        False,
    )
    assert federation.http.get(f"{PATH}/{case}/package", headers=dpo).status_code == 404
    assert files(disk) == before
    disk.make_room()
    assert is_answered(federation, case, dpo, entries)


@LEFT
def test_a_worker_without_room_notes_it_and_tries_again(
    federation: Federation, disk: SmallDisk, case: str, dpo: dict[str, str], entries: Entries, left_bytes: int
) -> None:
    """What the worker cannot write now it writes later; nobody has to ask again."""
    desk = privacy_desk(federation.services)
    before = files(disk)
    desk.approve(case, by=DESK)
    disk.fill(leave_bytes=left_bytes)

    tried = [one.last_error for _ in range(2) for one in desk.resume_open()]

    assert tried == ["INSUFFICIENT_STORAGE"] * 2
    assert waits(federation.services, case)
    assert files(disk) == before
    disk.make_room()
    assert is_answered(federation, case, dpo, entries)


@LEFT
def test_at_the_console_a_page_says_that_there_is_no_room(
    federation: Federation,
    app: Flask,
    disk: SmallDisk,
    case: str,
    dpo: dict[str, str],
    entries: Entries,
    left_bytes: int,
) -> None:
    """507 as a page; the request's page shows it under way."""
    passwords = app.extensions[PASSWORDS] = Passwords(CHEAP)
    dana = Browser(app.test_client())
    dana.sign_in(add_member(federation.services, passwords, "Dana", role="dpo"))
    page, before = f"/console/requests/{case}", files(disk)
    assert dana.send(page, f"{page}/review").status_code == 303
    disk.fill(leave_bytes=left_bytes)

    refused = dana.send(page, f"{page}/approve")

    assert (refused.status_code, refused.mimetype) == (507, "text/html")
    assert waits(federation.services, case)
    assert dana.get(page).status_code == 200
    assert files(disk) == before
    disk.make_room()
    assert is_answered(federation, case, dpo, entries)


def test_a_request_that_is_opened_without_room_is_taken_down_all_the_same(
    federation: Federation, disk: SmallDisk, silo: Silo, dpo: dict[str, str], entries: Entries
) -> None:
    """It came, and its term runs: the caller learns its id, so that nobody opens it a second time."""
    disk.fill()

    opened = federation.http.post(PATH, json=wish(silo), headers=dpo)

    assert (opened.status_code, opened.json["status"]) == (201, "running")
    assert opened.json["last_error"] == "INSUFFICIENT_STORAGE"
    assert opened.headers["Location"] == f"{PATH}/{opened.json['id']}"
    disk.make_room()
    assert is_answered(federation, opened.json["id"], dpo, entries)


def test_room_that_is_missing_for_what_waits_is_told_alike(
    federation: Federation, disk: SmallDisk, case: str, dpo: dict[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Rows wait in a file of the system's own; its disk may be the full one."""
    before = files(disk)
    with monkeypatch.context() as full:
        full.setattr("tempfile.TemporaryFile", lambda: FULL.open("w+b", buffering=0))
        refused = federation.http.post(f"{PATH}/{case}/approve", headers=dpo)

    assert (refused.status_code, refused.json["code"]) == (507, "INSUFFICIENT_STORAGE")
    assert waits(federation.services, case, "OSError")
    assert files(disk) == before
    assert federation.http.post(f"{PATH}/{case}/approve", headers=dpo).json["status"] == "completed"
