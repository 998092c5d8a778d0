"""Releases of the local engine: exact, replayable, independent of threads, certified or not written at all."""

from __future__ import annotations

import hashlib
import math
import tracemalloc
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import safetensors.numpy

from aggregation import (
    BadFormat,
    DuplicateUpdate,
    ModelOverflow,
    NoiseKeyMismatch,
    NoiseKind,
    Policy,
    PolicyError,
    ReadAt,
    Release,
    SensitivityExceeded,
    TooFewUpdates,
    Unit,
    UpdateSource,
    Weights,
    aggregate,
    header_bytes,
    noise_block,
    plan_grid,
)
from aggregation.wire import TensorSpec, decode, encode

Accept = Callable[..., UpdateSource]
Store = Callable[..., ReadAt]
_KEY = bytes(range(32))
_SHAPES = {"a": (70_000,), "b": (3, 5), "e": (0, 4), "s": ()}


def _plain(**changes: Any) -> Policy:
    return Policy(**{"planned_clients": 4, "min_clients": 2, **changes})


def _noised(**changes: Any) -> Policy:
    values = {"mechanism": NoiseKind.GAUSSIAN, "clip_norm": 2.0, "noise_multiplier": 1.0, "delta": 1e-6}
    return _plain(**{**values, **changes})


def _tensors(seed: int, scale: float = 1.0) -> dict[str, Any]:
    rng = np.random.default_rng(seed)
    return {name: (scale * rng.normal(size=shape)).astype("<f4") for name, shape in _SHAPES.items()}


def _run(
    policy: Policy, base: ReadAt, updates: list[UpdateSource], **options: Any
) -> tuple[Release, dict[str, Any], bytes]:
    pieces: list[bytes] = []
    release = aggregate(policy, base, updates, write=pieces.append, **options)
    raw = b"".join(pieces)
    assert release.checksum == hashlib.sha256(raw).hexdigest()
    assert release.size_bytes == len(raw)
    return release, safetensors.numpy.load(raw), raw


@pytest.fixture
def updates(accept: Accept) -> list[UpdateSource]:
    """Three updates of four planned: two above the clip norm, one far below."""
    return [
        accept(f"u{i}", _tensors(i, scale), weight=10 * i) for i, scale in ((1, 1.0), (2, 0.1), (3, 1e-4))
    ]


@pytest.fixture
def base(stored: Store) -> ReadAt:
    """The model the round starts from."""
    return stored(_tensors(100))


def test_a_mean_without_noise_is_the_mean(base: ReadAt, updates: list[UpdateSource]) -> None:
    """New model = base + server_lr * mean of the deltas, divided by what was received."""
    release, model, _ = _run(_plain(server_lr=0.5), base, updates)

    for name in _SHAPES:
        deltas = [_tensors(i, s)[name].astype(float) for i, s in ((1, 1.0), (2, 0.1), (3, 1e-4))]
        expected = _tensors(100)[name] + 0.5 * np.mean(deltas, axis=0)
        assert model[name] == pytest.approx(expected, rel=1e-6, abs=1e-6)
    assert release.certificate.divisor == "3"
    assert "sensitivity" not in release.certificate.details()


def test_weights_by_samples_count_up_to_their_cap(base: ReadAt, updates: list[UpdateSource]) -> None:
    """Without noise the divisor is the sum of the weights received."""
    weighted = [(1, 1.0, 10), (2, 0.1, 20), (3, 1e-4, 25)]

    release, model, _ = _run(_plain(weights=Weights.SAMPLES, weight_cap=25), base, updates)

    total = sum(w * _tensors(i, s)["b"].astype(float) for i, s, w in weighted)
    assert model["b"] == pytest.approx(_tensors(100)["b"] + total / 55, rel=1e-6)
    assert release.certificate.divisor == "55"


def test_a_clip_norm_without_noise_clips(base: ReadAt, updates: list[UpdateSource]) -> None:
    """An update longer than the clip norm is shortened to it."""
    _, model, _ = _run(_plain(clip_norm=2.0, min_clients=1), base, updates[:1])

    change = [model[name].astype(float) - _tensors(100)[name] for name in _SHAPES]
    assert math.sqrt(sum(float((c**2).sum()) for c in change)) == pytest.approx(2.0, rel=1e-3)


@pytest.mark.parametrize("policy", [_plain(), _noised()], ids=["plain", "noised"])
def test_order_and_threads_do_not_change_a_bit(
    policy: Policy, base: ReadAt, updates: list[UpdateSource]
) -> None:
    """The cohort is a set, and sums are made in the order of ids, or exactly."""
    key = _KEY if policy.is_noised else None

    files = {
        _run(policy, base, cohort, noise_key=key, threads=threads)[2]
        for cohort in (updates, updates[::-1])
        for threads in (1, 2, 5)
    }

    assert len(files) == 1


def test_a_noised_mean_is_the_exact_integer_sum_and_its_noise(
    base: ReadAt, updates: list[UpdateSource]
) -> None:
    """Recomputed here with plain integers: sum of trunc(scaled update), plus noise, times gamma over planned count."""
    policy = _noised(server_lr=0.5)
    grid = plan_grid(policy, 70_016)

    _, model, _ = _run(policy, base, updates, noise_key=_KEY)

    total = np.zeros(70_000, dtype=object)
    for source, (seed, scale) in zip(updates, ((1, 1.0), (2, 0.1), (3, 1e-4)), strict=True):
        scaled = _tensors(seed, scale)["a"].astype(np.float64) * grid.scale(source.norm)
        total += np.array([math.trunc(x) for x in scaled], dtype=object)
    noise = np.concatenate([noise_block(_KEY, 0, 0, 65_536), noise_block(_KEY, 0, 1, 70_000 - 65_536)])
    change = (total + noise).astype(float) * (grid.step * 0.5 / 4)
    assert np.array_equal(model["a"], (_tensors(100)["a"] + change).astype("<f4"))


def test_the_noise_has_the_planned_size(stored: Store, accept: Accept) -> None:
    """z * C / planned count on every coordinate, whoever was there; a dropped client counts as zero (RULES 6)."""
    zeros = {"w": np.zeros(200_000, "<f8")}
    policy = _noised(noise_multiplier=3.0, planned_clients=10)

    release, model, _ = _run(
        policy, stored(zeros), [accept("u1", zeros), accept("u2", zeros)], noise_key=_KEY
    )

    assert model["w"].std() == pytest.approx(3.0 * 2.0 / 10, rel=0.01)
    assert release.certificate.divisor == "10"
    assert release.certificate.count == 2


def test_capped_weights_under_noise_keep_the_sensitivity(stored: Store, accept: Accept) -> None:
    """A weight is a share of the public cap, at most 1; divisor and noise stay as planned."""
    vector = {"w": np.full(4, 1.0)}
    policy = _noised(weights=Weights.SAMPLES, weight_cap=100, noise_multiplier=1.0)
    cohort = [accept("u1", vector, weight=50), accept("u2", vector, weight=10**6)]
    zero_cohort = [replace(source, weight=0) for source in cohort]
    base = stored({"w": np.zeros(4)})

    weighted = _run(policy, base, cohort, noise_key=_KEY)[1]["w"]
    weightless = _run(policy, base, zero_cohort, noise_key=_KEY)[1]["w"]

    assert weighted - weightless == pytest.approx(np.full(4, 1.5 / 4), rel=1e-4)


def test_record_sums_are_divided_by_planned_records(stored: Store, accept: Accept) -> None:
    """Unit record: the silos' sums over a public record count; the noise is drawn once."""
    policy = _noised(unit=Unit.RECORD, planned_records=1000, clip_norm=1.0)
    silos = [accept("u1", {"w": np.full(4, 30.0)}), accept("u2", {"w": np.full(4, -10.0)})]

    release, model, _ = _run(policy, stored({"w": np.zeros(4)}), silos, noise_key=_KEY)

    noise = noise_block(_KEY, 0, 0, 4) * plan_grid(policy, 4).step
    assert model["w"] == pytest.approx((20.0 + noise) / 1000, abs=1e-6)
    assert release.certificate.divisor == "1000"
    assert release.certificate.unit == "record"


def test_the_certificate_holds_no_float_and_no_norm(base: ReadAt, updates: list[UpdateSource]) -> None:
    """It goes into the audit entry: integers within 2^53, strings, and nothing un-noised of the updates (RULES 13)."""
    certificate = _run(_noised(), base, updates, noise_key=_KEY)[0].certificate

    details = certificate.details()
    assert all(isinstance(value, str) or abs(value) <= 2**53 for value in details.values())
    assert details["sum_q2_bound"] == str(details["sensitivity"] ** 2)  # type: ignore[operator]
    assert details["policy"] == _noised().digest()
    assert details["accumulator"] == "int32"
    assert "sum_q2_max" not in details
    assert certificate.sum_q2_max is not None
    assert 0 < int(certificate.sum_q2_max) <= int(details["sum_q2_bound"])


def test_a_norm_that_lies_ends_the_release_without_a_certificate(
    base: ReadAt, updates: list[UpdateSource]
) -> None:
    """A norm too small for the bytes cannot pass, even if each block alone would."""
    lying = [replace(updates[0], norm=updates[0].norm * 0.99), *updates[1:]]

    with pytest.raises(SensitivityExceeded) as caught:
        _run(_noised(), base, lying, noise_key=_KEY)

    assert caught.value.update_id == "u1"


def test_integers_pass_through_from_the_base(stored: Store, accept: Accept) -> None:
    """Counters, masks and indices are not averaged; the base's metadata stays too."""
    fixed = {"n": np.arange(5), "m": np.array([True, False])}
    base = stored({**fixed, "w": np.zeros(3, "<f4")})
    other = {"n": np.zeros(5, int), "m": np.array([True, True]), "w": np.ones(3, "<f4")}

    _, model, _ = _run(_plain(), base, [accept("u1", other), accept("u2", other)])

    assert model["n"].tolist() == [0, 1, 2, 3, 4]
    assert model["m"].tolist() == [True, False]
    assert model["w"].tolist() == [1, 1, 1]


def test_metadata_of_the_base_stays() -> None:
    """PyTorch, for one, asks for `format`."""
    raw = header_bytes((TensorSpec("w", "F32", (1,)),), {"format": "pt"}) + bytes(4)
    pieces: list[bytes] = []

    aggregate(
        _plain(min_clients=1), _reader(raw), [UpdateSource("u", _reader(raw), 0.0)], write=pieces.append
    )

    assert b"".join(pieces) == raw


@pytest.mark.parametrize("dtype", ["F16", "BF16", "F32", "F64"])
def test_every_float_dtype_is_aggregated_in_its_own(dtype: str) -> None:
    """A model keeps its dtype; the sum is made in float64 and rounded once."""
    schema = (TensorSpec("w", dtype, (4,)),)

    def file(numbers: list[float]) -> bytes:
        return header_bytes(schema) + encode(np.array(numbers), dtype, "w")

    base, one, two = file([1, 2, 3, 4]), file([0.5, 0, 0, -2]), file([0.5, 1, 0, -2])
    pieces: list[bytes] = []
    sources = [UpdateSource(name, _reader(raw), 3.0) for name, raw in (("u1", one), ("u2", two))]

    aggregate(_plain(), _reader(base), sources, write=pieces.append)

    body = b"".join(pieces)[len(header_bytes(schema)) :]
    assert decode(body, dtype).tolist() == [1.5, 2.5, 3, 2]


def test_bfloat16_rounds_to_nearest_even() -> None:
    """As PyTorch rounds."""
    numbers = np.array([1 + 2**-8, 1 + 3 * 2**-8, -1 - 2**-8 - 2**-20, 0.1])

    rounded = decode(encode(numbers, "BF16", "w"), "BF16")

    assert rounded.tolist() == [1.0, 1 + 2**-6, -1 - 2**-7, 0.10009765625]


@pytest.mark.parametrize(("dtype", "number"), [("F16", 7e4), ("BF16", 3.4e38), ("F32", 1e39)])
def test_a_model_that_overflows_its_dtype_is_not_released(dtype: str, number: float) -> None:
    """An infinite weight would be a broken model."""
    with pytest.raises(ModelOverflow) as caught:
        encode(np.array([number]), dtype, "w")

    assert caught.value.tensor == "w"


def test_a_cohort_is_a_set_of_enough_updates(
    base: ReadAt, updates: list[UpdateSource], accept: Accept
) -> None:
    """Too few, one twice, of another shape, or with an impossible norm: nothing is written."""
    with pytest.raises(TooFewUpdates):
        _run(_plain(), base, updates[:1])
    with pytest.raises(DuplicateUpdate):
        _run(_plain(), base, [updates[0], updates[0]])
    with pytest.raises(BadFormat):
        _run(_plain(), base, [updates[0], accept("u9", {"a": np.zeros(3)})])
    with pytest.raises(PolicyError):
        _run(_plain(), base, [updates[0], replace(updates[1], norm=math.nan)])
    with pytest.raises(PolicyError):
        _run(_plain(weights=Weights.SAMPLES), base, [replace(update, weight=0) for update in updates])


def test_noise_and_key_belong_together(base: ReadAt, updates: list[UpdateSource]) -> None:
    """No noise without a key of 32 bytes, and no key where no noise is claimed."""
    for policy, key in ((_noised(), None), (_noised(), b"short"), (_plain(), _KEY)):
        with pytest.raises(NoiseKeyMismatch):
            _run(policy, base, updates, noise_key=key)


def test_a_file_cut_short_names_its_tensor(base: ReadAt, updates: list[UpdateSource]) -> None:
    """A blob damaged in storage ends the release."""
    cut = replace(updates[0], read_at=lambda at, n: updates[0].read_at(at, n) if at < 200_000 else b"")

    with pytest.raises(BadFormat, match="ends inside"):
        _run(_plain(), base, [cut, updates[1]], threads=2)


def test_memory_is_a_few_blocks(stored: Store, accept: Accept) -> None:
    """O(block * threads), not O(model) nor O(clients * model)."""
    model = {"w": np.zeros(3_000_000, "<f4")}
    base, cohort = stored(model), [accept(f"u{i}", model) for i in range(4)]
    noise_block(_KEY, 0, 0, 1)  # the table is made once
    tracemalloc.start()

    aggregate(_noised(), base, cohort, write=lambda _: None, noise_key=_KEY, threads=2)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()

    assert peak < 20_000_000


def _reader(raw: bytes) -> ReadAt:
    return lambda offset, length: raw[offset : offset + length]
