"""The demo's plan: it fits its budget by the gateway's own accountant, and by its own grid."""

from __future__ import annotations

import pytest

from aggregation.accountant import epsilon as spent_by
from aggregation.grid import plan_grid
from aggregation.policy_request import policy_from_request
from gateway.demo.data import CLASSES, FEATURES
from gateway.demo.errors import UnplannableRun
from gateway.demo.plan import MOST_ROUNDS, Unit, make_plan

COORDINATES = CLASSES * (FEATURES + 1)


@pytest.mark.parametrize("unit", [Unit.RECORD, Unit.CLIENT])
@pytest.mark.parametrize(("rounds", "epsilon"), [(1, 3.0), (12, 3.0), (MOST_ROUNDS, 0.5), (12, 8.0)])
def test_all_rounds_together_stay_within_the_budget_and_use_it(
    unit: Unit, rounds: int, epsilon: float
) -> None:
    """What the gateway's ledger adds up for the planned rounds is just below the wished epsilon."""
    plan = make_plan(unit, rounds=rounds, clients=10, epsilon=epsilon)

    policy = policy_from_request(plan.round_request(0), coordinates=COORDINATES)
    mechanism = plan_grid(policy, COORDINATES).mechanism()
    spent = spent_by([mechanism] * rounds, 1e-5)

    assert 0.98 * epsilon < spent <= epsilon


@pytest.mark.parametrize("unit", list(Unit))
@pytest.mark.parametrize("clients", [1, 10, 35])
def test_the_gateway_accepts_every_round_of_a_plan(unit: Unit, clients: int) -> None:
    """The body of `POST /rounds` is a valid policy for each round."""
    plan = make_plan(unit, rounds=3, clients=clients, epsilon=3)

    policies = [policy_from_request(plan.round_request(index), coordinates=COORDINATES) for index in range(3)]

    assert [policy.server_lr for policy in policies] == [plan.server_lr(index) for index in range(3)]
    assert all(policy.is_noised == (unit is not Unit.NONE) for policy in policies)


def test_the_steps_of_record_level_training_fall_from_round_to_round() -> None:
    """Noise weighs most at the end: the server's step falls to half."""
    plan = make_plan(Unit.RECORD, rounds=12, clients=10, epsilon=3)

    steps = [plan.server_lr(index) for index in range(12)]

    assert steps == sorted(steps, reverse=True)
    assert steps[0] / steps[-1] == pytest.approx(2)


def test_a_plan_without_noise_has_no_budget() -> None:
    """No claim without noise."""
    plan = make_plan(Unit.NONE, rounds=12, clients=10, epsilon=3)

    assert plan.budget() is None
    assert plan.privacy() == {"mechanism": "none"}


@pytest.mark.parametrize(
    ("rounds", "epsilon"), [(0, 3.0), (101, 3.0), (12, 0.0), (12, float("nan")), (12, 1e6), (100, 0.01)]
)
def test_impossible_runs_are_refused_in_words(rounds: int, epsilon: float) -> None:
    """Wrong options stop the demo before anything starts."""
    with pytest.raises(UnplannableRun, match="take"):
        make_plan(Unit.RECORD, rounds=rounds, clients=10, epsilon=epsilon)
