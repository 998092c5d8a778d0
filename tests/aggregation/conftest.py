"""Models and updates as bytes, for the tests of the numeric core."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import pytest

from aggregation import ReadAt, UpdateReader, UpdateSource, write_safetensors

Tensors = Mapping[str, np.ndarray[Any, np.dtype[Any]]]


def _read_at(raw: bytes) -> ReadAt:
    return lambda offset, length: raw[offset : offset + length]


@pytest.fixture
def pack() -> Callable[[Tensors], bytes]:
    """Arrays to the bytes of a safetensors file."""
    return lambda tensors: b"".join(write_safetensors(tensors))


@pytest.fixture
def stored() -> Callable[[Tensors], ReadAt]:
    """Arrays to a stored file."""
    return lambda tensors: _read_at(b"".join(write_safetensors(tensors)))


@pytest.fixture
def accept() -> Callable[..., UpdateSource]:
    """Arrays to an update, measured by the reader as on arrival."""

    def make(update_id: str, tensors: Tensors, weight: int = 1) -> UpdateSource:
        raw = b"".join(write_safetensors(tensors))
        reader = UpdateReader()
        reader.feed(raw)
        return UpdateSource(update_id, _read_at(raw), reader.close().norm, weight)

    return make
