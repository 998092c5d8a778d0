"""Promise 4 with two coordinators: one leads; and if two ever work at once, no round is aggregated twice."""

from __future__ import annotations

import subprocess
import sys
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from datetime import timedelta
from hashlib import sha256
from threading import Barrier, Event, Thread
from typing import Any

import psycopg
import pytest
from living.driver import BUDGET, NOISED, Json, Person, await_that, good, tensors
from living.home import Home, clean_environment
from living.interruption import Interruption
from living.threads import LocalGateway, local_gateway_in
from services.clock import FixedClock
from sqlalchemy import select

from audit.reading import reading
from audit.store import pending_count
from gateway.privacy import privacy_desk
from gateway.rounds.ledger import LineStatus
from gateway.rounds.record import RoundStatus, find_round
from gateway.rounds.recovery import OrphanSeeds, destroy_settled_seeds
from gateway.rounds.worker import Worker
from gateway.services import Services
from gateway.storage.leadership import Leadership
from gateway.tables import model_versions, privacy_ledger, rounds

CLOCK_CALLS = 10  # more than one look at a round, and its release, ask the clock
POINTS = ("round.frozen", "round.noised", "round.model_blob", "round.published")
on_production = pytest.mark.parametrize("home", ["production"], indirect=True)


class CoordinatorProcess:
    """`fl-gateway worker`, as production runs it."""

    def __init__(self, home: Home) -> None:
        self._home = home
        self.start()

    def start(self) -> None:
        """Start it."""
        with (self._home.directory / "workers.log").open("ab") as log:
            self._process = subprocess.Popen(
                ["setpriv", "--pdeathsig=KILL", "--", sys.executable, "-m", "gateway.cli", "worker"],
                cwd=self._home.directory,
                env=clean_environment() | self._home.environment(),
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
            )

    def kill(self) -> None:
        """SIGKILL it."""
        self._process.kill()
        self._process.wait()


@pytest.fixture
def web(home: Home) -> Iterator[LocalGateway]:
    """A gateway without a worker, and a model with a budget."""
    with local_gateway_in(home, "sequencer") as gateway:
        gateway.add_model(budget=BUDGET | {"epsilon": 40.0})
        yield gateway


@contextmanager
def two_coordinators(home: Home) -> Iterator[list[CoordinatorProcess]]:
    """Two worker processes on one home."""
    both = [CoordinatorProcess(home) for _ in range(2)]
    try:
        yield both
    finally:
        for one in both:
            one.kill()


@on_production
def test_of_two_worker_processes_one_leads_and_the_other_takes_over(home: Home, web: LocalGateway) -> None:
    """Required: two real workers at once; each is killed in its turn, and every round is aggregated once."""
    people = [web.register(), web.register()]
    leaders = []
    with two_coordinators(home) as both:
        ended = []
        for one in (None, *both):
            if one is not None:
                one.kill()
            ended.append(web.run_round(people))
            # Not before: for a moment the database still sees the session of a leader that is dead.
            leaders.append(await_that("a worker leads", lambda: _leaders(home)))
            if one is not None:
                one.start()

    assert {len(found) for found in leaders} == {1}
    assert len({found[0] for found in leaders}) > 1  # whoever led first was killed
    assert_once(web, [one["round_number"] for one in ended])


@on_production
def test_a_round_that_is_full_while_the_leader_is_killed_is_aggregated_once(
    home: Home, web: LocalGateway
) -> None:
    """The one that takes over finishes what it finds, with the noise that was drawn."""
    people = [web.register(), web.register()]
    numbers = []
    with two_coordinators(home) as both:
        for one in both:
            await_that("a worker leads", lambda: _leaders(home))
            number = web.open_round()
            for position, person in enumerate(people):
                web.submit(person, number, tensors(position))
            one.kill()
            assert web.await_end(number)["status"] == "completed"
            one.start()
            numbers.append(number)

    assert_once(web, numbers)


def test_a_worker_that_does_not_lead_leaves_every_round_alone(home: Home, web: LocalGateway) -> None:
    """It stands by, and takes its turn once the lead is free."""
    number = full_round(web)
    stop = Event()
    with home.stores() as services, home.stores() as others:
        leadership = Leadership(others.engine, "worker")
        assert leadership.leads()
        standing_by = Thread(target=Worker(services, privacy_desk(services)).run, args=(stop,))
        standing_by.start()
        try:
            stop.wait(1.5)
            meanwhile = web.round(number)["status"]
            leadership.close()
            web.await_end(number)
        finally:
            stop.set()
            standing_by.join()

    assert meanwhile == "active"
    assert_once(web, [number])


@pytest.mark.parametrize("point", POINTS)
def test_a_second_worker_at_a_chosen_moment_of_a_release_changes_nothing(
    home: Home, web: LocalGateway, point: str
) -> None:
    """Without any leadership: between two steps of one worker, another one does a whole turn."""
    number = full_round(web)
    with home.stores() as services, home.stores() as others:
        other, met = Worker(others, privacy_desk(others)), []

        def interrupt(reached: str) -> None:
            if reached == point and not met:
                met.append(reached)
                other.run_once()

        crashing = replace(services, crash=interrupt)
        Worker(crashing, privacy_desk(crashing)).run_once()
        other.run_once()

    assert met == [point]
    assert_once(web, [number])


def test_a_second_worker_between_any_two_looks_at_the_clock_changes_nothing(
    home: Home, web: LocalGateway
) -> None:
    """The clock is asked before and between transactions: at each call of it another worker does a whole turn."""
    people = [web.register(), web.register()]
    clock, numbers, happened = Interruption(), [], []
    with home.stores(clock=clock) as services, home.stores() as others:
        worker, other = Worker(services, privacy_desk(services)), Worker(others, privacy_desk(others))
        for call in range(1, CLOCK_CALLS + 1):
            number = full_round(web, people)
            clock.arm(call, lambda: look_now(other))
            look_now(worker)
            happened.append(clock.happened)
            look_now(other)
            numbers.append(number)

    assert happened[:4] == [True] * 4
    assert_once(web, numbers)


def test_two_workers_at_the_same_time_aggregate_each_round_once(home: Home, web: LocalGateway) -> None:
    """Two threads, released at once, on stores of their own: the row locks alone decide."""
    people = [web.register(), web.register()]
    with home.stores() as one, home.stores() as two:
        workers = [Worker(services, privacy_desk(services)) for services in (one, two)]
        numbers = []
        for _ in range(6):
            numbers.append(full_round(web, people))
            at_once([lambda w=w: look_now(w) for w in workers])  # type: ignore[misc]
            look_now(workers[0])

    assert_once(web, numbers)


def test_two_workers_put_a_deadline_off_once_and_fail_a_round_once(home: Home, web: LocalGateway) -> None:
    """What the clock brings about is decided once too: one extension, one failure, the reservation given back once."""
    number = web.open_round(extension={"seconds": 600, "times": 1}, min_clients=2)
    with home.stores() as services:
        deadline = _round(services, number).deadline
    clock = FixedClock(deadline)
    with home.stores(clock=clock) as one, home.stores(clock=clock) as two:
        workers = [Worker(services, privacy_desk(services)) for services in (one, two)]
        at_once([lambda w=w: look_now(w) for w in workers])  # type: ignore[misc]
        extended = _round(one, number)
        clock.advance(timedelta(minutes=11))
        at_once([lambda w=w: look_now(w) for w in workers])  # type: ignore[misc]
        look_now(workers[0])
        failed = _round(one, number)

    assert (extended.deadline, extended.extensions_left) == (deadline + timedelta(minutes=10), 0)
    assert (failed.status, failed.failure) == (RoundStatus.FAILED, "TOO_FEW_UPDATES")
    counted = entries_of(web)
    assert (counted["round.extended"], counted["round.failed"]) == (1, 1)
    with home.stores() as services, reading(services.engine) as conn:
        assert list(conn.execute(select(privacy_ledger.c.status)).scalars()) == [LineStatus.RELEASED.value]


def test_two_workers_draw_a_round_s_clients_once(home: Home, web: LocalGateway) -> None:
    """One draw, one entry, one invitation a client."""
    for _ in range(4):
        web.register()
    number = good(web.ask_round(selection={"strategy": "random", "reserves": 2}), 201)["round_number"]
    with home.stores() as one, home.stores() as two:
        workers = [Worker(services, privacy_desk(services)) for services in (one, two)]
        at_once([lambda w=w: look_now(w) for w in workers])  # type: ignore[misc]
        found = _round(one, number)

    assert found.status is RoundStatus.ACTIVE
    assert entries_of(web)["round.selected"] == 1


def full_round(web: LocalGateway, people: list[Person] | None = None) -> int:
    """A round with noise that waits to be frozen."""
    people = people or [web.register(), web.register()]
    number = web.open_round(NOISED)
    for position, person in enumerate(people):
        web.submit(person, number, tensors(position + 1))
    return number


def look_now(worker: Worker) -> None:
    """Let a worker do a whole turn."""
    worker._next_sweep = 0.0
    worker.run_once()


def at_once(actions: list[Callable[[], object]]) -> None:
    """Do all of it at the same moment, in threads."""
    gate, failures = Barrier(len(actions)), []

    def act(action: Callable[[], object]) -> None:
        gate.wait()
        try:
            action()
        except Exception as error:  # noqa: BLE001 - told below
            failures.append(error)

    threads = [Thread(target=act, args=(action,)) for action in actions]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert failures == []


def assert_once(web: LocalGateway, numbers: list[int]) -> None:
    """Each of the rounds, and no other, made one model, spent once, and says each thing once."""
    with web.home.stores() as services, reading(services.engine) as conn:
        ended = conn.execute(select(rounds.c.status, rounds.c.result_version)).all()
        made = conn.execute(
            select(model_versions.c.round_number, model_versions.c.version).where(
                model_versions.c.round_number.is_not(None)
            )
        ).all()
        lines = conn.execute(select(privacy_ledger.c.round_number, privacy_ledger.c.status)).all()
        blobs = set(services.blobs.names())
        named = set(conn.execute(select(model_versions.c.model_blob_url)).scalars())
        spends = [spend.round_number for spend in services.state.spends()]
        destroy_settled_seeds(services, OrphanSeeds())  # as each minute: a kill may come before a seed's end
        assert services.keystore.seeds() == []
    assert {one.status for one in ended} == {RoundStatus.COMPLETED.value}
    assert sorted(number for number, _ in made) == sorted(numbers)
    assert sorted(version for _, version in made) == sorted(one.result_version for one in ended)
    assert sorted(tuple(line) for line in lines) == [(n, LineStatus.SPENT.value) for n in sorted(numbers)]
    assert sorted(spends) == sorted(numbers)
    assert {url.removeprefix("blob:") for url in named} <= blobs
    counted = entries_of(web)
    for event_type in ("round.frozen", "round.completed", "privacy.spent"):
        assert counted[event_type] == len(numbers), event_type
    assert counted["round.failed"] == 0


def entries_of(web: LocalGateway) -> Counter[str]:
    """How many entries of each type the log has, once all are in it."""

    def read() -> list[Json] | None:
        with web.home.stores() as services, reading(services.engine) as conn:
            return web.entries() if pending_count(conn) == 0 else None

    return Counter(entry["event_type"] for entry in await_that("the log is at rest", read))


def _leaders(home: Home) -> list[int]:
    """The sessions that hold the workers' lock."""
    url = home.database_url.replace("postgresql+psycopg://", "postgresql://")
    key = int.from_bytes(sha256(b"fl-gateway worker").digest()[:8], "big")
    query = (
        "SELECT pid FROM pg_locks JOIN pg_stat_activity USING (pid) WHERE locktype = 'advisory' AND granted "
        "AND datname = current_database() AND classid = %s AND objid = %s"
    )
    with psycopg.connect(url) as conn:
        return [row[0] for row in conn.execute(query, (key >> 32, key & 0xFFFFFFFF))]


def _round(services: Services, number: int) -> Any:
    with reading(services.engine) as conn:
        return find_round(conn, number)
