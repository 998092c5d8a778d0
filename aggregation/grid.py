"""The integer grid on which updates are added exactly: its step fits the noise, its bound is checked.

Client unit: a clipped update is a vector of at most S steps. Record unit: a silo's sum is projected onto a
public ball, and one record moves it by at most k + sqrt(d) steps, since truncation may differ by one in each
coordinate (RULES 9, 11).
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from fractions import Fraction
from typing import Any

import numpy as np
import numpy.typing as npt

from aggregation.accountant import Mechanism
from aggregation.clipping import PIECE_ELEMENTS
from aggregation.errors import PolicyError, SensitivityExceeded
from aggregation.noise import CONTINUOUS_LOSS, MAX_NOISE, SIGMA_SQUARED, stated_distance
from aggregation.policy import Policy, Unit

MAX_SENSITIVITY = 2**20
_MAX_RADIUS = 2**40  # of a silo's ball, in steps: the exact check of wide sums holds up to here
_SHRINK = 1 - 2**-32
"""Takes up the rounding of norm and products (below 1e-11), so that the integer bound always holds."""


@dataclass(frozen=True, slots=True)
class Grid:
    """What an update's numbers are divided by, and what then may not be passed."""

    sensitivity: int
    steps: int
    clip_norm: float
    radius: float
    bound: int
    coordinates: int

    @property
    def step(self) -> float:
        """The length of one grid step (gamma)."""
        return self.clip_norm / self.steps

    @property
    def noise_multiplier(self) -> float:
        """What the accountant may count: the continuous Gaussian's width over the integer sensitivity."""
        return math.sqrt(SIGMA_SQUARED - CONTINUOUS_LOSS) / self.sensitivity * (1 - 2**-50)

    @property
    def largest(self) -> int:
        """The largest absolute value one update can put on one coordinate."""
        return math.isqrt(self.bound)

    @property
    def dtype(self) -> np.dtype[Any]:
        """The integer type that holds one update."""
        return np.dtype(np.int32 if self.largest < 2**31 else np.int64)

    def mechanism(self, sampling_rate: float = 1.0, count: int = 1) -> Mechanism:
        """What a release on this grid spends."""
        return Mechanism(self.noise_multiplier, sampling_rate, count, stated_distance(self.coordinates))

    def scale(self, norm: float, share: float = 1.0) -> float:
        """What to multiply an update of this norm with: clipped, weighed by a share up to 1, in steps."""
        per_unit = self.steps / self.clip_norm
        factor = per_unit if norm * per_unit <= self.radius else self.radius / norm
        return factor * share * _SHRINK

    def accumulator(self, cohort: int) -> np.dtype[Any]:
        """int32 only while the sum and its noise fit by planned numbers, else int64 (RULES 9)."""
        return np.dtype(np.int32 if cohort * self.largest + MAX_NOISE < 2**31 else np.int64)


def plan_grid(policy: Policy, coordinates: int) -> Grid:
    """The grid of a noised round on a model with this many float elements."""
    if policy.clip_norm is None or policy.noise_multiplier is None:
        raise PolicyError("privacy.mechanism", "has no noise", "a grid belongs to mechanism gaussian")
    sensitivity = _sensitivity(policy.noise_multiplier)
    if policy.unit is Unit.CLIENT:
        radius = float(sensitivity)
        return Grid(
            sensitivity, sensitivity, policy.clip_norm, radius, sensitivity * sensitivity, coordinates
        )
    return _record_grid(policy, policy.clip_norm, sensitivity, coordinates)


def quantise(
    block: npt.NDArray[Any],
    scale: float,
    grid: Grid,
    update_id: str,
    out: npt.NDArray[Any] | None = None,
) -> tuple[npt.NDArray[Any], int]:
    """The block on the grid, truncated toward zero, and the exact sum of its squares, proven in bounds."""
    flat = block.reshape(-1)
    steps = np.empty(flat.size, grid.dtype) if out is None else out
    room = np.empty(min(PIECE_ELEMENTS, flat.size))
    squares = 0
    with np.errstate(over="ignore", invalid="ignore"):
        for start in range(0, flat.size, PIECE_ELEMENTS):
            piece = flat[start : start + PIECE_ELEMENTS]
            values = room[: piece.size]
            np.copyto(values, piece)  # first to float64: float32 times a float would stay float32
            values *= scale
            np.trunc(values, out=values)
            squares += _proven_squares(values, grid, update_id)
            steps[start : start + PIECE_ELEMENTS] = values
    if squares > grid.bound:
        raise SensitivityExceeded(update_id, grid.bound)
    return steps, squares


def _proven_squares(values: npt.NDArray[np.float64], grid: Grid, update_id: str) -> int:
    """The exact sum of squares of integral numbers; refused before a cast could overflow."""
    squares = float(np.dot(values, values))
    if not squares <= grid.bound * (1 + 2**-20):  # also refuses NaN
        raise SensitivityExceeded(update_id, grid.bound)
    if grid.largest < 2**26:
        return int(squares)  # every partial sum is an integer below 2^53: exact, as in int64
    return _wide_square_sum(values.astype(np.int64))


def _sensitivity(noise_multiplier: float) -> int:
    """The largest integer sensitivity whose continuous noise multiplier is not below the wished one."""
    variance = Fraction(SIGMA_SQUARED - CONTINUOUS_LOSS) / Fraction(noise_multiplier) ** 2
    return min(MAX_SENSITIVITY, math.isqrt(math.floor(variance)))


def _record_grid(policy: Policy, clip_norm: float, sensitivity: int, coordinates: int) -> Grid:
    truncation = math.isqrt(max(coordinates - 1, 0)) + 1  # ceil(sqrt(d))
    ratio = Fraction(policy.silo_radius) / Fraction(clip_norm)
    margin = 1 + math.floor(min(sensitivity * ratio, Fraction(_MAX_RADIUS)) / 2**33)
    steps = sensitivity - truncation - margin
    if steps < 1:
        raise PolicyError(
            "privacy.noise_multiplier",
            f"is too large for {coordinates} coordinates under unit record",
            "lower it, or use unit client",
        )
    radius = min(steps * ratio, Fraction(_MAX_RADIUS))
    return Grid(sensitivity, steps, clip_norm, float(radius), math.floor(radius**2), coordinates)


def _wide_square_sum(values: npt.NDArray[np.int64]) -> int:
    """The exact sum of squares of integers up to 2^41: in halves of 2^20, so that int64 never overflows."""
    high, low = np.divmod(values, 1 << 20)
    parts = [int(np.einsum("i,i->", one, other)) for one, other in ((high, high), (high, low), (low, low))]
    return (parts[0] << 40) + (parts[1] << 21) + parts[2]
