"""The discrete Gaussian: exact table, convolutions, stated distance, and one noise for one frozen cohort."""

from __future__ import annotations

import hashlib
import math
from bisect import bisect_right
from decimal import Decimal, localcontext
from itertools import pairwise

import numpy as np
import pytest
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.ciphers import Cipher, algorithms, modes
from cryptography.hazmat.primitives.kdf.hkdf import HKDF
from scipy import stats

from aggregation import SAMPLER_VERSION, SIGMA, DuplicateUpdate, NoiseKeyMismatch, noise_block, noise_key
from aggregation.gaussian_table import gaussian_table
from aggregation.noise import (
    LADDER_SQUARED,
    SIGMA_SQUARED,
    convolution_epsilons,
    smoothing_epsilon,
    stated_distance,
)

_KEY = bytes(range(32))


def _discrete_gaussian(sigma: float, reach: int) -> np.ndarray:
    weights = np.exp(-(np.arange(-reach, reach + 1.0) ** 2) / (2 * sigma**2))
    return weights / weights.sum()


def _table_probabilities() -> dict[int, Decimal]:
    table = gaussian_table()
    bounds = [0, *table.thresholds.tolist(), 2**64]
    return {
        table.smallest + index: Decimal(high - low) / 2**64
        for index, (low, high) in enumerate(pairwise(bounds))
    }


def test_the_table_is_as_far_from_the_law_as_it_says() -> None:
    """The distance of a draw is proven: recomputed here with more digits and a wider sum."""
    with localcontext() as context:
        context.prec = 90
        weights = {x: (Decimal(-x * x) / 8192).exp() for x in range(-2000, 2001)}
        total = sum(weights.values())
        table = _table_probabilities()
        distance = sum(abs(w / total - table.get(x, 0)) for x, w in weights.items()) / 2
        assert sum(table.values()) == 1

    assert 0 < float(distance) <= gaussian_table().distance < 2e-17


def test_the_guide_decides_as_the_thresholds_do() -> None:
    """The fast path is the plain inverse of the distribution function, at every border too."""
    table = gaussian_table()
    edges = table.thresholds[(table.thresholds > 0)]
    rng = np.random.default_rng(0)
    words = np.concatenate([edges, edges - np.uint64(1), rng.integers(0, 2**64, 10_000, dtype=np.uint64)])
    words = np.concatenate([words, np.array([0, 2**64 - 1], np.uint64)])

    plain = np.searchsorted(table.thresholds, words, side="right") + table.smallest

    assert np.array_equal(table.draw(words), plain)


def test_draws_of_the_table_follow_the_law() -> None:
    """A chi-square test of a million draws of sigma 64."""
    words = np.random.default_rng(5).integers(0, 2**64, 1_000_000, dtype=np.uint64)

    draws = gaussian_table().draw(words)

    expected = _discrete_gaussian(64, 800)[800 - 220 : 800 + 221] * draws.size
    counts = np.bincount(draws[np.abs(draws) <= 220] + 220, minlength=441)
    statistic = float(((counts - expected) ** 2 / expected).sum())
    assert 0.001 < stats.chi2.cdf(statistic, 441) < 0.999


def test_the_ladder_meets_the_smoothing_condition() -> None:
    """Each convolution's width is above the smoothing parameter for an epsilon below 1e-80."""
    assert [math.sqrt(square) for square in LADDER_SQUARED] == pytest.approx(
        [64, 1281.6, 512_641.2], rel=1e-6
    )
    assert LADDER_SQUARED[-1] == SIGMA_SQUARED < 2**53
    assert max(convolution_epsilons()) < 1e-80
    assert smoothing_epsilon(math.sqrt(5)) < 1e-40


@pytest.mark.parametrize(("sigma", "factor"), [(1.0, 1), (1.3, 2), (2.0, 3)])
def test_a_convolution_is_as_near_as_the_condition_says(sigma: float, factor: int) -> None:
    """The bound 2 eps/(1 - eps) holds where the distance is large enough to be seen."""
    reach = 40
    one = _discrete_gaussian(sigma, reach)
    spread = np.zeros(2 * reach * factor + 1)
    spread[::factor] = one
    drawn = np.convolve(one, spread)
    law = _discrete_gaussian(sigma * math.sqrt(1 + factor**2), (drawn.size - 1) // 2)

    distance = float(np.abs(drawn - law).sum() / 2)

    epsilon = smoothing_epsilon(sigma / math.sqrt(1 + factor**2))
    assert 1e-6 < distance <= 2 * epsilon / (1 - epsilon)


def test_the_stated_distance_is_small_and_counts_coordinates() -> None:
    """A million coordinates cost some 1e-11 of delta."""
    assert stated_distance(1_000_000) == pytest.approx(4.2e-11, rel=0.02)
    assert stated_distance(0) == 0


def test_the_wide_noise_has_the_moments_of_its_sigma() -> None:
    """Mean, variance, kurtosis and tails of two million draws."""
    draws = np.concatenate([noise_block(_KEY, 0, block, 65_536) for block in range(32)]) / SIGMA
    count = draws.size

    assert abs(draws.mean()) < 4.5 / math.sqrt(count)
    assert abs(draws.var() - 1) < 4.5 * math.sqrt(2 / count)
    assert abs((draws**4).mean() - 3) < 4.5 * math.sqrt(96 / count)
    assert stats.kstest(draws, "norm").pvalue > 1e-4
    assert 4.5 < np.abs(draws).max() < 7


def test_every_residue_is_drawn_alike() -> None:
    """The noise has no lattice of its own: residues by small moduli are uniform."""
    draws = np.concatenate([noise_block(_KEY, 1, block, 65_536) for block in range(8)])

    for modulus in (2, 20, 400, 401):
        counts = np.bincount(draws % modulus, minlength=modulus)
        assert stats.chisquare(counts).pvalue > 1e-4


def test_the_noise_is_pinned() -> None:
    """The sampler's version stands for exact bits: a release can be replayed years later."""
    table = gaussian_table()

    assert SAMPLER_VERSION == "dgauss-64x20x400-aes256ctr-1"
    assert noise_block(_KEY, 1, 2, 6).tolist() == [517613, 100440, -107145, -484620, 643114, 210499]
    assert hashlib.sha256(table.thresholds.astype("<u8").tobytes()).hexdigest() == (
        "e5c45804bfdbbeccd78279091861792c053a1fc7223c95d03f6ba165cec3e91a"
    )


def test_the_noise_can_be_recomputed_by_hand() -> None:
    """An independent reading of the specification gives the same integers."""
    piece, count, label = 16_384, 20_000, hashlib.sha256(b"flg-noise dgauss-64x20x400-aes256ctr-1").digest()
    info = label + (3).to_bytes(8, "big") + (9).to_bytes(8, "big")
    key = HKDF(hashes.SHA256(), 32, None, info).derive(_KEY)
    stream = Cipher(algorithms.AES(key), modes.CTR(bytes(16))).encryptor().update(bytes(32 * count))
    words = [int.from_bytes(stream[8 * i : 8 * i + 8], "little") for i in range(4 * count)]
    thresholds, smallest = gaussian_table().thresholds.tolist(), gaussian_table().smallest

    expected: list[int] = []
    for start in range(0, count, piece):
        size = min(piece, count - start)
        rows = [words[4 * start + row * size : 4 * start + (row + 1) * size] for row in range(4)]
        for drawn in zip(*rows, strict=True):
            a, b, c, d = (bisect_right(thresholds, word) + smallest for word in drawn)
            expected.append(a + 20 * b + 400 * (c + 20 * d))

    assert noise_block(_KEY, 3, 9, count).tolist() == expected


def test_other_keys_tensors_and_blocks_have_other_noise() -> None:
    """Streams are independent: no two are correlated."""
    streams = [
        noise_block(key, tensor, block, 20_000).astype(float)
        for key in (_KEY, bytes(32))
        for tensor in (0, 1)
        for block in (0, 1)
    ]

    correlations = np.corrcoef(streams) - np.eye(len(streams))

    assert np.abs(correlations).max() < 0.035


def test_one_frozen_cohort_has_one_noise_key() -> None:
    """The key depends on the set of updates, not on its order, and on everything else that is released (RULES 5)."""
    seed, policy = b"s" * 32, "ab" * 32
    key = noise_key(seed, ["u1", "u2"], "model", policy)

    assert noise_key(seed, ["u2", "u1"], "model", policy) == key
    others = [
        noise_key(b"t" * 32, ["u1", "u2"], "model", policy),
        noise_key(seed, ["u1"], "model", policy),
        noise_key(seed, ["u1u2"], "model", policy),
        noise_key(seed, ["u1", "u2"], "model2", policy),
        noise_key(seed, ["u1", "u2"], "model", "cd" * 32),
        noise_key(seed, ["u1", "u2"], "model", policy, "another"),
    ]
    assert len({key, *others}) == 7


def test_a_noise_key_is_made_of_a_full_seed_and_a_set() -> None:
    """A short seed or a doubled update is refused."""
    with pytest.raises(NoiseKeyMismatch):
        noise_key(b"short", ["u1"], "model", "ab")
    with pytest.raises(DuplicateUpdate):
        noise_key(b"s" * 32, ["u1", "u1"], "model", "ab")
