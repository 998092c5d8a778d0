"""The accountant against published values, dp_accounting, and the exact discrete law."""

from __future__ import annotations

import math

import dp_accounting
import numpy as np
import pytest
from dp_accounting import gaussian_mechanism, pld, rdp
from hypothesis import given, settings
from hypothesis import strategies as st

from aggregation import (
    Mechanism,
    PolicyError,
    decimal_up,
    delta_at,
    epsilon,
    gaussian_delta,
    gaussian_epsilon,
    noise_multiplier_for,
)


def test_the_analytic_gaussian_has_its_published_value() -> None:
    """Balle and Wang 2018: sigma 3.730632 for epsilon 1, delta 1e-5 (the classic formula says 4.84)."""
    assert noise_multiplier_for(1.0, 1e-5) == pytest.approx(3.730632, rel=3e-6)


def test_the_sampled_gaussian_has_its_published_value() -> None:
    """The Fourier accountant of Koskela, Jälkö and Honkela 2020: its documented values are met from above."""
    assert 4.243484012e-6 <= delta_at([Mechanism(4.0, 0.01, 10_000)], 1.0) < 4.243484012e-6 * 1.005
    assert 2.446734 <= epsilon([Mechanism(2.0, 0.01, 10_000)], 1e-6) < 2.446734 * 1.005


def test_the_moments_accountants_example_costs_less_here() -> None:
    """Abadi et al. 2016: sigma 4, q 0.01, 10,000 steps, delta 1e-5: epsilon 1.26 by moments, tighter by PLD."""
    assert 0.9 < epsilon([Mechanism(4.0, 0.01, 10_000)], 1e-5) < 1.26


@given(st.floats(0.05, 100), st.floats(1e-12, 0.1))
def test_a_single_release_agrees_with_dp_accounting(multiplier: float, delta: float) -> None:
    """The analytic Gaussian is computed as by dp_accounting, and never lower."""
    ours = epsilon([Mechanism(multiplier)], delta)

    theirs = gaussian_mechanism.get_epsilon_gaussian(multiplier, delta)
    assert ours == pytest.approx(theirs, rel=1e-6, abs=1e-6)
    assert gaussian_delta(1 / multiplier, ours) <= delta


@given(st.lists(st.tuples(st.floats(0.3, 50), st.integers(1, 20)), min_size=1, max_size=4))
def test_full_participation_composes_exactly(rounds: list[tuple[float, int]]) -> None:
    """mu^2 = sum of 1/z^2: many releases cost as one of their joint width (RULES 10)."""
    together = epsilon([Mechanism(z, count=count) for z, count in rounds], 1e-6)

    mu = math.sqrt(sum(count / z**2 for z, count in rounds))
    assert together == pytest.approx(gaussian_epsilon(mu, 1e-6), rel=1e-9)


def test_privacy_loss_distributions_agree_where_both_know_the_answer() -> None:
    """A PLD of full participation is pessimistic, and close to the exact composition."""
    exact = epsilon([Mechanism(5.0, count=40)], 1e-6)

    composed = pld.privacy_loss_distribution.from_gaussian_mechanism(5.0).self_compose(40)
    assert exact <= composed.get_epsilon_for_delta(1e-6) < exact * 1.01


def test_renyi_accounting_confirms_the_mixed_spend() -> None:
    """RDP, a looser method of its own, is above ours and not far."""
    ours = epsilon([Mechanism(1.1, 0.02, 500), Mechanism(10.0, 1.0, 3)], 1e-6)

    accountant = rdp.RdpAccountant()
    accountant.compose(dp_accounting.PoissonSampledDpEvent(0.02, dp_accounting.GaussianDpEvent(1.1)), 500)
    accountant.compose(dp_accounting.GaussianDpEvent(10.0), 3)
    assert ours < accountant.get_epsilon(1e-6) < 1.35 * ours


def test_sampling_never_costs_more() -> None:
    """Amplification lowers epsilon, down from that of full participation."""
    costs = [epsilon([Mechanism(1.0, rate, 10)], 1e-6) for rate in (0.01, 0.5, 1.0)]

    assert costs == sorted(costs)


@pytest.mark.parametrize(("sigma", "shift"), [(5, 3), (8, 8), (20, 31), (64, 64)])
@pytest.mark.parametrize("target", [0.0, 0.1, 1.0, 3.0])
def test_the_discrete_law_is_no_worse_than_the_narrower_continuous_one(
    sigma: int, shift: int, target: float
) -> None:
    """RULES 10: a discrete Gaussian of variance s^2 hides as a continuous one of variance s^2 - 5."""
    grid = np.arange(-30 * sigma, 30 * sigma + 1.0)
    law = np.exp(-(grid**2) / (2 * sigma**2))
    law /= law.sum()
    moved = np.roll(law, shift)

    discrete = float(np.maximum(moved - math.exp(target) * law, 0).sum())

    assert discrete <= gaussian_delta(shift / math.sqrt(sigma**2 - 5), target) + 1e-13


def test_a_stated_distance_is_paid_out_of_delta() -> None:
    """Both neighbours are that far from the accounted law: (1 + e^eps) distance, for each release."""
    plain, near = Mechanism(1.0, count=3), Mechanism(1.0, count=3, distance=1e-10)

    spent = epsilon([near], 1e-5)

    assert spent > epsilon([plain], 1e-5)
    assert delta_at([plain], spent) + (1 + math.exp(spent)) * 3e-10 <= 1e-5
    assert delta_at([near], spent) == pytest.approx(1e-5, rel=1e-6)
    assert epsilon([Mechanism(1.0, distance=1e-5)], 1e-5) == math.inf
    assert epsilon([Mechanism(0.1, distance=1e-9)], 1e-5) == math.inf


@settings(max_examples=15, deadline=None)
@given(st.floats(0.05, 30), st.floats(1e-10, 1e-3), st.integers(1, 200), st.sampled_from([0.0, 1e-15]))
def test_a_calibrated_multiplier_keeps_the_budget_and_no_smaller_one_does(
    wished: float, delta: float, count: int, distance: float
) -> None:
    """What noise_multiplier_for gives spends at most the wished epsilon, and wastes nearly nothing."""
    found = noise_multiplier_for(wished, delta, count, distance=distance)

    assert epsilon([Mechanism(found, 1.0, count, distance)], delta) <= wished
    assert epsilon([Mechanism(found * (1 - 3e-5), 1.0, count, distance)], delta) > wished


def test_a_calibrated_multiplier_under_sampling_keeps_the_budget() -> None:
    """The same where the cohort is drawn."""
    found = noise_multiplier_for(2.0, 1e-6, 50, 0.05)

    assert 1.97 < epsilon([Mechanism(found, 0.05, 50)], 1e-6) <= 2.0
    assert found < noise_multiplier_for(2.0, 1e-6, 50)


@pytest.mark.timeout(30)
def test_a_reckless_policy_is_still_accounted() -> None:
    """Tiny noise gives a huge epsilon, not a huge allocation."""
    assert epsilon([Mechanism(0.01, 0.5, 100)], 1e-6) > 1000
    assert epsilon([Mechanism(0.001)], 1e-6) > 100_000


def test_nothing_spent_costs_nothing() -> None:
    """An empty ledger has epsilon 0."""
    assert epsilon([], 1e-6) == 0
    assert epsilon([Mechanism(1.0, count=0)], 1e-6) == 0
    assert delta_at([], 0.0) == 0
    assert epsilon([Mechanism(1e5)], 1e-3) == 0


def test_reports_round_up() -> None:
    """A decimal string is never below the number it stands for."""
    assert decimal_up(1.0) == "1.000000"
    assert decimal_up(1.0000000001) == "1.000001"
    assert decimal_up(0.1, 1) == "0.2"  # the float 0.1 is a little above a tenth
    assert decimal_up(math.inf) == "Infinity"


@pytest.mark.parametrize(
    "values", [(0.0,), (math.nan,), (1.0, 0.0), (1.0, 1.1), (1.0, 1.0, -1), (1.0, 1.0, 1, 1.0)]
)
def test_a_mechanism_that_cannot_be_is_refused(values: tuple[float, ...]) -> None:
    """The ledger holds no nonsense."""
    with pytest.raises(PolicyError):
        Mechanism(*values)  # type: ignore[arg-type]


def test_an_impossible_wish_is_refused() -> None:
    """No noise reaches epsilon 0 at this distance, and no delta of 0 or 1 is one."""
    with pytest.raises(PolicyError):
        noise_multiplier_for(0.5, 1e-9, distance=1e-9)
    with pytest.raises(PolicyError):
        epsilon([Mechanism(1.0)], 0.0)
