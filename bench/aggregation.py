"""The numeric core: the check on arrival, noise, exact sums, and a whole release, each beside its limit.

python -m bench.aggregation [--quick] [--json]
"""

from __future__ import annotations

import hashlib

import numpy as np

from aggregation import (
    NoiseKind,
    Policy,
    Schema,
    TensorSpec,
    UpdateReader,
    UpdateSource,
    aggregate,
    header_bytes,
    noise_block,
    plan_grid,
    quantise,
)
from aggregation.wire import BLOCK_ELEMENTS
from bench.figures import Figure, cpu_seconds, options, report

_PIECE_BYTES = 1 << 18
_KEY = bytes(32)
_UPDATES = 8
_POLICY = Policy(
    planned_clients=_UPDATES,
    min_clients=1,
    mechanism=NoiseKind.GAUSSIAN,
    clip_norm=1.0,
    noise_multiplier=1.0,
    delta=1e-6,
)


def main() -> None:
    """Measure and print."""
    chosen = options(__doc__ or "")
    elements = (2 if chosen.quick else 16) * 1_000_000
    rounds = 3 if chosen.quick else 9
    schema = (TensorSpec("w", "F32", (elements,)),)
    raw = _update(schema)
    figures = [
        _arrival(schema, raw, rounds),
        _noise(elements // 2, rounds),
        _sums(rounds * 4),
        _release(schema, raw, rounds),
    ]
    report(figures, ["numpy", "cryptography"], as_json=chosen.json)


def _update(schema: Schema) -> bytes:
    numbers = np.random.default_rng(0).normal(size=schema[0].elements).astype("<f4")
    return header_bytes(schema) + numbers.tobytes()


def _arrival(schema: Schema, raw: bytes, rounds: int) -> Figure:
    """Format, schema, finiteness and norm beside the SHA-256 that hashes the same bytes anyway."""
    view = memoryview(raw)
    pieces = [view[at : at + _PIECE_BYTES] for at in range(0, len(raw), _PIECE_BYTES)]

    def check() -> None:
        reader = UpdateReader(schema)
        for piece in pieces:
            reader.feed(piece)
        reader.close()

    def digest() -> None:
        sha = hashlib.sha256()
        for piece in pieces:
            sha.update(piece)

    checked, hashed = cpu_seconds([check, digest], rounds)
    size = len(raw) / 1e6
    return Figure("check on arrival", size / checked, "MB/s", "SHA-256", size / hashed, goal=1.0)


def _noise(draws: int, rounds: int) -> Figure:
    """Discrete, keyed noise beside numpy's floating normal."""
    blocks = draws // BLOCK_ELEMENTS
    generator = np.random.default_rng(0)
    ours, numpys = cpu_seconds(
        [
            lambda: [noise_block(_KEY, 0, block, BLOCK_ELEMENTS) for block in range(blocks)],
            lambda: [generator.normal(size=BLOCK_ELEMENTS) for _ in range(blocks)],
        ],
        rounds,
    )
    count = blocks * BLOCK_ELEMENTS / 1e6
    return Figure("noise", count / ours, "M draws/s", "Generator.normal", count / numpys, goal=0.3)


def _sums(rounds: int) -> Figure:
    """Scaling, truncating, proving and adding beside the bare addition of the same integers."""
    grid = plan_grid(_POLICY, BLOCK_ELEMENTS)
    block = np.random.default_rng(0).normal(size=BLOCK_ELEMENTS).astype("<f4")
    scale = grid.scale(float(np.linalg.norm(block.astype(float))))
    steps, _ = quantise(block, scale, grid, "u")
    total = np.zeros(BLOCK_ELEMENTS, np.int32)
    repeats = range(100)

    def exact_sum() -> None:
        for _ in repeats:
            quantise(block, scale, grid, "u", out=steps)
            np.add(total, steps, out=total)

    def bare_sum() -> None:
        for _ in repeats:
            np.add(total, steps, out=total)

    exact, bare = cpu_seconds([exact_sum, bare_sum], rounds)
    count = len(repeats) * BLOCK_ELEMENTS / 1e6
    return Figure("exact sum", count / exact, "M elements/s", "np.add of int32", count / bare, goal=0.05)


def _release(schema: Schema, raw: bytes, rounds: int) -> Figure:
    """A noised release of eight updates, model written and hashed, beside the SHA-256 of the updates' bytes."""
    norm = float(np.linalg.norm(np.frombuffer(raw[len(header_bytes(schema)) :], "<f4").astype(float)))
    view = memoryview(raw)

    def read_at(offset: int, length: int) -> memoryview:
        return view[offset : offset + length]

    updates = [UpdateSource(f"u{index}", read_at, norm) for index in range(_UPDATES)]

    def release() -> None:
        aggregate(_POLICY, read_at, updates, write=lambda _: None, noise_key=_KEY)

    def digest() -> None:
        for _ in updates:
            hashlib.sha256(raw).digest()

    released, hashed = cpu_seconds([release, digest], max(2, rounds // 3))
    size = _UPDATES * len(raw) / 1e6
    return Figure("noised release", size / released, "MB/s", "SHA-256", size / hashed, goal=0.3)


if __name__ == "__main__":
    main()
