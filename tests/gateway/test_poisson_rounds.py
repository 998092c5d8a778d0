"""Poisson rounds: what they spend, what they release, and that nothing tells how many were drawn (RULES 12)."""

from __future__ import annotations

import json
from collections.abc import Callable
from datetime import timedelta
from typing import Any

import pytest
from federation import Federation, Silo, file_of, tensors
from flask.testing import FlaskClient
from services.clock import FixedClock
from sqlalchemy import select

from aggregation import epsilon
from audit.reading import reading
from audit.tables import audit_pending
from gateway.rounds.eligibility import candidates
from gateway.rounds.ledger import read_lines
from gateway.rounds.record import find_round
from gateway.rounds.selection import choose, draw
from gateway.rounds.strategy import Selection, Strategy
from gateway.services import Services
from gateway.tables import clients, invitations, model_versions

Entries = Callable[..., list[dict[str, Any]]]
NOISED = {"mechanism": "gaussian", "clip_norm": 1.0, "noise_multiplier": 1.0, "delta": 1e-5}
ALL = bytes  # entropy of zeros: every coin shows heads
POISSON = {"strategy": "poisson", "sampling_rate": 0.25}
OFTEN = {"selection": POISSON | {"sampling_rate": 0.9}, "privacy": NOISED | {"noise_multiplier": 4.0}}


@pytest.fixture
def federation(services: Services, http: FlaskClient) -> Federation:
    """A federation with a model that has a budget."""
    made = Federation(services, http)
    made.add_model(privacy_budget={"epsilon": 3.0, "delta": 1e-5})
    return made


def open_poisson(federation: Federation, **wish: Any) -> Any:
    """Ask for a Poisson round."""
    return federation.open_round(**({"selection": POISSON, "privacy": NOISED} | wish))


def sampled(services: Services) -> set[str]:
    """The clients that were drawn."""
    with reading(services.engine) as conn:
        return set(conn.execute(select(invitations.c.client_id)).scalars())


def go(federation: Federation, clock: FixedClock) -> None:
    """Let the deadline pass; tokens end before it."""
    clock.advance(timedelta(hours=1, seconds=1))
    federation.work()
    federation.operator = federation.staff("operator")


WRONG: dict[str, tuple[dict[str, Any], str]] = {
    "without a rate": ({"selection": {"strategy": "poisson"}}, "/selection/sampling_rate"),
    "a rate of one": ({"selection": POISSON | {"sampling_rate": 1.0}}, "/selection/sampling_rate"),
    "a rate beyond the accountant": (
        {"selection": POISSON | {"sampling_rate": 1e-9}},
        "/selection/sampling_rate",
    ),
    "reserves": ({"selection": POISSON | {"reserves": 1}}, "/selection/reserves"),
    "replacing": ({"selection": POISSON | {"respond_within_s": 9}}, "/selection/respond_within_s"),
    "extensions": ({"extension": {"seconds": 60}}, "/extension"),
    "the unit record": (
        {"privacy": NOISED | {"unit": "record", "planned_records": 100, "noise_multiplier": 5.0}},
        "/privacy/unit",
    ),
    "no noise": ({"privacy": {"mechanism": "none"}}, "/privacy/mechanism"),
}


@pytest.mark.parametrize("what", WRONG)
def test_what_would_break_the_claim_is_refused(federation: Federation, what: str) -> None:
    """RULES 12: no reserves, no extension; sampling clients amplifies no record's privacy (decision 0064)."""
    wish, pointer = WRONG[what]
    before = federation.kept()

    answer = open_poisson(federation, **wish)

    assert (answer.status_code, answer.json["code"]) == (422, "VALIDATION_FAILED")
    assert pointer in [error["pointer"] for error in answer.json["errors"]]
    assert federation.kept() == before


def test_only_poisson_earns_amplification(federation: Federation, services: Services) -> None:
    """Promise 9: the ledger holds the rate where the server drew by Poisson sampling, and one everywhere else."""
    plain = federation.open_round(privacy=NOISED, selection={"strategy": "random"})
    federation.add_model(privacy_budget={"epsilon": 3.0, "delta": 1e-5})
    amplified = open_poisson(federation)

    assert (plain.status_code, plain.json["code"]) == (
        409,
        "PRIVACY_BUDGET_EXCEEDED",
    )  # epsilon 4.4 unamplified
    assert amplified.status_code == 201
    assert amplified.json["privacy"]["sampling_rate"] == "0.25"
    with reading(services.engine) as conn:
        (line,) = read_lines(conn, find_round(conn, amplified.json["round_number"]).model_id)
    assert line.mechanism.sampling_rate == 0.25
    assert epsilon([line.mechanism], 1e-5) < 3.0


@pytest.mark.parametrize("strategy", ["random", "fair"])
def test_other_strategies_claim_none(federation: Federation, services: Services, strategy: str) -> None:
    """Also where fewer are chosen than are eligible."""
    noised = NOISED | {"noise_multiplier": 4.0}
    opened = federation.open_round(privacy=noised, selection={"strategy": strategy})

    with reading(services.engine) as conn:
        (line,) = read_lines(conn, find_round(conn, opened.json["round_number"]).model_id)
    assert line.mechanism.sampling_rate == 1.0
    assert opened.json["privacy"]["sampling_rate"] is None


def test_a_poisson_round_ends_at_its_deadline_alone(
    federation: Federation, services: Services, clock: FixedClock
) -> None:
    """No early close: neither when all planned have come, nor when more came than planned."""
    silos = [federation.register(f"silo-{place}") for place in range(6)]
    open_poisson(federation, **OFTEN, planned_clients=1)
    draw(services, round_of(services), entropy=ALL)
    came = [one for one in silos if one.client_id in sampled(services)]
    for one in came:
        federation.submit(one, file_of(tensors(0.5)))

    federation.work()
    before = federation.round()
    go(federation, clock)

    assert (before["status"], federation.round()["status"]) == ("active", "completed")
    assert federation.round()["num_updates"] == len(came)


def test_an_empty_sample_is_released_as_pure_noise(
    federation: Federation, services: Services, clock: FixedClock, entries: Entries
) -> None:
    """A failure that depends on the sample would tell of it: min_clients bounds the population before the draw."""
    for place in range(3):
        federation.register(f"silo-{place}")
    open_poisson(federation, min_clients=3, planned_clients=2)
    assert draw(services, round_of(services), entropy=lambda size: b"\xff" * size)

    go(federation, clock)

    done = federation.round()
    assert sampled(services) == set()
    assert (done["status"], done["num_updates"]) == ("completed", 0)
    assert federation.download(done["result_model"]["version"]).data != federation.download("1.0.0").data
    (spent,) = entries("privacy.spent")
    assert spent["details"]["sampling_rate"] == "0.25"


def test_too_small_a_population_fails_the_round_before_the_draw(
    federation: Federation, services: Services, clock: FixedClock
) -> None:
    """Below min_clients eligible nobody is drawn, and the spend is given back."""
    federation.register("alone")
    open_poisson(federation, min_clients=2)

    federation.work()
    waiting = federation.round()["status"]
    go(federation, clock)

    assert waiting == "selecting"
    assert (federation.round()["status"], federation.round()["failure"]) == ("failed", "TOO_FEW_CLIENTS")
    with reading(services.engine) as conn:
        assert read_lines(conn, find_round(conn, 1).model_id) == []


def test_nothing_in_clear_tells_the_size_of_the_sample(
    federation: Federation, services: Services, clock: FixedClock, entries: Entries
) -> None:
    """Not the entries of the draw, the freeze and the release, not the certificate, not what a client sees."""
    silos = [federation.register(f"silo-{place}") for place in range(8)]
    open_poisson(federation, **OFTEN)
    draw(services, round_of(services), entropy=ALL)
    came = [one for one in silos if one.client_id in sampled(services)]
    for one in came:
        federation.submit(one, file_of(tensors(0.5)))
    go(federation, clock)

    seen = federation.http.get("/api/v1/rounds/1", headers=silos[0].headers).json
    listed = federation.http.get("/api/v1/rounds", headers=silos[0].headers).json

    assert (seen["num_updates"], listed["data"][0]["num_updates"]) == (None, None)
    assert federation.round()["num_updates"] == len(came)
    counts = {"chosen", "reserves", "num_updates", "cohort_size", "accepted", "count", "dropped"}
    for event in ("round.selected", "round.frozen", "round.completed"):
        (entry,) = entries(event)
        assert counts.isdisjoint(entry["details"]), event
    assert entries("round.completed")[0]["details"]["accumulator"] == "int64"
    with reading(services.engine) as conn:
        certificate = conn.execute(
            select(model_versions.c.certificate).order_by(model_versions.c.version_id.desc()).limit(1)
        ).scalar_one()
        bodies = list(conn.execute(select(audit_pending.c.body)).scalars())
        chosen_at = set(conn.execute(select(clients.c.last_chosen_at)).scalars())
    assert counts.isdisjoint(certificate)
    assert certificate["sampling_rate"] == "0.9"
    assert not any('"cohort_size"' in body for body in map(str, bodies) if "round.completed" in body)
    assert chosen_at == {None}  # a later fair round would tell


def test_a_sampled_client_that_is_erased_contributes_zero(
    federation: Federation, services: Services, clock: FixedClock
) -> None:
    """Dropouts count as zero: no second draw, no failure; divisor and noise stay as planned."""
    silos = [federation.register(f"silo-{place}") for place in range(4)]
    open_poisson(federation, **OFTEN, min_clients=4, planned_clients=4)
    draw(services, round_of(services), entropy=ALL)
    one = next(silo for silo in silos if silo.client_id in sampled(services))
    federation.submit(one, file_of(tensors(0.5)))

    erase(federation, one)
    go(federation, clock)

    assert one.client_id not in sampled(services)
    assert federation.round()["status"] == "completed"
    assert federation.round()["num_updates"] == 0


def test_the_report_names_the_sampling_and_what_holds_without_it(
    federation: Federation, services: Services, clock: FixedClock
) -> None:
    """Promise 9: rate, selection, the readers it holds against, and the epsilon against all others."""
    federation.register("silo")
    open_poisson(federation)
    draw(services, round_of(services))
    go(federation, clock)

    told = federation.http.get("/api/v1/privacy/report/1.1.0", headers=federation.staff("auditor")).json

    assert (told["selection"], told["sampling_rate"]) == ("poisson", "0.25")
    assert float(told["epsilon"]) < 3.0 < float(told["epsilon_if_cohort_known"])
    assert any("cannot see who took part" in line for line in told["not_covered"])
    assert "0.25" in json.dumps(told)


def test_no_figure_of_the_budget_stands_without_the_one_that_holds_for_all(
    federation: Federation, services: Services, clock: FixedClock, entries: Entries
) -> None:
    """Promise 9: who reads the budget or the log may know who took part: beside the amplified spend is the other."""
    federation.register("silo")
    open_poisson(federation)
    draw(services, round_of(services))
    go(federation, clock)

    (line,) = federation.http.get("/api/v1/privacy/budget", headers=federation.staff("auditor")).json["data"]
    (spent,) = entries("privacy.spent")

    for told in (line, spent["details"]):
        assert float(told["epsilon_spent"]) < 3.0 < float(told["epsilon_if_cohort_known"])
    assert line["epsilon_if_cohort_known"] == spent["details"]["epsilon_if_cohort_known"]
    assert "epsilon_if_cohort_known" not in spent["sealed"]


def test_the_coins_are_those_of_subjects(federation: Federation, services: Services) -> None:
    """Every eligible subject is drawn with the rate, whatever its place: 400 draws from fixed entropy."""
    from hashlib import shake_256

    for place in range(5):
        federation.register(f"silo-{place}")
    population = candidates(services, Selection(Strategy.POISSON), services.clock())
    wish, calls = Selection(Strategy.POISSON, sampling_rate=0.3), iter(range(10_000))

    def entropy(size: int) -> bytes:
        return shake_256(str(next(calls)).encode()).digest(size)

    drawn = [
        choose(services, population, wish, planned=1, least=1, entropy=entropy) or () for _ in range(400)
    ]

    for candidate in population:
        times = sum(candidate.client_ids[0] in one for one in drawn)
        assert abs(times - 120) < 6 * (400 * 0.3 * 0.7) ** 0.5


def round_of(services: Services) -> Any:
    """The newest round."""
    with reading(services.engine) as conn:
        return find_round(conn, 1)


def erase(federation: Federation, silo: Silo) -> None:
    """Erase the silo's subject."""
    wish = {"type": "erasure", "subject": {"client_id": silo.client_id}}
    answer = federation.http.post("/api/v1/privacy/requests", json=wish, headers=federation.staff("dpo"))
    assert answer.status_code == 201, answer.text
