"""The table of the discrete Gaussian with sigma 64: exact probabilities, rounded to multiples of 2^-64.

It is computed once, in 60-digit decimals, so that its distance from the law is known, not estimated.
"""

from __future__ import annotations

from dataclasses import dataclass
from decimal import Decimal, localcontext
from functools import cache

import numpy as np
import numpy.typing as npt

BASE_SIGMA = 64
TAIL_SIGMAS = 13
_DIGITS = 60
_NORMALISER_SIGMAS = 20  # what lies beyond is below 1e-86, far under the last digit that matters
_GUIDE_BITS = 16
_UNCLEAR = np.int16(-32768)


@dataclass(frozen=True, slots=True)
class GaussianTable:
    """Maps uniform 64-bit words to integers; `distance` bounds the total variation distance of one draw."""

    smallest: int
    thresholds: npt.NDArray[np.uint64]
    guide: npt.NDArray[np.int16]
    distance: float

    def draw(self, words: npt.NDArray[np.uint64]) -> npt.NDArray[np.int16]:
        """One integer for each word: how many thresholds are at or below it, from the smallest value on.

        The top bits decide nearly always; the few words whose bucket holds a threshold are searched.
        """
        tops = words.view("<u2")[3::4]  # the top 16 bits of each little-endian word
        values: npt.NDArray[np.int16] = np.take(self.guide, tops)
        unclear = np.flatnonzero(values == _UNCLEAR)
        values[unclear] = self._search(words[unclear])
        return values

    def _search(self, words: npt.NDArray[np.uint64]) -> npt.NDArray[np.int16]:
        found = np.searchsorted(self.thresholds, words, side="right")
        return (found + self.smallest).astype(np.int16)


@cache
def gaussian_table() -> GaussianTable:
    """The one table, made at first use (some 20 ms)."""
    with localcontext() as context:
        context.prec = _DIGITS
        law = _law()
        values = [x for x in sorted(law) if abs(x) <= TAIL_SIGMAS * BASE_SIGMA]
        bounds, cumulated = [], Decimal(0)
        for x in values:
            cumulated += law[x]
            bounds.append(int((cumulated * 2**64).to_integral_value()))
        bounds[-1] = 2**64  # the cut tail goes to the largest value, where its weight is counted below
        distance = _distance(law, values, bounds)
    kept = [bound for bound in bounds if bound < 2**64]
    thresholds = np.array(kept, dtype=np.uint64)
    return GaussianTable(values[0], thresholds, _guide(values[0], thresholds), distance)


def _law() -> dict[int, Decimal]:
    """The exact probabilities of the discrete Gaussian, as far out as sixty digits can see."""
    reach = _NORMALISER_SIGMAS * BASE_SIGMA
    weights = {x: (Decimal(-x * x) / (2 * BASE_SIGMA**2)).exp() for x in range(reach + 1)}
    total = 2 * sum(weights.values()) - 1
    return {x: weights[abs(x)] / total for x in range(-reach, reach + 1)}


def _distance(law: dict[int, Decimal], values: list[int], bounds: list[int]) -> float:
    """Half the sum of |table - law| over all integers, rounded up."""
    drawn = dict(zip(values, np.diff([0, *bounds]).tolist(), strict=True))
    gap = sum(abs(weight - Decimal(drawn.get(x, 0)) / 2**64) for x, weight in law.items())
    return float(gap / 2) * (1 + 2**-40)


def _guide(smallest: int, thresholds: npt.NDArray[np.uint64]) -> npt.NDArray[np.int16]:
    """The value of each bucket of words with equal top bits, or a mark where a threshold lies inside."""
    shift = np.uint64(64 - _GUIDE_BITS)
    first = np.arange(2**_GUIDE_BITS, dtype=np.uint64) << shift
    last = first | ((np.uint64(1) << shift) - np.uint64(1))
    low = np.searchsorted(thresholds, first, side="right")
    high = np.searchsorted(thresholds, last, side="right")
    return np.where(low == high, low + smallest, _UNCLEAR).astype(np.int16)
