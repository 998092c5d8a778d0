"""A full disk refuses, and loses nothing: 507 or 503, nothing half-written, and on it goes once there is room.

Each store lies on a small disk of its own in turn: the blobs, the main database, key store and state.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from hashlib import sha256
from pathlib import Path

import httpx
import numpy as np
import pytest
from living.driver import BARE, Person, await_that, good, tensors
from living.home import Home, home_in
from living.processes import Gateway, gateway_in
from services.small_disk import SmallDisk, small_disk
from sqlalchemy import func, select

from aggregation.wire import write_safetensors
from audit.reading import reading
from gateway.auth.clients import NewClient
from gateway.tables import client_updates

_DISK_BYTES = 16 << 20
_LARGE = {"w": np.ones((1 << 20) // 2, np.float32)}  # 2 MiB
_PATIENCE_S = 20.0
_REFUSALS = (503, 507)
_MOST_TOKENS = 500


@contextmanager
def _running(tmp_path: Path, disk: SmallDisk, store: str) -> Iterator[Gateway]:
    """A gateway with one of its stores on the disk."""
    place = disk.directory
    settings = {
        "blobs": {"blob_url": f"file:{place}/blobs"},
        "database": {"database_url": f"sqlite:///{place}/fl-gateway.db"},
        "keys": {
            "keystore_url": f"sqlite:///{place}/subjects.db",
            "state_url": f"file:{place}/state",
        },
    }[store]
    with _home(tmp_path / "home", settings) as home, gateway_in(home) as gateway:
        yield gateway


@contextmanager
def _home(directory: Path, settings: dict[str, str]) -> Iterator[Home]:
    with home_in(directory, **settings) as home:
        yield home


@pytest.mark.parametrize("left_bytes", [0, 1 << 20])
def test_without_room_for_blobs_an_update_gets_507_and_leaves_nothing(
    tmp_path: Path, left_bytes: int
) -> None:
    """Other requests are answered meanwhile; with room again the same update is accepted, without a restart."""
    body = b"".join(write_safetensors(_LARGE))
    with small_disk(tmp_path / "disk", _DISK_BYTES) as disk, _running(tmp_path, disk, "blobs") as gateway:
        _add_model(gateway, body)
        number = gateway.open_round(BARE)
        first, second = gateway.register(), gateway.register()
        gateway.submit(first, number, body)
        before = _files(disk)
        disk.fill(leave_bytes=left_bytes)

        refused = gateway.send(second, number, body)

        assert (refused.status_code, refused.json()["code"]) == (507, "INSUFFICIENT_STORAGE")
        assert _files(disk) == before
        assert _updates(gateway) == 1
        assert gateway.round(number)["status"] == "active"
        assert gateway.http.get("/health").status_code == 200
        disk.make_room()
        gateway.submit(second, number, body)
        assert gateway.await_end(number)["status"] == "completed"
        assert gateway.home.verify_log().ok


def test_a_round_waits_with_its_release_until_there_is_room(tmp_path: Path) -> None:
    """Want of space is no fault of the round's: it neither fails nor ends without its model."""
    body = b"".join(write_safetensors(_LARGE))
    with small_disk(tmp_path / "disk", _DISK_BYTES) as disk, _running(tmp_path, disk, "blobs") as gateway:
        _add_model(gateway, body)
        number = gateway.open_round(BARE, planned_clients=3, min_clients=2)
        for _ in range(2):
            gateway.submit(gateway.register(), number, body)
        before = _files(disk)
        disk.fill()

        good(gateway.http.post(f"/api/v1/rounds/{number}/close", headers=gateway.as_role("operator")), 202)
        await_that("the release begins", lambda: gateway.round(number)["status"] == "aggregating")
        time.sleep(4)  # longer than the worker tries again, and more often than a round may fail

        assert gateway.round(number)["status"] == "aggregating"
        await_that("nothing half-written", lambda: _files(disk) == before)
        disk.make_room()
        assert gateway.await_end(number)["result_model"] is not None
        assert gateway.home.verify_log().ok


def test_without_room_for_the_database_writes_are_refused_and_reads_answered(tmp_path: Path) -> None:
    """No acknowledged update is lost, no refused one is kept; every part goes on once there is room."""
    with small_disk(tmp_path / "disk", _DISK_BYTES) as disk, _running(tmp_path, disk, "database") as gateway:
        gateway.add_model()
        number = gateway.open_round(BARE, planned_clients=200, min_clients=1)
        people = [gateway.register() for _ in range(100)]
        operator, auditor = gateway.as_role("operator"), gateway.client_add("auditor")
        disk.fill()

        kept, refused = _send_until_refused(gateway, people, number)
        asked = (_ask_for_a_token(gateway, auditor) for _ in range(_MOST_TOKENS))  # a token takes less room
        token = next(answer for answer in asked if answer.status_code != 200)
        shown = gateway.http.get(f"/api/v1/rounds/{number}", headers=operator)

        assert refused.status_code in _REFUSALS
        assert refused.headers["Content-Type"] == "application/problem+json"
        assert shown.status_code == 200
        assert token.status_code in _REFUSALS
        assert token.json()["error"] == "temporarily_unavailable"
        disk.make_room()
        again = people[len(kept)]
        await_that(
            "updates are taken again", lambda: _is_taken(gateway, again, number), patience_s=_PATIENCE_S
        )
        assert _updates(gateway) == len(kept) + 1
        assert _blobs(gateway) == len(kept) + 2  # and the model
        good(_ask_for_a_token(gateway, auditor), 200)
        good(gateway.http.post(f"/api/v1/rounds/{number}/close", headers=operator), 202)
        assert gateway.await_end(number)["num_updates"] == len(kept) + 1
        assert gateway.home.verify_log(receipts=tuple(kept)).ok


def test_without_room_for_keys_and_state_nothing_new_begins_and_nothing_is_forgotten(tmp_path: Path) -> None:
    """A key is committed before its first use, a checkpoint in the state before it is signed (RULES 1, 2, 23)."""
    with small_disk(tmp_path / "disk", _DISK_BYTES) as disk, _running(tmp_path, disk, "keys") as gateway:
        gateway.add_model()
        number = gateway.open_round(BARE, planned_clients=200, min_clients=1)
        known = gateway.register()
        signed = gateway.checkpoint()
        disk.fill()
        before = _names(disk)

        answers = [_register(gateway) for _ in range(30)]
        update = gateway.send(known, number, tensors(1))

        statuses = {answer.status_code for answer in answers}
        assert statuses <= {201, *_REFUSALS}
        assert not statuses.isdisjoint(_REFUSALS)
        assert update.status_code in {202, *_REFUSALS}
        time.sleep(2)  # the sequencer tries meanwhile
        assert _names(disk) == before
        disk.make_room()
        await_that("devices register again", lambda: _register(gateway).status_code == 201)
        await_that("checkpoints go on", lambda: gateway.checkpoint() != signed)
        if update.status_code != 202:
            update = gateway.send(known, number, tensors(1))
        assert gateway.home.verify_log(since=signed, receipts=(good(update, 202)["receipt"],)).ok


def _send_until_refused(
    gateway: Gateway, people: list[Person], number: int
) -> tuple[list[str], httpx.Response]:
    """The receipts of what was still accepted, and the first refusal."""
    kept: list[str] = []
    for person in people:
        answer = gateway.send(person, number, tensors(1))
        if answer.status_code != 202:
            return kept, answer
        kept.append(answer.json()["receipt"])
    raise AssertionError("the disk took every update")


def _is_taken(gateway: Gateway, person: Person, number: int) -> bool:
    answer = gateway.send(person, number, tensors(1))
    assert answer.status_code in {202, *_REFUSALS}, answer.text
    return answer.status_code == 202


def _ask_for_a_token(gateway: Gateway, client: NewClient) -> httpx.Response:
    form = {"grant_type": "client_credentials"}
    return gateway.http.post("/oauth/token", data=form, auth=(client.client_id, client.client_secret))


def _register(gateway: Gateway) -> httpx.Response:
    body = {"device_id": "silo", "platform": "linux"}
    return gateway.http.post("/api/v1/clients/register", json=body, headers=gateway.as_role("operator"))


def _add_model(gateway: Gateway, body: bytes) -> None:
    headers = {"X-Model-Checksum": sha256(body).hexdigest(), "X-Model-Metadata": '{"name": "digits"}'}
    operator = gateway.as_role("operator")
    good(gateway.http.post("/api/v1/models", content=body, headers=operator | headers), 201)


def _updates(gateway: Gateway) -> int:
    with gateway.home.stores() as services, reading(services.engine) as conn:
        return conn.execute(select(func.count()).select_from(client_updates)).scalar_one()


def _blobs(gateway: Gateway) -> int:
    with gateway.home.stores() as services:
        return len(list(services.blobs.names()))


def _files(disk: SmallDisk) -> dict[Path, int]:
    """Every file but the ballast, with its size."""
    found = (path for path in disk.directory.rglob("*") if path.is_file() and path.name != "ballast")
    return {path: path.stat().st_size for path in found}


def _names(disk: SmallDisk) -> set[str]:
    return {path.name for path in disk.directory.rglob("*") if path.is_file()}
