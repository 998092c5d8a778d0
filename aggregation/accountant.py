"""What releases spend: exact for full participation, dp_accounting's PLD where the server sampled clients.

Adjacency: one unit added or removed. The stated distances of the noise from its law are paid for out of
delta.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from decimal import ROUND_CEILING, Decimal
from functools import lru_cache
from typing import Any

from aggregation.errors import PolicyError

ADJACENCY = "add-or-remove-one-unit"
_PLD_INTERVAL, _COARSE_INTERVAL = 1e-4, 1e-3
_PLD_BUCKETS = 1e6
_MAX_EPSILON = 1e6
_LARGEST_EXPONENT = 700.0
_MULTIPLIER_DIGITS = 6
_EXACT_TOLERANCE, _SAMPLED_TOLERANCE = 1e-6, 5e-3


@dataclass(frozen=True, slots=True)
class Mechanism:
    """A Gaussian release as the ledger keeps it; never an epsilon, since epsilons do not add up tightly.

    `noise_multiplier` is the grid's (`Grid.mechanism`), `sampling_rate` is 1 unless the server drew the
    cohort by Poisson sampling, `count` is how many such releases, `distance` the total variation stated for
    each.
    """

    noise_multiplier: float
    sampling_rate: float = 1.0
    count: int = 1
    distance: float = 0.0

    def __post_init__(self) -> None:
        if not 0 < self.noise_multiplier < math.inf:
            raise PolicyError("noise_multiplier", "is not positive", "give a positive number")
        if not 0 < self.sampling_rate <= 1:
            raise PolicyError("sampling_rate", "is no probability", "give a number above 0, at most 1")
        if self.count < 0:
            raise PolicyError("count", "is negative", "give the number of releases")
        if not 0 <= self.distance < 1:
            raise PolicyError("distance", "is out of range", "give the stated distance of the noise")


def epsilon(mechanisms: Sequence[Mechanism], delta: float) -> float:
    """The epsilon of all these releases together at this delta, never too low; infinite if there is none."""
    if not 0 < delta < 1:
        raise PolicyError("delta", "is no probability", "give a number above 0 and below 1")
    return _epsilon([mechanism for mechanism in mechanisms if mechanism.count], delta)


def delta_at(mechanisms: Sequence[Mechanism], epsilon: float) -> float:
    """A delta for all these releases together at this epsilon, the price of their distances included."""
    spent = [mechanism for mechanism in mechanisms if mechanism.count]
    if not spent:
        return 0.0
    if _is_full(spent):
        exact = gaussian_delta(_full_mu(spent), epsilon)
    else:
        exact = float(_privacy_loss(spent).get_delta_for_epsilon(epsilon))
    return min(1.0, exact + _distance_price(epsilon, _total_distance(spent)))


def gaussian_epsilon(mu: float, delta: float) -> float:
    """The epsilon of a Gaussian mechanism with sensitivity/sigma = mu (Balle and Wang 2018, Theorem 8)."""
    if gaussian_delta(mu, 0.0) <= delta:
        return 0.0
    low, high = 0.0, 1.0
    while gaussian_delta(mu, high) > delta:
        low, high = high, 2 * high
        if high > _MAX_EPSILON:
            return math.inf
    while (middle := (low + high) / 2) not in (low, high):
        low, high = (middle, high) if gaussian_delta(mu, middle) > delta else (low, middle)
    return high * (1 + 1e-12)


def gaussian_delta(mu: float, epsilon: float) -> float:
    """Phi(mu/2 - eps/mu) - exp(eps) Phi(-mu/2 - eps/mu), without cancellation."""
    from scipy.special import log_ndtr  # 0.3 s: only where something is spent

    first = float(log_ndtr(mu / 2 - epsilon / mu))
    second = epsilon + float(log_ndtr(-mu / 2 - epsilon / mu))
    return math.exp(first) * -math.expm1(min(second - first, 0.0))


def noise_multiplier_for(
    epsilon: float,
    delta: float,
    count: int = 1,
    sampling_rate: float = 1.0,
    distance: float = 0.0,
) -> float:
    """A noise multiplier, to six digits, with which `count` releases stay within epsilon at delta.

    The smallest to a millionth; under sampling, where each trial is a composition, to half a percent.
    """

    coarse = _COARSE_INTERVAL * max(1.0, epsilon)

    def fits(z: float, rate: float) -> bool:
        return _epsilon([Mechanism(z, rate, count, distance)], delta, coarse) <= epsilon

    high = 1.0
    while not fits(high, 1.0):  # sampling only ever lowers what is needed
        high *= 2
        if high > 2**20:
            raise PolicyError(
                "privacy.epsilon", "cannot be reached", "raise epsilon or delta, or plan fewer rounds"
            )
    low = high / 2
    while low > 1e-2 and fits(low, sampling_rate):
        low, high = low / 2, low
    tolerance = _EXACT_TOLERANCE if sampling_rate == 1 else _SAMPLED_TOLERANCE
    while high > low * (1 + tolerance):
        middle = math.sqrt(low * high)
        low, high = (low, middle) if fits(middle, sampling_rate) else (middle, high)
    while _epsilon([Mechanism(high, sampling_rate, count, distance)], delta) > epsilon:
        high *= 1 + tolerance / 2
    return _rounded_up(high, _MULTIPLIER_DIGITS)


def decimal_up(value: float, places: int = 6) -> str:
    """A number for a report, rounded up, so that what is said is never less than what was spent."""
    if math.isinf(value):
        return "Infinity"
    return format(Decimal(value).quantize(Decimal(1).scaleb(-places), ROUND_CEILING), "f")


def _epsilon(spent: Sequence[Mechanism], delta: float, finest: float = _PLD_INTERVAL) -> float:
    if not spent:
        return 0.0
    if _is_full(spent):
        mu = _full_mu(spent)
        return _with_distance(lambda at: gaussian_epsilon(mu, at), delta, _total_distance(spent))
    return _sampled_epsilon(tuple(_merged(spent)), _total_distance(spent), delta, finest)


@lru_cache(maxsize=256)
def _sampled_epsilon(merged: tuple[Mechanism, ...], distance: float, delta: float, finest: float) -> float:
    """Kept, since a report asks for what the one before it asked: a distribution takes up to seconds."""
    loss = _privacy_loss(merged, finest)
    return _with_distance(lambda at: float(loss.get_epsilon_for_delta(at)), delta, distance)


def _rounded_up(value: float, digits: int) -> float:
    exponent = math.floor(math.log10(value)) + 1 - digits
    return float(Decimal(value).quantize(Decimal(1).scaleb(exponent), ROUND_CEILING))


def _is_full(spent: Sequence[Mechanism]) -> bool:
    return all(mechanism.sampling_rate == 1 for mechanism in spent)


def _full_mu(spent: Sequence[Mechanism]) -> float:
    """Gaussian releases compose exactly: mu^2 = sum of 1/z^2 (those of sampled cohorts left out)."""
    return math.sqrt(sum(m.count / m.noise_multiplier**2 for m in spent if m.sampling_rate == 1))


def _total_distance(spent: Sequence[Mechanism]) -> float:
    return sum(mechanism.count * mechanism.distance for mechanism in spent)


def _distance_price(epsilon: float, distance: float) -> float:
    """What delta pays if both neighbours' outputs are that far from the accounted ones: 1 + e^eps each."""
    return (1 + math.exp(min(epsilon, _LARGEST_EXPONENT))) * distance


def _with_distance(curve: Callable[[float], float], delta: float, distance: float) -> float:
    """The least epsilon, within 1e-9, that the curve allows at what delta has left after paying for it."""
    guess = curve(delta)
    while distance > 0 and math.isfinite(guess):
        ceiling = guess * (1 + 1e-9) + 1e-9
        left = delta - _distance_price(ceiling, distance)
        guess = curve(left) if left > 0 else math.inf
        if guess <= ceiling:
            break
    return guess


def _privacy_loss(spent: Sequence[Mechanism], finest: float = _PLD_INTERVAL) -> Any:
    """The composed privacy loss distribution, rounded pessimistically."""
    from dp_accounting.pld import privacy_loss_distribution as pld  # 1.4 s: only where sampling needs it

    sampled = [mechanism for mechanism in _merged(spent) if mechanism.sampling_rate < 1]
    mu = _full_mu(spent)
    interval = max(finest, _least_interval(spent))
    losses = [
        pld.from_gaussian_mechanism(
            mechanism.noise_multiplier,
            sampling_prob=mechanism.sampling_rate,
            value_discretization_interval=interval,
        ).self_compose(mechanism.count)
        for mechanism in sampled
    ]
    if mu > 0:
        losses.append(pld.from_gaussian_mechanism(1 / mu, value_discretization_interval=interval))
    total = losses[0]
    for loss in losses[1:]:
        total = total.compose(loss)
    return total


def _merged(spent: Sequence[Mechanism]) -> list[Mechanism]:
    """One mechanism for all those of the same noise and rate: a ledger has a line a round, most of them alike."""
    counts: Counter[tuple[float, float]] = Counter()
    for mechanism in spent:
        counts[mechanism.noise_multiplier, mechanism.sampling_rate] += mechanism.count
    return [Mechanism(z, rate, count) for (z, rate), count in counts.items()]


def _least_interval(spent: Sequence[Mechanism]) -> float:
    """How finely losses may be told apart, so that their distribution fits the memory.

    Coarser is only more pessimistic. A sampled release moves the loss about as a Gaussian of this mu does.
    """
    alone = [1 / m.noise_multiplier for m in spent if m.sampling_rate < 1]
    squares = [1 / m.noise_multiplier**2 for m in spent]
    sampled = [m.sampling_rate**2 * math.expm1(min(s, 50.0)) for m, s in zip(spent, squares, strict=True)]
    together = sum(m.count * min(s, 4 * t) for m, s, t in zip(spent, squares, sampled, strict=True))
    reach = max(mu * mu / 2 + 10 * mu for mu in [*alone, math.sqrt(together)])
    return reach / _PLD_BUCKETS
