"""Promise 9: a privacy claim is never stronger than the run was."""

from __future__ import annotations

import math

import pytest
from dp_accounting import GaussianDpEvent, PoissonSampledDpEvent, SelfComposedDpEvent
from dp_accounting.pld import PLDAccountant
from living.driver import BARE, BUDGET, NOISED, Driver, Json, good
from living.threads import LocalGateway

RECORD = {
    "mechanism": "gaussian",
    "unit": "record",
    "clip_norm": 1.0,
    "noise_multiplier": 5.0,
    "delta": 1e-5,
    "planned_records": 1000,
}


def test_a_claim_is_at_least_what_an_outside_accountant_computes(shared: LocalGateway) -> None:
    """Three releases at z = 4: never below dp_accounting's own figure for that Gaussian, nor far above it."""
    shared.add_model(budget=BUDGET)
    people = [shared.register(), shared.register()]
    versions = [shared.run_round(people)["result_model"]["version"] for _ in range(3)]

    claimed = [float(report(shared, version)["epsilon"]) for version in versions]

    for count, epsilon in enumerate(claimed, 1):
        outside = PLDAccountant().compose(SelfComposedDpEvent(GaussianDpEvent(4.0), count)).get_epsilon(1e-5)
        assert outside * 0.999 <= epsilon <= outside * 1.05
    assert claimed == sorted(claimed)


def test_a_report_states_its_terms(shared: LocalGateway) -> None:
    """Unit, mechanism, adjacency, planned count, delta, and what is not covered, beside every epsilon."""
    shared.add_model(budget=BUDGET)
    version = shared.run_round([shared.register(), shared.register()])["result_model"]["version"]

    told = report(shared, version)

    assert (told["unit"], told["mechanism"], told["planned_clients"]) == ("client", "gaussian", 2)
    assert told["delta"] == "0.00001"
    assert "add" in told["adjacency"]
    assert any("took part" in line for line in told["not_covered"])


def test_the_unit_record_says_that_silos_are_trusted(shared: LocalGateway) -> None:
    """The server cannot see a silo's records: every report of that unit says so."""
    shared.add_model(budget=BUDGET)
    version = shared.run_round([shared.register(), shared.register()], RECORD)["result_model"]["version"]

    told = report(shared, version)

    assert told["unit"] == "record"
    assert "trusted" in told["trust"]
    assert "several records" in told["trust"]


def test_a_lineage_with_a_release_without_noise_claims_no_epsilon(shared: LocalGateway) -> None:
    """Not for the bare release, not for a noised one after it, and not in the budget; before it, the claim stood."""
    model_id = shared.add_model()["model_id"]
    people = [shared.register(), shared.register()]
    before = shared.run_round(people)["result_model"]["version"]
    bare = shared.run_round(people, BARE)["result_model"]["version"]
    after = shared.run_round(people)["result_model"]["version"]

    epsilons = {version: report(shared, version)["epsilon"] for version in (before, bare, after)}
    (line,) = [line for line in budget(shared) if line["model_id"] == model_id]

    assert epsilons[before] is not None
    assert (epsilons[bare], epsilons[after]) == (None, None)
    assert line["epsilon_spent"] is None


@pytest.mark.parametrize("rule", ["median", "trimmed_mean", "multi_krum", "geometric_median"])
def test_a_rule_without_a_proof_claims_no_epsilon(shared: LocalGateway, rule: str) -> None:
    """With noise it is refused; without, its report has no epsilon and says why."""
    shared.add_model()
    people = [shared.register() for _ in range(5)]
    aggregation = {"rule": rule} | ({"faulty_clients": 1} if rule in ("trimmed_mean", "multi_krum") else {})

    noised = shared.ask_round(NOISED, aggregation=aggregation, planned_clients=5, min_clients=5)
    number = shared.open_round(BARE, aggregation=aggregation, planned_clients=5, min_clients=5)
    for person in people:
        shared.submit(person, number)
    told = report(shared, shared.await_end(number)["result_model"]["version"])

    assert noised.status_code == 422
    assert (told["epsilon"], told["delta"]) == (None, None)
    assert "no epsilon" in told["trust"]


def test_units_are_not_mixed_in_one_budget(shared: LocalGateway) -> None:
    """A claim about clients and a claim about records cannot be added: 422 names the unit."""
    shared.add_model(budget=BUDGET)
    shared.run_round([shared.register(), shared.register()])

    answer = shared.ask_round(RECORD)

    assert (answer.status_code, answer.json()["errors"][0]["pointer"]) == (422, "/privacy/unit")


def test_a_lineage_with_a_budget_takes_no_round_without_noise(shared: LocalGateway) -> None:
    """Such a release would spend all of it at once."""
    shared.add_model(budget=BUDGET)

    answer = shared.ask_round(BARE)

    assert (answer.status_code, answer.json()["code"]) == (409, "PRIVACY_BUDGET_EXCEEDED")


def test_a_wished_epsilon_is_kept(shared: LocalGateway) -> None:
    """The noise that is chosen for a wished epsilon claims no more than that, and not much less."""
    shared.add_model(budget=BUDGET)
    wish = {name: value for name, value in NOISED.items() if name != "noise_multiplier"} | {"epsilon": 2.0}

    version = shared.run_round([shared.register(), shared.register()], wish)["result_model"]["version"]

    epsilon = float(report(shared, version)["epsilon"])
    assert epsilon <= 2.0
    assert math.isclose(epsilon, 2.0, rel_tol=0.02)


def test_only_the_server_s_poisson_sampling_is_claimed(shared: LocalGateway) -> None:
    """The same noise and cohort: random claims no amplification, Poisson names its rate and what it holds against."""
    shared.add_model(budget=BUDGET)
    person = shared.register(capabilities={"is_alone": True})
    selection = {"strategy": "random", "capabilities": {"is_alone": True}}
    number = shared.open_round(selection=selection, planned_clients=1, min_clients=1)
    shared.await_invitation(person, number)
    shared.submit(person, number)
    plain = report(shared, shared.await_end(number)["result_model"]["version"])
    shared.add_model(budget=BUDGET)
    sampled = shared.run_poisson_round(0.01)

    amplified = report(shared, sampled["result_model"]["version"])

    assert (plain["selection"], plain["sampling_rate"]) == ("random", None)
    assert plain["epsilon"] == plain["epsilon_if_cohort_known"]
    assert not any("cannot see who took part" in line for line in plain["not_covered"])
    assert (amplified["selection"], amplified["sampling_rate"]) == ("poisson", "0.01")
    assert float(amplified["epsilon"]) < 0.1 < float(amplified["epsilon_if_cohort_known"])
    assert amplified["epsilon_if_cohort_known"] == plain["epsilon"]
    assert any("cannot see who took part" in line for line in amplified["not_covered"])


def test_a_sampled_claim_is_at_least_what_an_outside_accountant_computes(shared: LocalGateway) -> None:
    """A Poisson release beside a full one: never below dp_accounting's figure for that pair, nor far above it."""
    shared.add_model(budget=BUDGET)
    shared.run_round([shared.register(), shared.register()])
    version = shared.run_poisson_round(0.05)["result_model"]["version"]

    claimed = float(report(shared, version)["epsilon"])

    outside = PLDAccountant().compose(GaussianDpEvent(4.0))
    outside.compose(PoissonSampledDpEvent(0.05, GaussianDpEvent(4.0)))
    assert outside.get_epsilon(1e-5) * 0.999 <= claimed <= outside.get_epsilon(1e-5) * 1.05


def test_a_wished_epsilon_is_kept_under_sampling(shared: LocalGateway) -> None:
    """Sampling needs less noise for the same epsilon; an outside accountant finds the wish kept."""
    shared.add_model(budget=BUDGET)
    wish = {name: value for name, value in NOISED.items() if name != "noise_multiplier"} | {"epsilon": 1.0}

    answer = shared.ask_round(wish, selection={"strategy": "poisson", "sampling_rate": 0.05})

    multiplier = float(good(answer, 201)["privacy"]["noise_multiplier"])
    sampled = PoissonSampledDpEvent(0.05, GaussianDpEvent(multiplier))
    assert 0.97 < PLDAccountant().compose(sampled).get_epsilon(1e-5) <= 1.0
    assert multiplier < 3.7  # what epsilon 1 costs without sampling


def report(gateway: Driver, version: str) -> Json:
    """The privacy report of a model version."""
    url = f"/api/v1/privacy/report/{version}"
    return good(gateway.http.get(url, headers=gateway.as_role("auditor")), 200)


def budget(gateway: Driver) -> list[Json]:
    """Every lineage's budget."""
    told = good(gateway.http.get("/api/v1/privacy/budget", headers=gateway.as_role("auditor")), 200)
    lines: list[Json] = told["data"]
    return lines
