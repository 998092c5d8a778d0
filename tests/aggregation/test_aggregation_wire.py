"""Schemas, layouts and blocks: what other parts of the gateway build on."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from aggregation import (
    BadFormat,
    NoiseKind,
    Policy,
    PolicyError,
    ReadAt,
    TensorSpec,
    dimension,
    iter_blocks,
    plan_grid,
    read_layout,
    schema_from_json,
    schema_json,
    stated_distance,
    write_safetensors,
)

_SCHEMA = (TensorSpec("w", "F32", (70_000,)), TensorSpec("h", "BF16", (2, 2)), TensorSpec("n", "I64", (3,)))


def test_a_schema_survives_a_column() -> None:
    """The rounds table keeps it as JSON."""
    assert schema_from_json(json.loads(json.dumps(schema_json(_SCHEMA)))) == _SCHEMA
    assert dimension(_SCHEMA) == 70_004


def test_a_stored_file_is_read_block_by_block(stored: Callable[..., ReadAt]) -> None:
    """Blocks of 65,536 elements, tensors in the order of the file."""
    numbers = np.arange(70_000, dtype="<f4")
    read_at = stored({"w": numbers, "n": np.arange(3, dtype="<i8")})

    blocks = list(iter_blocks(read_at, read_layout(read_at)))

    assert [(tensor, block, part.size) for tensor, block, part in blocks] == [
        (0, 0, 3),
        (1, 0, 65_536),
        (1, 1, 4464),
    ]
    assert np.array_equal(np.concatenate([part for tensor, _, part in blocks if tensor == 1]), numbers)


@pytest.mark.parametrize("length", [0, 7, 20])
def test_a_stored_file_that_ends_in_its_header_is_refused(stored: Callable[..., ReadAt], length: int) -> None:
    """A damaged blob is no reason for another exception."""
    read_at = stored({"w": np.zeros(3)})

    with pytest.raises(BadFormat, match="ends inside"):
        read_layout(lambda at, n: read_at(at, min(n, max(0, length - at))))


@pytest.mark.parametrize("array", [np.zeros(2, complex), np.array(["a"]), np.array([None])])
def test_an_array_without_a_safetensors_dtype_is_refused_by_name(array: Any) -> None:
    """The writer says which tensor it cannot write."""
    with pytest.raises(BadFormat) as caught:
        list(write_safetensors({"strange": array}))

    assert caught.value.tensor == "strange"


def test_a_grid_says_what_a_release_spends() -> None:
    """The ledger keeps the mechanism, with the distance of all its coordinates."""
    policy = Policy(
        planned_clients=4,
        min_clients=1,
        mechanism=NoiseKind.GAUSSIAN,
        clip_norm=1.0,
        noise_multiplier=2.0,
        delta=1e-6,
    )

    mechanism = plan_grid(policy, 1000).mechanism(sampling_rate=0.5)

    assert mechanism.noise_multiplier == pytest.approx(2.0, rel=1e-5)
    assert (mechanism.sampling_rate, mechanism.count) == (0.5, 1)
    assert mechanism.distance == stated_distance(1000)
    with pytest.raises(PolicyError):
        plan_grid(Policy(planned_clients=4, min_clients=1), 1000)
