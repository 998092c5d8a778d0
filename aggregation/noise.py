"""Discrete Gaussian noise on the grid: draws of sigma 64, convolved up a fixed ladder to sigma 512,641.

The same key gives the same noise, block by block, on any machine and with any number of threads (RULES 5, 9).
The distance of what is drawn from the exact law is proven here and paid for out of delta (RULES 10).
"""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Sequence
from itertools import pairwise

import numpy as np
import numpy.typing as npt
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.ciphers import Cipher, algorithms, modes
from cryptography.hazmat.primitives.kdf.hkdf import HKDF

from aggregation.errors import DuplicateUpdate, NoiseKeyMismatch
from aggregation.gaussian_table import BASE_SIGMA, gaussian_table

SAMPLER_VERSION = "dgauss-64x20x400-aes256ctr-1"
FIRST_FACTOR, SECOND_FACTOR = 20, 400
LADDER_SQUARED = (
    BASE_SIGMA**2,
    BASE_SIGMA**2 * (1 + FIRST_FACTOR**2),
    BASE_SIGMA**2 * (1 + FIRST_FACTOR**2) * (1 + SECOND_FACTOR**2),
)
"""The variances of the ladder, exactly: sigma 64, 1281.6 and 512,641."""
SIGMA_SQUARED = LADDER_SQUARED[-1]
SIGMA = math.sqrt(SIGMA_SQUARED)
CONTINUOUS_LOSS = 5
"""Taken off the variance: the discrete law is a random rounding of a continuous one that much narrower."""
MAX_NOISE = 13 * math.ceil(SIGMA)
KEY_BYTES = 32
_DRAWS = 4
_PIECE = 16_384  # its words fit the second-level cache
_ZEROS = memoryview(bytes(8 * _DRAWS * _PIECE))
_BLOCK_LABEL = hashlib.sha256(b"flg-noise " + SAMPLER_VERSION.encode()).digest()


def noise_key(
    seed: bytes,
    cohort: Sequence[str],
    lineage: str,
    policy: str,
    sampler_version: str = SAMPLER_VERSION,
) -> bytes:
    """The key of the one noise that a frozen cohort can get: the order of its update ids does not matter.

    `policy` is the policy's digest in hex. Another cohort, lineage, policy or sampler gives an unrelated key.
    """
    ids = sorted(cohort)
    for first, second in pairwise(ids):
        if first == second:
            raise DuplicateUpdate(first)
    facts = {"cohort": ids, "lineage": lineage, "policy": policy, "sampler": sampler_version}
    canonical = json.dumps(facts, sort_keys=True, separators=(",", ":"), ensure_ascii=True)
    return _derive(seed, b"flg-noise-key" + hashlib.sha256(canonical.encode()).digest())


def noise_block(key: bytes, tensor: int, block: int, count: int) -> npt.NDArray[np.int32]:
    """The noise of one block: `count` draws of the discrete Gaussian of variance SIGMA_SQUARED.

    The key stream is used in pieces of 16,384 coordinates: first all words for a, then those for b, c and d.
    """
    info = _BLOCK_LABEL + tensor.to_bytes(8, "big") + block.to_bytes(8, "big")
    stream = Cipher(algorithms.AES256(_derive(key, info)), modes.CTR(bytes(16))).encryptor()
    noise = np.empty(count, np.int32)
    words = np.empty(_DRAWS * min(count, _PIECE), "<u8")
    for start in range(0, count, _PIECE):
        piece = noise[start : start + _PIECE]
        used = words[: _DRAWS * piece.size]
        stream.update_into(_ZEROS[: used.nbytes], used.view(np.uint8).data)
        piece[:] = _convolve(used.reshape(_DRAWS, piece.size))
    return noise


def stated_distance(coordinates: int) -> float:
    """A proven bound of the total variation distance between this noise and the one accounted for.

    Per coordinate: four draws from the rounded table, three convolutions (two on the lower rung, one on the
    upper), and the step from the discrete to the continuous Gaussian.
    """
    low, high = convolution_epsilons()
    rounding = smoothing_epsilon(math.sqrt(CONTINUOUS_LOSS))
    each = _DRAWS * gaussian_table().distance + 2 * _law_distance(low) + _law_distance(high)
    return coordinates * (each + _law_distance(rounding)) * (1 + 2**-40)


def convolution_epsilons() -> tuple[float, float]:
    """The smoothing condition of each convolution a + k*b, as the epsilon at which it just holds.

    Given a + k*b = y, b is a Gaussian of width sigma/sqrt(1 + k^2) about some centre; the sum over all
    integers of such a bell is the same for all centres up to 1 +- epsilon, if the width is above the
    smoothing parameter (Micciancio and Regev 2007, Lemma 3.3; Peikert 2010).
    """
    first = math.sqrt(LADDER_SQUARED[0] / (1 + FIRST_FACTOR**2))
    second = math.sqrt(LADDER_SQUARED[1] / (1 + SECOND_FACTOR**2))
    return smoothing_epsilon(first), smoothing_epsilon(second)


def smoothing_epsilon(sigma: float) -> float:
    """The epsilon at which `sigma` equals the integers' smoothing parameter sqrt(ln(2 + 2/eps)/2)/pi."""
    exponent = 2 * (math.pi * sigma) ** 2 - math.log(2)
    return math.exp(-exponent) / -math.expm1(-exponent)


def _law_distance(epsilon: float) -> float:
    """Two laws whose ratio stays within (1 + epsilon)/(1 - epsilon) are at most this far apart."""
    return 2 * epsilon / (1 - epsilon)


def _convolve(words: npt.NDArray[np.uint64]) -> npt.NDArray[np.int32]:
    table = gaussian_table()
    a, b, c, d = (table.draw(row) for row in words)
    low = b.astype(np.int32) * FIRST_FACTOR + a
    high = d.astype(np.int32) * FIRST_FACTOR + c
    return high * SECOND_FACTOR + low


def _derive(key: bytes, info: bytes) -> bytes:
    if len(key) < KEY_BYTES:
        raise NoiseKeyMismatch(needed=True)
    return HKDF(algorithm=hashes.SHA256(), length=KEY_BYTES, salt=None, info=info).derive(key)
