"""Rules that bear bad updates: coordinate median, trimmed mean, multi-Krum, geometric median; no epsilon.

The first two look at one coordinate of all updates at a time. The other two need only the updates' inner
products (the Gram matrix), from which follow the factors of a weighted sum.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from aggregation.combine import Cohort, Combined, Place, WeightedSum, clip_factors
from aggregation.errors import TooFewUpdates
from aggregation.policy import Policy, Rule

Matrix = npt.NDArray[np.float64]
_STACK_ELEMENTS = 1 << 22
_WEISZFELD_STEPS = 200
_WEISZFELD_TOLERANCE = 1e-12
_LEAST_DISTANCE = 1e-150  # where all updates are equal


@dataclass(frozen=True, slots=True)
class CoordinateRule:
    """Median or trimmed mean of each coordinate; `trim` updates are left out at either end."""

    cohort: Cohort
    factors: tuple[float, ...]
    trim: int
    server_lr: float

    def combine(self, place: Place) -> Combined:
        """One block, in parts so small that all updates' numbers fit in memory together."""
        part = max(1, _STACK_ELEMENTS // len(self.cohort))
        change = np.empty(place.count)
        for at in range(0, place.count, part):
            count = min(part, place.count - at)
            stack = stack_updates(self.cohort, self.factors, place.tensor, place.start + at, count)
            change[at : at + count] = trimmed_mean(stack, self.trim)
        return Combined(change * self.server_lr)


def coordinate_rule(policy: Policy, cohort: Cohort) -> CoordinateRule:
    """The rule median or trimmed_mean on this cohort; a median trims all but the middle one or two."""
    largest = (len(cohort) - 1) // 2
    trim = largest if policy.rule is Rule.MEDIAN else min(faulty_clients(policy, len(cohort)), largest)
    return CoordinateRule(cohort, clip_factors(policy, cohort), trim, policy.server_lr)


def distance_rule(policy: Policy, cohort: Cohort, gram: Matrix) -> WeightedSum:
    """The rule multi_krum or geometric_median, given the Gram matrix of the clipped updates."""
    if policy.rule is Rule.MULTI_KRUM:
        shares = multi_krum_shares(gram, _krum_faulty(policy, len(cohort)))
    else:
        shares = geometric_median_shares(gram)
    clips = clip_factors(policy, cohort)
    factors = [float(share) * clip * policy.server_lr for share, clip in zip(shares, clips, strict=True)]
    return WeightedSum(cohort, tuple(factors))


def faulty_clients(policy: Policy, count: int) -> int:
    """How many updates may be bad: what the policy says, else a fifth of them and at least one."""
    return max(1, count // 5) if policy.faulty_clients is None else policy.faulty_clients


def gram_block(cohort: Cohort, factors: tuple[float, ...], place: Place) -> Matrix:
    """One block's part of the inner products of all clipped updates."""
    part = max(1, _STACK_ELEMENTS // len(cohort))
    gram = np.zeros((len(cohort), len(cohort)))
    for at in range(0, place.count, part):
        count = min(part, place.count - at)
        stack = stack_updates(cohort, factors, place.tensor, place.start + at, count)
        gram += stack @ stack.T
    return gram


def stack_updates(
    cohort: Cohort,
    factors: tuple[float, ...],
    tensor: int,
    start: int,
    count: int,
) -> Matrix:
    """Some coordinates of all updates, clipped: one row for each update."""
    stack = np.empty((len(cohort), count))
    for row, member, factor in zip(stack, cohort, factors, strict=True):
        np.multiply(member.read(tensor, start, count), factor, out=row, dtype=np.float64)
    return stack


def trimmed_mean(stack: Matrix, trim: int) -> npt.NDArray[np.float64]:
    """The mean of each column without its `trim` smallest and largest numbers."""
    ordered = np.sort(stack, axis=0)
    kept: npt.NDArray[np.float64] = ordered[trim : len(stack) - trim].mean(axis=0)
    return kept


def multi_krum_shares(gram: Matrix, faulty: int) -> npt.NDArray[np.float64]:
    """Equal shares for the n - f - 2 updates that lie closest to their n - f - 2 nearest others.

    (Blanchard et al. 2017; the number kept as in El Mhamdi et al. 2018.) Of equal scores the smaller id is
    kept.
    """
    near = len(gram) - faulty - 2
    if near < 1:
        raise TooFewUpdates(len(gram), faulty + 3)
    distances = _squared_distances(gram)
    np.fill_diagonal(distances, np.inf)
    scores = np.sort(distances, axis=1)[:, :near].sum(axis=1)
    shares = np.zeros(len(gram))
    shares[np.argsort(scores, kind="stable")[:near]] = 1 / near
    return shares


def geometric_median_shares(gram: Matrix) -> npt.NDArray[np.float64]:
    """The shares of the updates whose sum has the least total distance to them all (Weiszfeld 1937)."""
    shares = np.full(len(gram), 1 / len(gram))
    floor = 1e-12 * float(np.sqrt(np.trace(gram))) + _LEAST_DISTANCE
    for _ in range(_WEISZFELD_STEPS):
        squares = np.diag(gram) - 2 * gram @ shares + shares @ gram @ shares
        closeness = 1 / np.maximum(np.sqrt(np.maximum(squares, 0)), floor)
        following = closeness / closeness.sum()
        moved = float(np.abs(following - shares).max())
        shares = following
        if moved < _WEISZFELD_TOLERANCE:
            break
    return shares


def _krum_faulty(policy: Policy, count: int) -> int:
    if count < 3:
        raise TooFewUpdates(count, 3)
    return min(faulty_clients(policy, count), (count - 3) // 2)


def _squared_distances(gram: Matrix) -> Matrix:
    squares = np.diag(gram)
    return np.maximum(squares[:, None] + squares[None, :] - 2 * gram, 0)
