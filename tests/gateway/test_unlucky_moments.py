"""Unlucky moments: two processes at once, restored databases, and claims that must not grow by them."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from datetime import timedelta
from decimal import Decimal
from pathlib import Path
from threading import Event, Thread, get_ident
from typing import Any
from uuid import uuid4

import pytest
from federation import Federation, file_of, tensors
from flask.testing import FlaskClient
from services.clock import FixedClock
from sqlalchemy import Connection, event, text, update

from aggregation.accountant import Mechanism, epsilon
from audit.reading import reading
from audit.sequencer import SignedTree
from gateway import idempotency
from gateway.errors import BudgetExceeded
from gateway.privacy import privacy_desk
from gateway.rounds.freezing import freeze
from gateway.rounds.ledger import check_budget, mechanism_json, read_lines
from gateway.rounds.lineage import newest_lineage
from gateway.rounds.opening import RoundRequest, open_round
from gateway.rounds.record import find_round, lock_round
from gateway.rounds.recovery import OrphanSeeds, destroy_settled_seeds, sweep_blobs, unite_spends
from gateway.rounds.worker import Worker
from gateway.services import Services
from gateway.storage.state import FileState, Spend
from gateway.tables import client_updates, idempotency_keys, models


class KilledError(BaseException):
    """Stands for a kill: nothing catches it."""


GOOD = file_of(tensors(0.5))
BUDGET = {"epsilon": 8.0, "delta": 1e-5}
GAUSSIAN = {"mechanism": "gaussian", "clip_norm": 1.0, "noise_multiplier": 4.0}
Entries = Callable[..., list[dict[str, Any]]]


@pytest.fixture
def federation(services: Services, http: FlaskClient) -> Federation:
    """A federation with a model and no round."""
    made = Federation(services, http)
    assert made.add_model().status_code == 201
    return made


# Two processes at once


def test_a_round_that_opens_during_the_tidying_keeps_its_seed(
    federation: Federation, services: Services
) -> None:
    """RULES 7: on READ COMMITTED the ledger and the rounds are seen at two moments; an open round keeps its seed."""
    listed, opened, threads = Event(), Event(), []

    def tidy() -> None:
        threads.append(get_ident())
        destroy_settled_seeds(services, OrphanSeeds())

    def between(*_: Any) -> None:
        if threads == [get_ident()] and not listed.is_set():
            listed.set()
            assert opened.wait(10)

    def start_tidying(_: Any) -> Callable[[Any], None]:
        tidying.start()
        assert listed.wait(10)
        return lambda _: None

    tidying = Thread(target=tidy)
    wish = RoundRequest(
        base_version=None,
        deadline=services.clock() + timedelta(hours=1),
        planned_clients=2,
        min_clients=1,
        training_config={},
        policy={"planned_clients": 2, "min_clients": 1, "privacy": {**GAUSSIAN, "delta": 1e-5}},
    )
    event.listen(services.engine, "after_cursor_execute", between)
    made = open_round(services, wish, remember=start_tidying)
    opened.set()
    tidying.join(10)

    assert services.keystore.seeds() == [made.ledger_id]


def test_a_worker_that_starts_beside_another_fails_no_round(
    federation: Federation, services: Services
) -> None:
    """RULES 1: a spend written while a start looks at the rounds is not one from before a restore."""
    federation.open_round(privacy={**GAUSSIAN, "delta": 1e-5}, planned_clients=1)
    federation.submit(federation.register(), GOOD)
    drawn = []

    def stop_there(point: str) -> None:
        if point == "round.noised":
            raise KilledError

    def between(_conn: Any, _cursor: Any, statement: str, *_: Any) -> None:
        if not drawn and "rounds" in statement:
            drawn.append(statement)
            other = Worker(replace(services, crash=stop_there), privacy_desk(services))
            with pytest.raises(KilledError):
                other.run_once()

    event.listen(services.engine, "after_cursor_execute", between)
    unite_spends(services)
    federation.work()

    assert drawn
    assert (federation.round()["status"], federation.round()["failure"]) == ("completed", None)


@pytest.mark.parametrize("database_url", ["postgresql"], indirect=True)
def test_a_round_whose_row_is_locked_by_a_halted_process_holds_up_no_other(
    federation: Federation, services: Services
) -> None:
    """A wait for one row that ends in vain is no outage of the database: the next round is looked at."""
    federation.open_round(planned_clients=1)
    federation.add_model()
    federation.open_round(planned_clients=1)
    for number in (1, 2):
        federation.submit(federation.register(), GOOD, number=number)

    @event.listens_for(services.engine, "begin")
    def hurry(conn: Connection) -> None:
        conn.exec_driver_sql("SET LOCAL lock_timeout = '300ms'")

    with services.engine.begin() as halted:
        lock_round(halted, find_round(halted, 1).round_id, shared=True)
        federation.work()
        beside = [federation.round(number)["status"] for number in (1, 2)]
    federation.work()

    assert beside == ["active", "completed"]
    assert federation.round()["status"] == "completed"


# Another or an older database


def test_the_tidying_on_a_database_that_is_not_ours_destroys_nothing(
    federation: Federation, services: Services
) -> None:
    """A wrong FLG_DATABASE_URL or an old backup names no blob of ours: that is no reason to delete them all."""
    federation.open_round(privacy={**GAUSSIAN, "delta": 1e-5})
    federation.submit(federation.register(), GOOD)
    federation.sequence()
    before = services.state.last_checkpoint()
    assert before is not None
    with services.engine.begin() as conn:
        conn.execute(client_updates.delete())
    services.state.advance_checkpoint(before, SignedTree(before.origin, before.size + 500, bytes(32)))
    impatient = replace(services, config=replace(services.config, blob_grace_s=0.0))
    kept = sorted(services.blobs.names())

    swept = sweep_blobs(impatient)

    assert (swept, sorted(services.blobs.names())) == (0, kept)


def test_a_database_of_ours_is_tidied(federation: Federation, services: Services) -> None:
    """The guard is for other databases: here, what no row names goes."""
    federation.open_round()
    federation.submit(federation.register(), GOOD)
    federation.sequence()
    with services.engine.begin() as conn:
        conn.execute(client_updates.delete())
    impatient = replace(services, config=replace(services.config, blob_grace_s=0.0, evaluate_timeout_s=0.0))

    assert sweep_blobs(impatient) == 1


def test_the_same_erased_key_is_written_down_once(tmp_path: Path) -> None:
    """An erasure that waits for days is run again each second: the state does not grow with it."""
    state, other = FileState(tmp_path / "state"), FileState(tmp_path / "state")
    for _ in range(3):
        state.add_erased_keys(["a", "b"])
    other.add_erased_keys(["b", "c", "c"])

    lines = (tmp_path / "state" / "erased-keys.log").read_text().splitlines()
    assert sorted(lines) == ["a", "b", "c"]
    assert state.erased_keys() == other.erased_keys() == {"a", "b", "c"}


# Claims


def test_a_round_that_fails_after_its_freeze_keeps_its_spend(
    federation: Federation, services: Services, entries: Entries
) -> None:
    """RULES 5, 8: another worker may have opened the seed a moment ago; what was frozen is paid for."""
    model = federation.add_model(privacy_budget=BUDGET).json
    federation.open_round(privacy=GAUSSIAN, planned_clients=1)
    silo = federation.register()
    federation.submit(silo, GOOD)
    with reading(services.engine) as conn:
        found = find_round(conn, 1)
    assert freeze(services, found)
    with services.engine.begin() as conn:
        conn.execute(client_updates.delete())
    federation.work()

    assert federation.round()["status"] == "failed"
    assert entries("round.failed")[0]["details"]["spend_stays"] is True
    budget = federation.http.get("/api/v1/privacy/budget", headers=federation.staff("auditor")).json["data"]
    assert float(next(one for one in budget if one["model_id"] == model["model_id"])["epsilon_spent"]) > 0


def test_a_restored_round_says_that_its_spend_stays(
    federation: Federation, services: Services, entries: Entries
) -> None:
    """The entry of a round that a restore brought back says what the ledger does."""
    model = federation.add_model(privacy_budget=BUDGET).json
    federation.open_round(privacy=GAUSSIAN)
    with reading(services.engine) as conn:
        (line,) = read_lines(conn, model["model_id"])
    told = mechanism_json(line.mechanism, line.unit)
    services.state.add_spend(Spend(line.ledger_id, line.model_id, line.round_number, told))

    unite_spends(services)

    assert entries("round.failed")[0]["details"]["spend_stays"] is True


def test_a_spend_that_the_database_forgot_is_written_again_with_its_entry(
    federation: Federation, services: Services, entries: Entries
) -> None:
    """Promise 1: what the state knows of a release enters the ledger, and the log says so, once."""
    model = federation.add_model(privacy_budget=BUDGET).json
    told = mechanism_json(Mechanism(4.0), "client")
    services.state.add_spend(Spend(str(uuid4()), model["model_id"], 7, told))

    changed = [unite_spends(services) for _ in range(2)]

    (spent,) = [entry["details"] for entry in entries("privacy.spent")]
    assert changed == [1, 0]
    assert (spent["round_number"], spent["state"], spent["reason"]) == (7, "spent", "RESTORED_AFTER_SPEND")
    assert float(spent["epsilon_spent"]) > 0


def test_an_entry_claims_no_epsilon_after_a_release_without_noise(
    federation: Federation, entries: Entries
) -> None:
    """Promise 9: a lineage that once released a bare mean has no finite epsilon; the log says no other."""
    federation.open_round(planned_clients=1)
    silo = federation.register()
    federation.submit(silo, GOOD)
    federation.work()
    federation.open_round(planned_clients=1, privacy={**GAUSSIAN, "delta": 1e-5})
    federation.submit(silo, GOOD, number=2)
    federation.work()

    (spent,) = entries("privacy.spent")
    assert spent["details"]["epsilon_spent"] == "Infinity"


def test_an_entry_states_the_delta_of_its_epsilon(federation: Federation, entries: Entries) -> None:
    """Promise 9: an epsilon without its delta is no claim."""
    federation.add_model(privacy_budget=BUDGET)
    federation.open_round(planned_clients=1, privacy=GAUSSIAN)
    federation.submit(federation.register(), GOOD)
    federation.work()

    (spent,) = entries("privacy.spent")
    assert spent["details"]["delta"] == "0.00001"


def test_a_budget_is_compared_as_the_decimal_it_is(federation: Federation, services: Services) -> None:
    """Promise 4: a budget that no float can hold is not rounded up to the next one."""
    mechanism = Mechanism(4.0)
    total = epsilon([mechanism], 1e-5)
    just_less = format(Decimal(total) - Decimal("1e-20"), "f")
    with services.engine.begin() as conn:
        conn.execute(update(models).values(epsilon_budget=just_less, delta="0.00001"))
    with reading(services.engine) as conn:
        lineage = newest_lineage(conn)

    with pytest.raises(BudgetExceeded):
        check_budget(lineage, [], mechanism, "client")


# Housekeeping


def test_every_stale_answer_is_forgotten_in_one_tidying(
    federation: Federation, services: Services, clock: FixedClock
) -> None:
    """More than a batch of repeated requests a minute must not pile up."""
    with services.engine.begin() as conn:
        rows = [
            {
                "key_hash": f"{number:064d}",
                "client_id": str(uuid4()),
                "body_hmac": "0" * 64,
                "status": 202,
                "answer": {"enc": "", "key": ""},
                "created_at": clock(),
            }
            for number in range(25)
        ]
        conn.execute(idempotency_keys.insert(), rows)
    clock.advance(timedelta(hours=25))

    assert idempotency.purge(services, batch=10) == 25


def test_a_failed_statement_tells_no_parameter(services: Services) -> None:
    """RULES 30: an exception's text carries no value of anybody's."""
    with pytest.raises(Exception, match="no_such_table") as told, services.engine.begin() as conn:
        conn.execute(text("SELECT * FROM no_such_table WHERE name = :name"), {"name": "canary-in-a-row"})

    assert "canary-in-a-row" not in str(told.value)
