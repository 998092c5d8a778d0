"""Promise 4: epsilon spent never exceeds the budget, with racing coordinators and with restored databases."""

from __future__ import annotations

from datetime import timedelta
from pathlib import Path
from threading import Barrier, Thread

import httpx
import pytest
from living.driver import BARE, BUDGET, NOISED, Driver, Json, await_that, good, tensors
from living.home import Home
from living.interruption import Interruption
from living.threads import LocalGateway, local_gateway_in
from sqlalchemy import select

from audit.reading import reading
from gateway.errors import BudgetExceeded, RoundOpen
from gateway.parts.starting import recover
from gateway.rounds.ledger import LineStatus
from gateway.rounds.opening import RoundRequest, open_round
from gateway.services import utc_now
from gateway.tables import client_updates, privacy_ledger

ONE_ROUND = {"epsilon": 1.2, "delta": 1e-5}  # a round at z = 4 costs 0.93, two cost 1.36

POLICY = {"planned_clients": 2, "min_clients": 2, "privacy": NOISED}


def test_of_rounds_that_race_for_the_last_budget_one_is_reserved(home: Home) -> None:
    """Two web processes, six requests at once: one reservation, one seed in the end, five refusals."""
    with local_gateway_in(home) as one, local_gateway_in(home, "sequencer") as two:
        one.add_model(budget=ONE_ROUND)
        two.as_role("operator")
        answers = at_once([lambda g=g: g.ask_round() for g in (one, two) * 3])

        taken = [answer.json()["round_number"] for answer in answers if answer.status_code == 201]
        refused = {answer.json()["code"] for answer in answers if answer.status_code != 201}

        assert len(taken) == 1
        assert refused <= {"ROUND_OPEN", "PRIVACY_BUDGET_EXCEEDED", "CONFLICT"}
        assert ledger(home) == [(taken[0], LineStatus.RESERVED.value)]


def test_a_round_that_opens_between_the_check_and_the_reservation_takes_the_place(home: Home) -> None:
    """The check is computed outside of the lock: what it allowed holds only for the ledger that it saw (RULES 8)."""
    clock = Interruption()
    with local_gateway_in(home, "sequencer") as gateway, home.stores(clock=clock) as services:
        gateway.add_model(budget=ONE_ROUND)
        gateway.as_role("operator")
        wish = RoundRequest(None, utc_now() + timedelta(hours=1), 2, 2, {}, POLICY)
        clock.arm(2, gateway.open_round)

        with pytest.raises(RoundOpen):
            open_round(services, wish, remember=lambda _: lambda _: None)

    assert clock.happened
    assert ledger(home) == [(1, LineStatus.RESERVED.value)]


def test_a_budget_that_is_spent_between_the_check_and_the_reservation_is_checked_again(home: Home) -> None:
    """Another round opens and ends in that moment: no round is open then, and the budget is gone."""
    clock = Interruption()
    with local_gateway_in(home) as gateway, home.stores(clock=clock) as services:
        gateway.add_model(budget=ONE_ROUND)
        people = [gateway.register(), gateway.register()]
        wish = RoundRequest(None, utc_now() + timedelta(hours=1), 2, 2, {}, POLICY)
        clock.arm(2, lambda: gateway.run_round(people))

        with pytest.raises(BudgetExceeded):
            open_round(services, wish, remember=lambda _: lambda _: None)

        await_that("the orphan seed of the lost race is destroyed", lambda: len(seeds(home)) == 0)
    assert clock.happened
    assert ledger(home) == [(1, LineStatus.SPENT.value)]


def test_rounds_of_several_lineages_opened_at_once_do_not_mix(home: Home) -> None:
    """Round numbers stay unique, and each lineage pays for its own round."""
    with local_gateway_in(home, "sequencer") as gateway:
        versions = [gateway.add_model(budget=BUDGET)["version"] for _ in range(4)]

        answers = at_once([lambda v=v: gateway.ask_round(base_version=v) for v in versions])

        opened = sorted(good(answer, 201)["round_number"] for answer in answers if answer.status_code == 201)
        assert {answer.status_code for answer in answers} <= {201, 409}
        assert opened == sorted(set(opened))
        assert sorted(ledger(home)) == [(number, LineStatus.RESERVED.value) for number in opened]


def test_an_exhausted_budget_refuses_and_opens_no_seed(home: Home) -> None:
    """409 PRIVACY_BUDGET_EXCEEDED names the figures, reserves nothing, makes no seed, and stays true."""
    with local_gateway_in(home) as gateway:
        gateway.add_model(budget=ONE_ROUND)
        people = [gateway.register(), gateway.register()]
        assert gateway.run_round(people)["status"] == "completed"
        await_that("the seed is destroyed", lambda: not seeds(home))
        before = ledger(home)

        answers = [gateway.ask_round(), gateway.ask_round(BARE), gateway.ask_round(NOISED | {"epsilon": 1})]

        assert [answer.status_code for answer in answers] == [409, 409, 422]
        assert [answer.json()["code"] for answer in answers[:2]] == ["PRIVACY_BUDGET_EXCEEDED"] * 2
        assert float(answers[0].json()["error"]["details"]["epsilon_with_round"]) > ONE_ROUND["epsilon"]
        assert (ledger(home), seeds(home)) == (before, [])
        assert spent(gateway) <= ONE_ROUND["epsilon"]


def test_a_promoted_earlier_version_does_not_bring_spent_budget_back(home: Home) -> None:
    """Going back to the first model forgets nothing of what was released from the data."""
    with local_gateway_in(home) as gateway:
        first = gateway.add_model(budget=ONE_ROUND)["version"]
        people = [gateway.register(), gateway.register()]
        gateway.run_round(people)
        url = f"/api/v1/models/{first}/promote"
        good(gateway.http.post(url, headers=gateway.as_role("operator")), 200)

        answer = gateway.ask_round(base_version=first)

        assert (answer.status_code, answer.json()["code"]) == (409, "PRIVACY_BUDGET_EXCEEDED")


@pytest.mark.parametrize("moment", ["before the round", "while it was reserved"])
@pytest.mark.parametrize("home", ["embedded"], indirect=True)
def test_a_restored_database_does_not_forget_a_spend(home: Home, tmp_path: Path, moment: str) -> None:
    """The spends in the state are united with the ledger at the start, before any round can be opened (RULES 1)."""
    copies: list[Home] = []
    gateway = LocalGateway(home).start()
    gateway.add_model(budget=ONE_ROUND)
    people = [gateway.register(), gateway.register()]
    if moment == "before the round":
        copies.append(_copied(gateway, tmp_path / "copy"))
    number = gateway.open_round()
    if moment == "while it was reserved":
        copies.append(_copied(gateway, tmp_path / "copy"))
    for person in people:
        gateway.submit(person, number)
    assert gateway.await_end(number)["status"] == "completed"
    gateway.stop()

    home.restore(("fl-gateway.db", "keys/subjects.db"), copies[0])
    with local_gateway_in(home) as restored:
        answer = restored.ask_round()
        budget = spent(restored)

    assert (answer.status_code, answer.json()["code"]) == (409, "PRIVACY_BUDGET_EXCEEDED")
    assert 0.9 < budget <= ONE_ROUND["epsilon"]
    assert ledger(home) == [(number, LineStatus.SPENT.value)]
    assert seeds(home) == []


def test_a_start_is_repeatable_and_spends_nothing(home: Home) -> None:
    """Recovery on sound stores changes no line, however often it runs."""
    with local_gateway_in(home) as gateway:
        gateway.add_model(budget=BUDGET)
        gateway.run_round([gateway.register(), gateway.register()])
        number = gateway.open_round()
    before = ledger(home)

    for _ in range(3):
        with home.stores() as services:
            recover(services)

    assert ledger(home) == before == [(1, LineStatus.SPENT.value), (number, LineStatus.RESERVED.value)]


def test_a_failed_round_gives_back_only_what_was_never_drawn(home: Home) -> None:
    """A seed that was opened has spent its budget, even if no model came of it (RULES 8)."""
    with local_gateway_in(home, "sequencer") as gateway:
        gateway.add_model(budget=ONE_ROUND)
        people = [gateway.register(), gateway.register()]
        number = gateway.open_round()
        for person in people:
            gateway.submit(person, number, tensors(1))
    for name in _update_blobs(home):
        home.spoil(name)

    with local_gateway_in(home) as gateway:
        ended = gateway.await_end(number)
        await_that("the seed is destroyed", lambda: not seeds(home))
        answer = gateway.ask_round()

    assert (ended["status"], ended["failure"]) == ("failed", "UPDATE_UNREADABLE")
    assert ledger(home) == [(number, LineStatus.SPENT.value)]
    assert answer.json()["code"] == "PRIVACY_BUDGET_EXCEEDED"


def at_once(requests: list) -> list[httpx.Response]:  # type: ignore[type-arg]
    """The answers to requests that start at the same moment."""
    gate, answers = Barrier(len(requests)), []

    def send(request) -> None:  # type: ignore[no-untyped-def]
        gate.wait()
        answers.append(request())

    threads = [Thread(target=send, args=(request,)) for request in requests]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return answers


def ledger(home: Home) -> list[tuple[int, str]]:
    """Round number and state of each ledger line, in order."""
    query = select(privacy_ledger.c.round_number, privacy_ledger.c.status)
    with home.stores() as services, reading(services.engine) as conn:
        rows = conn.execute(query.order_by(privacy_ledger.c.round_number))
        return [(row.round_number, row.status) for row in rows]


def seeds(home: Home) -> list[str]:
    """The seeds that exist."""
    with home.stores() as services:
        return services.keystore.seeds()


def spent(gateway: Driver) -> float:
    """Epsilon spent on the one lineage."""
    told: Json = good(gateway.http.get("/api/v1/privacy/budget", headers=gateway.as_role("dpo")), 200)
    return float(told["data"][0]["epsilon_spent"])


def _copied(gateway: LocalGateway, to: Path) -> Home:
    gateway.stop()
    copy = gateway.home.copy(to)
    gateway.start()
    return copy


def _update_blobs(home: Home) -> list[str]:
    with home.stores() as services, reading(services.engine) as conn:
        return list(conn.execute(select(client_updates.c.blob_id)).scalars())
