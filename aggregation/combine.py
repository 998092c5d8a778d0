"""A frozen cohort and the ways its updates become one change of the model, block by block.

Exact integer sums with noise (RULES 9), or floating sums in the order of update ids; `robust` adds the rest.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt

from aggregation.clipping import clip_factor
from aggregation.errors import DuplicateUpdate, PolicyError, TooFewUpdates
from aggregation.grid import Grid, quantise
from aggregation.header import read_layout
from aggregation.noise import noise_block
from aggregation.policy import MAX_CLIENTS, Policy, Unit, Weights
from aggregation.wire import Array, ReadAt, Schema, Slot, read_block


@dataclass(frozen=True, slots=True)
class UpdateSource:
    """An accepted update: where its bytes are, and the norm that UpdateReader measured when they arrived.

    `weight` is the number of samples that the client stated; it counts only if the policy weighs by samples.
    """

    update_id: str
    read_at: ReadAt
    norm: float
    weight: int = 1


@dataclass(frozen=True, slots=True)
class Member:
    """An update of the cohort with its tensors' places, in the order of the model's schema."""

    source: UpdateSource
    slots: tuple[Slot, ...]

    def read(self, tensor: int, start: int, count: int) -> Array:
        """Some elements of one tensor."""
        return read_block(self.source.read_at, self.slots[tensor], start, count)


Cohort = tuple[Member, ...]


@dataclass(frozen=True, slots=True)
class Place:
    """One block of one tensor."""

    tensor: int
    block: int
    start: int
    count: int


@dataclass(frozen=True, slots=True)
class Combined:
    """What the cohort adds to one block of the model, and each exact sum of squares, if there was a grid."""

    change: npt.NDArray[np.float64]
    squares: tuple[int, ...] = ()


class Combiner(Protocol):
    """Turns one block of all updates into one block of change; called from several threads at once."""

    def combine(self, place: Place) -> Combined:
        """The block's change, server_lr and divisor applied."""


def open_cohort(policy: Policy, schema: Schema, updates: Sequence[UpdateSource]) -> Cohort:
    """The updates in the order of their ids, each once, each with the model's tensors, and enough of them."""
    if len(updates) < policy.fewest_updates:
        raise TooFewUpdates(len(updates), policy.fewest_updates)
    ordered = sorted(updates, key=lambda update: update.update_id)
    for first, second in pairwise(ordered):
        if first.update_id == second.update_id:
            raise DuplicateUpdate(first.update_id)
    return tuple(_member(update, schema) for update in ordered)


def _member(update: UpdateSource, schema: Schema) -> Member:
    if not 0 <= update.norm < np.inf or update.weight < 0:
        raise PolicyError("updates", "have a norm or weight below 0", "give what UpdateReader measured")
    slots = {slot.spec.name: slot for slot in read_layout(update.read_at, schema).slots}
    return Member(update, tuple(slots[spec.name] for spec in schema))


@dataclass(frozen=True, slots=True)
class NoisedMean:
    """Exact integer sums, discrete Gaussian noise, a planned divisor."""

    policy: Policy
    cohort: Cohort
    grid: Grid
    noise_key: bytes

    @property
    def divisor(self) -> int:
        """What the policy planned, never what was received."""
        if self.policy.unit is Unit.RECORD:
            return self.policy.planned_records or 1
        return self.policy.planned_clients

    @property
    def accumulator(self) -> np.dtype[Any]:
        """The integer type of the sums, chosen by planned numbers; it tells nothing of a sampled cohort."""
        most = MAX_CLIENTS if self.policy.is_sampled else self.policy.planned_clients
        return self.grid.accumulator(max(most, len(self.cohort)))

    def combine(self, place: Place) -> Combined:
        """The noised sum of one block; each update's share of its sum of squares beside it."""
        total = np.zeros(place.count, self.accumulator)
        steps = np.empty(place.count, self.grid.dtype)
        squares = []
        for member in self.cohort:
            source = member.source
            scale = self.grid.scale(source.norm, self._share(source))
            block = member.read(place.tensor, place.start, place.count)
            _, square = quantise(block, scale, self.grid, source.update_id, out=steps)
            total += steps
            squares.append(square)
        total += noise_block(self.noise_key, place.tensor, place.block, place.count)
        factor = self.grid.step * self.policy.server_lr / self.divisor
        return Combined(total * np.float64(factor), tuple(squares))

    def _share(self, source: UpdateSource) -> float:
        """The part of the public cap that a weighted update counts: at most 1, so the sensitivity stays."""
        cap = self.policy.weight_cap
        return 1.0 if cap is None else min(source.weight, cap) / cap


@dataclass(frozen=True, slots=True)
class WeightedSum:
    """A floating sum in the order of update ids: the same cohort gives the same bits."""

    cohort: Cohort
    factors: tuple[float, ...]

    def combine(self, place: Place) -> Combined:
        """The sum of one block, each update times its factor."""
        total = np.zeros(place.count)
        scaled = np.empty(place.count)
        for member, factor in zip(self.cohort, self.factors, strict=True):
            if factor == 0:
                continue
            block = member.read(place.tensor, place.start, place.count)
            total += np.multiply(block, factor, out=scaled, dtype=np.float64)
        return Combined(total)


def clip_factors(policy: Policy, cohort: Cohort) -> tuple[float, ...]:
    """What clipping multiplies each update with; ones without a clip norm."""
    if policy.clip_norm is None:
        return tuple(1.0 for _ in cohort)
    return tuple(clip_factor(member.source.norm, policy.clip_norm) for member in cohort)


def received_weights(policy: Policy, cohort: Cohort) -> tuple[int, ...]:
    """What each update counts in a mean without noise."""
    if policy.weights is Weights.EQUAL:
        return tuple(1 for _ in cohort)
    cap = policy.weight_cap
    stated = [member.source.weight for member in cohort]
    return tuple(weight if cap is None else min(weight, cap) for weight in stated)


def plain_mean(policy: Policy, cohort: Cohort) -> WeightedSum:
    """The mean of the (clipped) updates by the weights received."""
    weights = received_weights(policy, cohort)
    total = sum(weights)
    if total == 0:
        raise PolicyError("aggregation.weights", "are all zero", "ask clients for their sample counts")
    factors = [
        clip * weight * policy.server_lr / total
        for clip, weight in zip(clip_factors(policy, cohort), weights, strict=True)
    ]
    return WeightedSum(cohort, tuple(factors))
