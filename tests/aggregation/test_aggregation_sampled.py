"""Poisson cohorts in the numeric core: their policy, their spend, and a release that does not depend on their size."""

from __future__ import annotations

import hashlib
import json
import time
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import safetensors.numpy
from dp_accounting import GaussianDpEvent, PoissonSampledDpEvent, SelfComposedDpEvent
from dp_accounting.pld import PLDAccountant
from hypothesis import given
from hypothesis import strategies as st

from aggregation import (
    Mechanism,
    NoiseKind,
    Policy,
    PolicyError,
    ReadAt,
    Release,
    Unit,
    UpdateSource,
    aggregate,
    epsilon,
    noise_block,
    noise_multiplier_for,
    plan_grid,
    policy_from_request,
)

Accept = Callable[..., UpdateSource]
Store = Callable[..., ReadAt]
_KEY = bytes(range(32))
_BEFORE_SAMPLING = "a0b8299e2b32c9350b29cfaf20debefce9cec4afbe594888847c1f57f3d0a7e9"


def _policy(**changes: Any) -> Policy:
    values: dict[str, Any] = {
        "planned_clients": 2,
        "min_clients": 50,
        "mechanism": NoiseKind.GAUSSIAN,
        "clip_norm": 1.0,
        "noise_multiplier": 1.5,
        "delta": 1e-6,
        "sampling_rate": 0.1,
    }
    return Policy(**{**values, **changes})


def _run(policy: Policy, base: ReadAt, updates: list[UpdateSource]) -> tuple[Release, Any]:
    pieces: list[bytes] = []
    release = aggregate(policy, base, updates, write=pieces.append, noise_key=_KEY)
    raw = b"".join(pieces)
    assert release.checksum == hashlib.sha256(raw).hexdigest()
    return release, safetensors.numpy.load(raw)["w"]


def test_a_policy_without_sampling_keeps_its_digest() -> None:
    """The digests in receipts and logs of earlier versions stay true: the member is left out where it is None."""
    policy = _policy(planned_clients=10, min_clients=5, sampling_rate=None)

    assert policy.digest() == _BEFORE_SAMPLING
    assert "sampling_rate" not in json.loads(policy.canonical())
    assert Policy.from_canonical(policy.canonical()) == policy


@given(st.floats(1e-5, 1 - 1e-5))
def test_a_sampling_rate_reads_back_exactly(rate: float) -> None:
    """The rate of the draw and the rate of the accountant are one number."""
    policy = _policy(sampling_rate=rate)

    read = Policy.from_canonical(policy.canonical())

    assert (read, read.sampling_rate) == (policy, rate)
    assert read.digest() != _policy(sampling_rate=None, min_clients=2).digest()


@pytest.mark.parametrize(
    ("changes", "field"),
    [
        ({"sampling_rate": 0.0}, "selection.sampling_rate"),
        ({"sampling_rate": 1.0}, "selection.sampling_rate"),
        ({"sampling_rate": float("nan")}, "selection.sampling_rate"),
        ({"sampling_rate": 1e-9}, "selection.sampling_rate"),
        ({"unit": Unit.RECORD, "planned_records": 9, "noise_multiplier": 0.1}, "privacy.unit"),
        (
            {"mechanism": NoiseKind.NONE, "clip_norm": None, "noise_multiplier": None, "delta": None},
            "privacy.mechanism",
        ),
    ],
)
def test_sampling_goes_with_noise_for_clients_alone(changes: dict[str, Any], field: str) -> None:
    """A sampled silo shows itself by its other records: sampling silos amplifies no record's privacy."""
    with pytest.raises(PolicyError) as caught:
        _policy(**changes)

    assert caught.value.field == field


def test_the_minimum_bounds_the_population_and_not_the_sample() -> None:
    """It may lie above the planned count, and no cohort is too small."""
    assert _policy(min_clients=500, planned_clients=10).fewest_updates == 0
    with pytest.raises(PolicyError):
        _policy(min_clients=500, planned_clients=10, sampling_rate=None)


def test_an_empty_cohort_is_pure_noise(stored: Store) -> None:
    """The divisor is the planned count, whoever came; the release looks like any other."""
    release, model = _run(_policy(), stored({"w": np.zeros(1000)}), [])

    grid = plan_grid(_policy(), 1000)
    assert model == pytest.approx(noise_block(_KEY, 0, 0, 1000) * grid.step / 2, abs=1e-12)
    assert release.certificate.sum_q2_max == "0"


def test_a_cohort_larger_than_planned_does_not_overflow(stored: Store, accept: Accept) -> None:
    """3,000 clipped updates on one coordinate pass 2^31 grid steps; the divisor stays as planned."""
    one = accept("u0", {"w": np.full(1, 1.0)})
    crowd = [UpdateSource(f"u{place}", one.read_at, one.norm) for place in range(3000)]

    _, model = _run(_policy(noise_multiplier=0.4), stored({"w": np.zeros(1)}), crowd)

    assert model[0] == pytest.approx(3000 / 2, abs=2.0)


def test_a_certificate_does_not_tell_the_size_of_a_sample(stored: Store, accept: Accept) -> None:
    """No count, and an accumulator that is the same for every size."""
    base = stored({"w": np.zeros(4)})
    some = [accept(f"u{place}", {"w": np.full(4, 0.1)}) for place in range(3)]

    told = [_run(_policy(), base, cohort)[0].certificate.details() for cohort in ([], some)]

    assert told[0] == told[1]
    assert (told[0]["sampling_rate"], told[0]["accumulator"]) == ("0.1", "int64")
    assert "count" not in told[0]


def test_a_ledger_of_many_like_rounds_is_accounted_as_one() -> None:
    """A line a round: 400 lines cost what one mechanism of count 400 does, and not 400 compositions."""
    lines = [Mechanism(1.0, 0.01)] * 400 + [Mechanism(4.0)] * 3

    began = time.perf_counter()
    spent = epsilon(lines, 1e-5)
    took_s = time.perf_counter() - began

    assert spent == epsilon([Mechanism(1.0, 0.01, 400), Mechanism(4.0, count=3)], 1e-5)
    assert took_s < 30  # measured 0.6 s; line by line more than 200 s


def test_a_mixed_lineage_costs_at_least_what_dp_accounting_says() -> None:
    """Full and sampled releases of several rates together, from above and within two percent."""
    spent = epsilon([Mechanism(4.0, count=3), Mechanism(1.2, 0.02, 10), Mechanism(2.0, 0.2, 5)], 1e-5)

    outside = PLDAccountant().compose(SelfComposedDpEvent(GaussianDpEvent(4.0), 3))
    outside.compose(PoissonSampledDpEvent(0.02, GaussianDpEvent(1.2)), 10)
    outside.compose(PoissonSampledDpEvent(0.2, GaussianDpEvent(2.0)), 5)
    assert outside.get_epsilon(1e-5) * 0.999 <= spent <= outside.get_epsilon(1e-5) * 1.02


def test_a_wished_epsilon_needs_less_noise_under_sampling() -> None:
    """The request's rate reaches the search for the multiplier, and the planned grid keeps the wish."""
    request = {
        "planned_clients": 10,
        "min_clients": 5,
        "privacy": {"mechanism": "gaussian", "clip_norm": 1, "epsilon": 1.0, "delta": 1e-5},
    }

    sampled = policy_from_request(request, coordinates=1000, sampling_rate=0.05)

    assert (sampled.noise_multiplier or 0.0) < noise_multiplier_for(1.0, 1e-5) / 3
    assert 0.97 < epsilon([plan_grid(sampled, 1000).mechanism(0.05)], 1e-5) <= 1.0
