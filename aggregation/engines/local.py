"""Combines a frozen cohort in this process: in blocks, by any number of threads, to the same bits.

The new model leaves as safetensors while it is made. Only a caller that gets the certificate back may publish
it.
"""

from __future__ import annotations

import hashlib
from collections import deque
from collections.abc import Callable, Generator, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import closing
from dataclasses import dataclass
from typing import TypeVar

import numpy as np

from aggregation.certificate import Certificate
from aggregation.combine import (
    Cohort,
    Combined,
    Combiner,
    NoisedMean,
    Place,
    UpdateSource,
    clip_factors,
    open_cohort,
    plain_mean,
    received_weights,
)
from aggregation.errors import NoiseKeyMismatch, SensitivityExceeded
from aggregation.grid import plan_grid
from aggregation.header import read_layout
from aggregation.noise import KEY_BYTES, SAMPLER_VERSION, SIGMA, stated_distance
from aggregation.policy import Policy, Rule
from aggregation.robust import coordinate_rule, distance_rule, gram_block
from aggregation.wire import (
    Layout,
    ReadAt,
    Schema,
    blocks_of,
    dimension,
    encode,
    header_bytes,
    read_block,
)

_Job = TypeVar("_Job")
_Result = TypeVar("_Result")
_DEPTH = 2  # blocks in work or waiting for their turn, for each thread


@dataclass(frozen=True, slots=True)
class Release:
    """A new model that has been written in full: its size, its SHA-256 in hex, and how it came about."""

    certificate: Certificate
    schema: Schema
    size_bytes: int
    checksum: str


def aggregate(
    policy: Policy,
    base: ReadAt,
    updates: Sequence[UpdateSource],
    *,
    write: Callable[[bytes], object],
    noise_key: bytes | None = None,
    threads: int = 1,
) -> Release:
    """Write base + server_lr * (combined updates) as safetensors and certify it; if it raises, discard it.

    Tensors that are no floats pass through from the base. `read_at` of base and updates is called from
    `threads` threads. `noise_key` is `noise.noise_key(...)` of exactly these updates, and None without a
    mechanism.
    """
    if policy.is_noised != (noise_key is not None and len(noise_key) == KEY_BYTES):
        raise NoiseKeyMismatch(needed=policy.is_noised)
    layout = read_layout(base)
    cohort = open_cohort(policy, layout.schema, updates)
    combiner = _combiner(policy, cohort, layout.schema, noise_key, threads)
    sink = _Sink(write)
    sink.write(header_bytes(layout.schema, layout.metadata))
    squares = [0] * len(cohort)
    made = in_order(_places(layout.schema), _block_maker(base, layout, combiner), threads)
    with closing(made) as blocks:
        for block in blocks:
            _add_squares(squares, block.squares, combiner)
            sink.write(block.raw)
    return Release(
        _certificate(policy, cohort, combiner, layout.schema, squares),
        layout.schema,
        sink.size_bytes,
        sink.checksum,
    )


def in_order(
    jobs: Iterable[_Job], work: Callable[[_Job], _Result], threads: int
) -> Generator[_Result, None, None]:
    """The results of all jobs in their order, made by some threads, few of them waiting at any time."""
    if threads <= 1:
        yield from map(work, jobs)
        return
    waiting: deque[Future[_Result]] = deque()
    with ThreadPoolExecutor(threads, thread_name_prefix="aggregate") as pool:
        try:
            for job in jobs:
                waiting.append(pool.submit(work, job))
                if len(waiting) >= _DEPTH * threads:
                    yield waiting.popleft().result()
            while waiting:
                yield waiting.popleft().result()
        finally:
            for future in waiting:
                future.cancel()


@dataclass(frozen=True, slots=True)
class _Block:
    raw: bytes
    squares: tuple[int, ...] = ()


class _Sink:
    """Hashes and counts what it passes on."""

    def __init__(self, write: Callable[[bytes], object]) -> None:
        self._write = write
        self._hash = hashlib.sha256()
        self.size_bytes = 0

    @property
    def checksum(self) -> str:
        return self._hash.hexdigest()

    def write(self, raw: bytes) -> None:
        self._hash.update(raw)
        self.size_bytes += len(raw)
        self._write(raw)


def _combiner(
    policy: Policy,
    cohort: Cohort,
    schema: Schema,
    noise_key: bytes | None,
    threads: int,
) -> Combiner:
    if noise_key is not None:
        return NoisedMean(policy, cohort, plan_grid(policy, dimension(schema)), noise_key)
    if policy.rule is Rule.MEAN:
        return plain_mean(policy, cohort)
    if policy.rule in (Rule.MEDIAN, Rule.TRIMMED_MEAN):
        return coordinate_rule(policy, cohort)
    factors = clip_factors(policy, cohort)
    places = (place for place in _places(schema) if schema[place.tensor].is_float)
    gram = np.zeros((len(cohort), len(cohort)))
    for part in in_order(places, lambda place: gram_block(cohort, factors, place), threads):
        gram += part
    return distance_rule(policy, cohort, gram)


def _places(schema: Schema) -> Iterator[Place]:
    for tensor, spec in enumerate(schema):
        for block, start, count in blocks_of(spec):
            yield Place(tensor, block, start, count)


def _block_maker(base: ReadAt, layout: Layout, combiner: Combiner) -> Callable[[Place], _Block]:
    def make(place: Place) -> _Block:
        slot = layout.slots[place.tensor]
        old = read_block(base, slot, place.start, place.count)
        if not slot.spec.is_float:
            return _Block(old.tobytes())
        combined: Combined = combiner.combine(place)
        new = np.add(old, combined.change, dtype=np.float64)
        return _Block(encode(new, slot.spec.dtype, slot.spec.name), combined.squares)

    return make


def _add_squares(totals: list[int], squares: tuple[int, ...], combiner: Combiner) -> None:
    """Add up each update's exact sum of squares; one above the bound ends the release (RULES 9)."""
    if not isinstance(combiner, NoisedMean):
        return
    for index, square in enumerate(squares):
        totals[index] += square
        if totals[index] > combiner.grid.bound:
            raise SensitivityExceeded(combiner.cohort[index].source.update_id, combiner.grid.bound)


def _certificate(
    policy: Policy,
    cohort: Cohort,
    combiner: Combiner,
    schema: Schema,
    squares: list[int],
) -> Certificate:
    count = None if policy.is_sampled else len(cohort)
    facts = (policy.digest(), policy.rule.value, policy.mechanism.value, policy.unit.value, count)
    coordinates = dimension(schema)
    if not isinstance(combiner, NoisedMean):
        return Certificate(*facts, str(sum(received_weights(policy, cohort))), coordinates)
    grid = combiner.grid
    return Certificate(
        *facts,
        divisor=str(combiner.divisor),
        coordinates=coordinates,
        sensitivity=grid.sensitivity,
        sum_q2_bound=str(grid.bound),
        sum_q2_max=str(max(squares, default=0)),
        sigma=repr(SIGMA),
        gamma=repr(grid.step),
        noise_multiplier=repr(grid.noise_multiplier),
        distance=repr(stated_distance(coordinates)),
        accumulator=combiner.accumulator.name,
        sampler_version=SAMPLER_VERSION,
        sampling_rate=repr(policy.sampling_rate) if policy.is_sampled else None,
    )
