"""Promises 1, 3 and 4 under SIGKILL: whatever process dies, whenever, nothing acknowledged is lost or counted twice."""

from __future__ import annotations

import json
import os
import signal
from collections import Counter
from collections.abc import Iterator
from hashlib import sha256
from pathlib import Path
from threading import Thread
from typing import Any

import httpx
import pytest
from living.driver import BUDGET, Json, Person, await_that, tensors
from living.home import Home
from living.processes import Gateway, is_alive
from sqlalchemy import select

from audit.reading import reading
from audit.store import latest_checkpoint, newest_checkpoint, pending_count, tree_size
from audit.tables import audit_log
from gateway.parts.starting import recover
from gateway.privacy import privacy_desk
from gateway.rounds.ledger import LineStatus
from gateway.rounds.record import RoundStatus, UpdateStatus, find_round, lock_round
from gateway.rounds.release import model_blob_name
from gateway.rounds.worker import Worker
from gateway.services import Services
from gateway.tables import client_updates, model_versions, privacy_ledger, rounds

PARTS = ("web", "worker", "sequence", "forward")
AT_ONCE = {"blob_grace_s": "0", "evaluate_timeout_s": "0"}  # a blob without a row is swept at the first look
EMBEDDED, BOTH = ("embedded",), ("embedded", "production")


def on(*points_of: tuple[str, tuple[str, ...]]) -> pytest.MarkDecorator:
    """Run for these crash points, each on these sets of servers."""
    cases = [pytest.param(point, kind, id=f"{point}-{kind}") for point, kinds in points_of for kind in kinds]
    return pytest.mark.parametrize(("point", "home"), cases, indirect=["home"])


@pytest.fixture
def gateway(home: Home) -> Iterator[Gateway]:
    """A gateway that the test starts, kills and starts again."""
    made = Gateway(home)
    yield made
    made.kill()


@on(("update.blob", EMBEDDED), ("update.committed", BOTH))
def test_an_update_whose_sender_saw_no_answer_is_counted_once_when_sent_again(
    gateway: Gateway, point: str
) -> None:
    """Promise 3: killed before or after the commit, the repetition with the same key gives the one update."""
    gateway.start(crash_at=point)
    number, people = open_for_two(gateway)
    for person in people:
        with pytest.raises(httpx.TransportError):
            gateway.send(person, number, tensors(1), Idempotency_Key="first")
    gateway.kill()
    committed, orphans = update_ids(gateway.home), gateway.home.orphan_blobs()
    assert (len(committed), len(orphans)) == ((0, 2) if point == "update.blob" else (2, 0))

    gateway.start(**AT_ONCE)
    await_that("the orphan blobs are swept", lambda: not gateway.home.orphan_blobs())
    answers = [gateway.submit(person, number, tensors(1), Idempotency_Key="first") for person in people]

    assert not committed or {answer["update_id"] for answer in answers} == committed
    assert gateway.await_end(number)["status"] == "completed"
    assert_whole(gateway, number, answers)


@on(
    ("round.frozen", EMBEDDED),
    ("round.noised", BOTH),
    ("round.model_blob", EMBEDDED),
    ("round.published", BOTH),
)
def test_a_release_killed_anywhere_publishes_the_one_model_of_its_cohort_and_seed(
    gateway: Gateway, point: str, tmp_path: Path
) -> None:
    """Promise 4: no second noise. What the same seed and cohort give elsewhere is published here, bit for bit."""
    gateway.start(crash_at=point)
    number, people = open_for_two(gateway)
    answers = [gateway.submit(person, number, tensors(i)) for i, person in enumerate(people)]
    gateway.await_death("worker")
    gateway.kill()
    written = model_blob(gateway.home, number)
    assert written if point in ("round.model_blob", "round.published") else not written
    given_elsewhere = finish_in_a_copy(gateway.home, tmp_path / "twin", number)

    gateway.start(**AT_ONCE)
    ended = gateway.await_end(number)

    assert ended["status"] == "completed"
    assert ended["result_model"]["checksum"] == given_elsewhere
    assert not written or sha256(written).hexdigest() == given_elsewhere
    assert_whole(gateway, number, answers)


@on(("sequencer.batch", BOTH), ("forwarder.batch", EMBEDDED))
def test_a_killed_part_of_the_log_delays_entries_and_loses_none(gateway: Gateway, point: str) -> None:
    """Promises 2 and 6: leaves that were never signed, events whose cursor was never saved."""
    gateway.start(crash_at=point)
    number, people = open_for_two(gateway)
    answers = [gateway.submit(person, number, tensors(i)) for i, person in enumerate(people)]
    assert gateway.await_end(number)["status"] == "completed"
    gateway.await_death("sequence" if point == "sequencer.batch" else "forward")
    gateway.kill()

    gateway.start()

    assert_whole(gateway, number, answers)


def test_a_kill_of_the_whole_tree_in_the_middle_of_many_uploads_loses_no_acknowledged_update(
    gateway: Gateway,
) -> None:
    """Promise 3: at a moment that nobody chose, with uploads, sequencing and delivery under way."""
    gateway.start()
    count = 24
    number, people = open_for(gateway, count)
    acknowledged: dict[str, Json] = {}
    mine, *others = _thirds(people)
    threads = [Thread(target=_send_all, args=(gateway, number, some, acknowledged)) for some in others]
    for thread in threads:
        thread.start()
    _send_all(gateway, number, mine[:2], acknowledged)  # who sends itself cannot kill too late
    gateway.kill()
    for thread in threads:
        thread.join()
    before = dict(acknowledged)

    gateway.start(**AT_ONCE)
    await_that("the orphan blobs are swept", lambda: not gateway.home.orphan_blobs())
    gateway.stop()
    gateway.start()  # with a grace period again: a blob has no row for a moment before its commit
    answers = {p.client_id: gateway.submit(p, number, Idempotency_Key="once") for p in people}

    assert 2 <= len(before) < count
    assert all(answers[client_id] == answer for client_id, answer in before.items())
    assert gateway.await_end(number)["status"] == "completed"
    assert_whole(gateway, number, list(answers.values()))


@pytest.mark.parametrize("home", ["embedded"], indirect=True)
def test_each_part_may_be_killed_and_comes_again(gateway: Gateway) -> None:
    """Promise 3: the supervisor starts again what died, and the round goes on."""
    gateway.start()
    number, people = open_for_two(gateway)
    first = gateway.submit(people[0], number)
    before = {part: gateway.part_pid(part) for part in PARTS}

    for part in PARTS:
        gateway.kill_part(part)
    await_that("every part runs again", lambda: _have_new_ids(gateway, before))
    second = _submit_patiently(gateway, people[1], number)

    assert gateway.await_end(number)["status"] == "completed"
    assert_whole(gateway, number, [first, second])


@pytest.mark.parametrize("home", ["embedded"], indirect=True)
def test_the_parts_of_a_killed_supervisor_end_by_themselves(gateway: Gateway) -> None:
    """No part goes on alone, holding the port and the log, when what restarts it is gone."""
    gateway.start()

    left = gateway.kill_supervisor()

    assert len(left) >= len(PARTS)
    try:
        await_that("every part has ended", lambda: not any(map(is_alive, left)), patience_s=30)
    finally:
        for pid in filter(is_alive, left):
            os.kill(pid, signal.SIGKILL)


def open_for(gateway: Gateway, count: int) -> tuple[int, list[Person]]:
    """A noised round for so many devices."""
    gateway.add_model(budget=BUDGET)
    people = [gateway.register(device_id=f"device-{number}") for number in range(count)]
    return gateway.open_round(planned_clients=count, min_clients=count), people


def open_for_two(gateway: Gateway) -> tuple[int, list[Person]]:
    """The same for two."""
    return open_for(gateway, 2)


def assert_whole(gateway: Gateway, number: int, answers: list[Json]) -> None:
    """Everything that must hold once a completed round's gateway has caught up."""
    home = gateway.home
    with home.stores() as services:
        await_that("the log is signed", lambda: _is_signed(services))
        await_that("the seed is destroyed", lambda: not services.keystore.seeds())
        await_that("the SIEM has every entry", lambda: _delivered(home) >= _size(services))
        since = _note(services)
        _assert_counted_once(services, number, {answer["update_id"] for answer in answers})
        _assert_spent_once(services, number)
        _assert_entries_once(services, len(answers))
    assert not home.orphan_blobs()
    _assert_siem_has_no_hole(home)
    verdict = home.verify_log(since=since, receipts=tuple(answer["receipt"] for answer in answers))
    assert verdict.ok, verdict.text()
    assert [finding.verdict.value for finding in verdict.receipts] == ["proven"] * len(answers)


def finish_in_a_copy(home: Home, to: Path, number: int) -> str:
    """Let a copy of the stores end the round by itself; the checksum of the model that it publishes."""
    twin = home.copy(to)
    with twin.stores() as services:
        recover(services)
        Worker(services, privacy_desk(services)).run_once()
        with reading(services.engine) as conn:
            query = select(model_versions.c.checksum).where(model_versions.c.round_number == number)
            return str(conn.execute(query).scalar_one())


def model_blob(home: Home, number: int) -> bytes | None:
    """The model that the round has written, published or not."""
    with home.stores() as services, reading(services.engine) as conn:
        name = model_blob_name(lock_round(conn, find_round(conn, number).round_id))
    return home.blob(name)


def update_ids(home: Home) -> set[str]:
    """The ids of all committed updates."""
    with home.stores() as services, reading(services.engine) as conn:
        return set(conn.execute(select(client_updates.c.update_id)).scalars())


def _assert_counted_once(services: Services, number: int, acknowledged: set[str]) -> None:
    with reading(services.engine) as conn:
        found = conn.execute(select(rounds).where(rounds.c.round_number == number)).one()
        statuses = dict(conn.execute(select(client_updates.c.update_id, client_updates.c.status)).all())  # type: ignore[arg-type]
        versions = conn.execute(
            select(model_versions.c.version).where(model_versions.c.round_number == number)
        ).scalars()
        made = list(versions)
    assert found.status == RoundStatus.COMPLETED
    assert found.cohort == sorted(acknowledged)
    assert statuses == dict.fromkeys(acknowledged, UpdateStatus.COUNTED.value)
    assert made == [found.result_version]


def _assert_spent_once(services: Services, number: int) -> None:
    with reading(services.engine) as conn:
        lines = conn.execute(select(privacy_ledger.c.round_number, privacy_ledger.c.status)).all()
    assert [tuple(line) for line in lines] == [(number, LineStatus.SPENT.value)]
    assert [spend.round_number for spend in services.state.spends()] == [number]


def _assert_entries_once(services: Services, updates: int) -> None:
    with reading(services.engine) as conn:
        counted = Counter(conn.execute(select(audit_log.c.event_type)).scalars())
    wanted = {"update.accepted": updates, "round.created": 1, "round.frozen": 1}
    wanted |= {"round.completed": 1, "privacy.spent": 1, "round.failed": 0}
    assert {event: counted[event] for event in wanted} == wanted


def _assert_siem_has_no_hole(home: Home) -> None:
    """Every event names the one before it, and is new, or a repetition of a batch as it was."""
    lines = _siem_lines(home)
    seen = -1
    for line in lines:
        assert line["prev_seq"] == line["seq"] - 1
        assert line["seq"] <= seen + 1
        seen = max(seen, line["seq"])
    assert {line["seq"] for line in lines} == set(range(seen + 1))


def _siem_lines(home: Home) -> list[Json]:
    text = (home.directory / "siem.jsonl").read_text()
    whole = text[: text.rfind("\n") + 1]  # the forwarder may be writing
    return [json.loads(line) for line in whole.splitlines()]


def _delivered(home: Home) -> int:
    return max((line["seq"] for line in _siem_lines(home)), default=-1) + 1


def _size(services: Services) -> int:
    with reading(services.engine) as conn:
        return tree_size(conn)


def _is_signed(services: Services) -> bool:
    with reading(services.engine) as conn:
        newest = newest_checkpoint(conn)
        return pending_count(conn) == 0 and newest is not None and newest.size == tree_size(conn)


def _note(services: Services) -> str | None:
    with reading(services.engine) as conn:
        return latest_checkpoint(conn)


def _have_new_ids(gateway: Gateway, before: dict[str, int]) -> bool:
    try:
        return all(gateway.part_pid(part) != pid for part, pid in before.items())
    except IndexError:
        return False


def _submit_patiently(gateway: Gateway, person: Person, number: int) -> Json:
    def look() -> Json | None:
        try:
            return gateway.submit(person, number, tensors(2), Idempotency_Key="patient")
        except httpx.TransportError:  # the web part is on its way
            return None

    return await_that("the update is accepted", look)


def _send_all(gateway: Gateway, number: int, people: list[Person], acknowledged: dict[str, Any]) -> None:
    for person in people:
        try:
            acknowledged[person.client_id] = gateway.submit(person, number, Idempotency_Key="once")
        except (httpx.HTTPError, RuntimeError):  # killed, or the client was closed with the gateway
            return


def _thirds(people: list[Person]) -> list[list[Person]]:
    return [people[start::3] for start in range(3)]
