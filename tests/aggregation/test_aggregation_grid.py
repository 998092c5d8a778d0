"""Clipping and the integer grid: the sensitivity holds for every input, and is checked where it is claimed."""

from __future__ import annotations

import math
from fractions import Fraction
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from aggregation import (
    SIGMA,
    Grid,
    NoiseKind,
    Policy,
    PolicyError,
    SensitivityExceeded,
    Unit,
    clip,
    l2_norm,
    plan_grid,
    quantise,
)
from aggregation.noise import MAX_NOISE, SIGMA_SQUARED


def _policy(**changes: Any) -> Policy:
    values: dict[str, Any] = {
        "planned_clients": 10,
        "min_clients": 2,
        "mechanism": NoiseKind.GAUSSIAN,
        "clip_norm": 1.0,
        "noise_multiplier": 1.0,
        "delta": 1e-6,
    }
    return Policy(**{**values, **changes})


def _record_policy(**changes: Any) -> Policy:
    return _policy(**{"unit": Unit.RECORD, "planned_records": 100, **changes})


def _on_grid(vector: np.ndarray, grid: Grid) -> np.ndarray:
    steps, squares = quantise(vector, grid.scale(l2_norm({"v": vector})), grid, "u")
    assert squares == sum(int(step) ** 2 for step in steps)
    return steps


_MULTIPLIERS = st.floats(1e-3, 1000) | st.integers(1, 1000).map(lambda k: SIGMA / (512 * k))


@given(_MULTIPLIERS.filter(lambda z: 1e-3 <= z <= 1000))
def test_the_noise_on_the_grid_is_never_less_than_planned(multiplier: float) -> None:
    """S = min(2^20, floor(sqrt(Sigma^2 - 5)/z)): what the accountant may count is at least z."""
    grid = plan_grid(_policy(noise_multiplier=multiplier), 1000)

    exact_square = Fraction(SIGMA_SQUARED - 5, grid.sensitivity**2)
    assert exact_square >= Fraction(multiplier) ** 2
    assert Fraction(grid.noise_multiplier) ** 2 <= exact_square
    assert grid.sensitivity == 2**20 or grid.noise_multiplier < multiplier * (1 + 2 / grid.sensitivity)
    assert grid.sensitivity <= 2**20
    assert grid.bound == grid.sensitivity**2


_VECTORS = st.sampled_from([np.float16, np.float32, np.float64]).flatmap(
    lambda dtype: hnp.arrays(
        dtype,
        st.integers(1, 40),
        elements=hnp.from_dtype(
            np.dtype(dtype), allow_nan=False, allow_infinity=False, max_value=1e4, min_value=-1e4
        ),
    )
)


@settings(max_examples=300)
@given(_VECTORS, st.floats(1e-9, 1e9), st.floats(0.1, 1000), st.floats(0, 1))
def test_a_clipped_update_never_passes_the_bound(
    vector: np.ndarray, clip_norm: float, multiplier: float, share: float
) -> None:
    """By construction sum(q^2) <= S^2, whatever float rounding does; truncation never enlarges a number."""
    grid = plan_grid(_policy(clip_norm=clip_norm, noise_multiplier=multiplier), vector.size)
    scale = grid.scale(l2_norm({"v": vector}), share)

    steps, squares = quantise(vector, scale, grid, "u")

    assert squares <= grid.bound
    assert all(
        abs(int(q)) <= abs(Fraction(float(x))) * Fraction(scale) * (1 + Fraction(1, 2**52))
        for q, x in zip(steps, vector, strict=True)
    )


@pytest.mark.parametrize("size", [1, 2, 4, 1_000_000])
def test_an_update_of_exactly_the_clip_norm_uses_the_whole_grid(size: int) -> None:
    """Nothing is lost but the truncation."""
    vector = np.full(size, 1 / math.sqrt(size))
    grid = plan_grid(_policy(), size)

    steps, squares = quantise(vector, grid.scale(1.0), grid, "u")

    assert squares <= grid.bound
    assert np.abs(steps * grid.step - vector).max() <= grid.step


def test_an_update_below_the_clip_norm_is_not_enlarged() -> None:
    """Clipping only ever shortens."""
    grid = plan_grid(_policy(clip_norm=8.0), 2)

    steps = _on_grid(np.array([0.25, -0.5]), grid)

    assert steps * grid.step == pytest.approx([0.25, -0.5], abs=2 * grid.step)


@pytest.mark.parametrize("lie", [0.0, 0.5, 0.999])
def test_a_norm_that_lies_is_found(lie: float) -> None:
    """The norm on arrival is an input; the integer check catches one that is too small, loudly."""
    vector = np.full(1000, 1.0, np.float32)
    grid = plan_grid(_policy(), vector.size)

    with pytest.raises(SensitivityExceeded) as caught:
        quantise(vector, grid.scale(lie * math.sqrt(1000)), grid, "u7")

    assert caught.value.update_id == "u7"


def test_a_lie_that_each_piece_alone_would_hide_is_found() -> None:
    """The bound is for the whole update: parts that keep it may break it together."""
    vector = np.full(3 * 8192, 1.0, np.float32)
    grid = plan_grid(_policy(), vector.size)

    with pytest.raises(SensitivityExceeded):
        quantise(vector, grid.scale(0.8 * l2_norm({"v": vector})), grid, "u")


@given(st.floats(1e-30, 1e30), st.floats(1e-9, 1e15), st.booleans())
def test_the_scale_leaves_room_for_every_rounding(norm: float, clip_norm: float, record: bool) -> None:
    """What norm and products may be off by (1e-11) is taken from the scale beforehand (2^-32)."""
    policy = _record_policy if record else _policy
    grid = plan_grid(policy(clip_norm=clip_norm), 100)

    assert Fraction(norm) * Fraction(grid.scale(norm)) <= Fraction(grid.radius) * (1 - Fraction(1, 2**33))
    assert 1 - 2**-40 < grid.bound / grid.radius**2 <= 1 + 2**-40


@pytest.mark.parametrize("bad", [math.nan, math.inf, 1e300])
def test_numbers_that_no_integer_holds_never_reach_the_sum(bad: float) -> None:
    """NaN and overflow fail the check before anything is cast."""
    grid = plan_grid(_policy(), 2)

    with pytest.raises(SensitivityExceeded):
        quantise(np.array([0.0, bad]), grid.scale(1.0), grid, "u")


@settings(max_examples=200)
@given(
    st.data(), st.integers(1, 30), st.sampled_from([1, 3, 1000, 10**7]), st.sampled_from([1e-4, 1.0, 77.7])
)
def test_one_record_moves_a_silo_by_at_most_the_sensitivity(
    data: st.DataObject, size: int, records: int, clip_norm: float
) -> None:
    """Unit record: neighbours differ by at most S steps on the grid, also at the ball's border (RULES 11)."""
    grid = plan_grid(_record_policy(clip_norm=clip_norm, planned_records=records), size)
    directions = hnp.arrays(np.float64, size, elements=st.floats(-1, 1))
    silo = data.draw(directions) * data.draw(st.sampled_from([0.3, 1.0, 1.01, 5.0])) * clip_norm * records
    record = data.draw(directions)
    record *= clip_norm / max(float(np.linalg.norm(record)), 1.0) * (1 - 1e-9)

    difference = [
        int(a) - int(b) for a, b in zip(_on_grid(silo + record, grid), _on_grid(silo, grid), strict=True)
    ]

    assert sum(step**2 for step in difference) <= grid.sensitivity**2


def test_the_record_grid_leaves_room_for_truncation() -> None:
    """k steps for the clip norm, sqrt(d) for truncation, a margin for rounding: together S."""
    grid = plan_grid(_record_policy(), 10_001)

    assert grid.sensitivity == plan_grid(_policy(), 1).sensitivity
    assert grid.steps == grid.sensitivity - 101 - 1
    assert grid.step == 1.0 / grid.steps
    assert grid.radius == 100 * grid.steps
    assert plan_grid(_record_policy(silo_norm=5.0), 10_001).radius == 5 * grid.steps


def test_a_wide_silo_is_checked_exactly() -> None:
    """Sums of squares beyond 2^53 are still compared as integers."""
    grid = plan_grid(_record_policy(planned_records=2**30), 3)
    assert grid.radius == 2**40

    vector = np.array([1.0, 2.0, -2.0]) * 2.0**30
    steps = _on_grid(vector, grid)

    assert steps.dtype == np.int64
    assert grid.bound * 0.999 < sum(int(step) ** 2 for step in steps) <= grid.bound
    with pytest.raises(SensitivityExceeded):
        quantise(vector, grid.scale(2.9 * 2.0**30), grid, "u")


def test_a_record_grid_too_coarse_for_the_model_is_refused() -> None:
    """Where sqrt(d) eats the whole sensitivity, the policy cannot be."""
    with pytest.raises(PolicyError) as caught:
        plan_grid(_record_policy(noise_multiplier=100.0), 10**9)

    assert caught.value.field == "privacy.noise_multiplier"


def test_the_accumulator_is_int32_only_where_the_sum_fits() -> None:
    """cohort * max|q| + 13 Sigma < 2^31 by planned numbers, else int64 (RULES 9)."""
    grid = plan_grid(_policy(), 1)
    most = (2**31 - 1 - MAX_NOISE) // grid.sensitivity

    assert grid.accumulator(most) == np.int32
    assert grid.accumulator(most + 1) == np.int64
    assert plan_grid(_record_policy(planned_records=10**6), 1).accumulator(1) == np.int64


def test_clipping_scales_all_tensors_together() -> None:
    """One factor for the whole update, integers left alone."""
    tensors = {"a": np.array([3.0], np.float32), "b": np.array([4.0]), "n": np.array([9])}

    clipped = clip(tensors, 1.0)

    assert l2_norm(clipped) == pytest.approx(1.0)
    assert clipped["a"].dtype == np.float32
    assert clipped["n"].tolist() == [9]
    assert clip(tensors, 10.0)["b"].tolist() == [4.0]
