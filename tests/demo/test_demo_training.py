"""The demo's model and local steps: right gradients, and clipping that bounds what one record can do."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.numpy import save_file

from gateway.demo.data import CLASSES, FEATURES, Records, deal, load_split
from gateway.demo.evaluate import evaluate
from gateway.demo.model import Softmax, accuracy, clipped_gradient_sum, gradient_sum, loss
from gateway.demo.plan import Unit, make_plan
from gateway.demo.rehearsal import rehearse
from gateway.demo.training import clipped_steps, local_delta, local_update


def _random_model(seed: int, scale: float = 1.0) -> Softmax:
    randomness = np.random.default_rng(seed)
    weight = randomness.normal(size=(CLASSES, FEATURES))
    return Softmax(scale * weight, scale * randomness.normal(size=CLASSES))


def _random_records(seed: int, count: int) -> Records:
    """Records of any norm, to show that the bound does not rely on unit features."""
    randomness = np.random.default_rng(seed)
    lengths = randomness.lognormal(sigma=2, size=(count, 1))
    return Records(
        lengths * randomness.normal(size=(count, FEATURES)), randomness.integers(CLASSES, size=count)
    )


def test_the_gradient_is_the_slope_of_the_loss() -> None:
    """Checked against finite differences in weights and biases."""
    records = load_split()[0].take(np.arange(40))
    model = _random_model(1)

    gradient = gradient_sum(model, records)

    for digit, feature in [(0, 0), (3, 17), (9, 127)]:
        nudge = Softmax.zero()
        nudge.weight[digit, feature] = 1e-5
        slope = loss(model.plus(nudge), records) - loss(model.plus(nudge, -1.0), records)
        assert gradient.weight[digit, feature] == pytest.approx(len(records) * slope / 2e-5, abs=1e-6)
        nudge = Softmax.zero()
        nudge.bias[digit] = 1e-4
        slope = loss(model.plus(nudge), records) - loss(model.plus(nudge, -1.0), records)
        assert gradient.bias[digit] == pytest.approx(len(records) * slope / 2e-4, abs=1e-6)


def test_clipping_without_building_gradients_equals_clipping_them_one_by_one() -> None:
    """The vectorised clipped sum is the sum of single clipped gradients."""
    records, model, clip_norm = _random_records(2, 12), _random_model(3), 0.7

    fast = clipped_gradient_sum(model, records, clip_norm)

    slow = Softmax.zero()
    for row in range(len(records)):
        one = gradient_sum(model, records.take(np.array([row])))
        slow = slow.plus(one, scale=min(1.0, clip_norm / one.norm()))
    assert fast.plus(slow, -1.0).norm() < 1e-9


@settings(max_examples=60, deadline=None)
@given(
    seed=st.integers(0, 2**32 - 1),
    count=st.integers(1, 30),
    clip_norm=st.floats(0.01, 5),
    cap=st.floats(0.5, 40),
    scale=st.floats(0, 50),
)
def test_one_record_moves_what_a_silo_sends_by_the_clipping_norm_at_most(
    seed: int, count: int, clip_norm: float, cap: float, scale: float
) -> None:
    """RULES 11: sensitivity under add-or-remove-one-record, also where the silo's cap binds, in float32."""
    records, model = _random_records(seed, count + 1), _random_model(seed, scale)
    fewer = records.take(np.arange(count))

    sums = [
        clipped_steps(model, share, clip_norm=clip_norm, silo_norm=cap * clip_norm).tensors()
        for share in (records, fewer)
    ]

    distance = Softmax.from_tensors(sums[0]).plus(Softmax.from_tensors(sums[1]), -1.0).norm()
    assert distance <= clip_norm * (1 + 1e-6)
    assert Softmax.from_tensors(sums[0]).norm() <= cap * clip_norm


def test_a_step_goes_downhill() -> None:
    """The update of unit record is the negative clipped gradient: adding it lowers the loss."""
    training, _ = load_split()
    plan = make_plan(Unit.RECORD, rounds=12, clients=10, epsilon=3)

    update = Softmax.from_tensors(local_update(plan, Softmax.zero(), training))

    assert loss(Softmax.zero().plus(update, 1e-3), training) < loss(Softmax.zero(), training)


def test_a_silo_without_noise_sends_the_change_of_its_model() -> None:
    """Units client and none: base plus update is the silo's own model, which fits its own records."""
    records = deal(load_split()[0], 10)[0]
    base = _random_model(4, scale=0.1)

    own = base.plus(local_delta(base, records))

    assert loss(own, records) < loss(base, records) / 2


def test_updates_travel_as_float32_with_the_shapes_of_the_model() -> None:
    """The round's schema: `weight` and `bias`."""
    records = deal(load_split()[0], 10)[0]
    plan = make_plan(Unit.CLIENT, rounds=2, clients=10, epsilon=3)

    tensors = local_update(plan, Softmax.zero(), records)

    assert {name: (t.dtype.name, t.shape) for name, t in tensors.items()} == {
        "weight": ("float32", (CLASSES, FEATURES)),
        "bias": ("float32", (CLASSES,)),
    }


def test_record_level_training_reaches_nine_in_ten_whatever_the_noise() -> None:
    """At epsilon 3 and delta 1e-5 the held-out accuracy is at least 0.90 for each of 40 noise seeds."""
    training, held_out = load_split()
    plan = make_plan(Unit.RECORD, rounds=12, clients=10, epsilon=3)
    silos = deal(training, 10)

    finals = [rehearse(plan, silos, held_out, seed)[-1] for seed in range(40)]

    assert min(finals) >= 0.93
    assert np.mean(finals) >= 0.955


def test_training_without_noise_reaches_what_it_must() -> None:
    """`--no-dp` ends at 0.94 or more."""
    training, held_out = load_split()
    plan = make_plan(Unit.NONE, rounds=12, clients=10, epsilon=3)

    history = rehearse(plan, deal(training, 10), held_out, seed=0)

    assert history[-1] >= 0.94


def test_ten_clients_learn_little_under_client_level_noise() -> None:
    """The demo says so, and it is so: the unit client needs many more clients."""
    training, held_out = load_split()
    plan = make_plan(Unit.CLIENT, rounds=4, clients=10, epsilon=3)

    finals = [rehearse(plan, deal(training, 10), held_out, seed)[-1] for seed in range(10)]

    assert 0.1 < np.mean(finals) < 0.6


def test_a_model_that_knows_nothing_guesses() -> None:
    """Accuracy counts right answers: the zero model always says 0."""
    held_out = load_split()[1]

    found = accuracy(Softmax.zero(), held_out)

    assert found == held_out.label_counts()[0] / len(held_out)


def test_the_operators_evaluation_reads_a_model_file(tmp_path: Path) -> None:
    """`FLG_EVALUATE` gets a path and answers accuracy and loss on the held-out data."""
    model, held_out = _random_model(6), load_split()[1]
    save_file(model.tensors(), tmp_path / "model.safetensors")

    found = evaluate(str(tmp_path / "model.safetensors"))

    assert found["accuracy"] == accuracy(model, held_out)
    assert found["loss"] == pytest.approx(loss(model, held_out), rel=1e-5)
