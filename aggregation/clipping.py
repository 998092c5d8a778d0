"""L2 norms and clipping: float blocks of any width, squared and summed in float64.

The sum is made in fixed pieces, so that the same numbers give the same norm however they arrived.
"""

from __future__ import annotations

import math
from collections.abc import Mapping

import numpy as np

from aggregation.wire import Array

PIECE_ELEMENTS = 8192
"""A piece fits the first-level cache in float64, and is short enough that no BLAS uses threads for it."""
_AT_ONCE = 8


def square_sum(block: Array) -> float:
    """The sum of squares of a block; NaN or infinite if an element is, or if a float64 square overflows."""
    flat = block.reshape(-1)
    whole = flat.size - flat.size % PIECE_ELEMENTS
    total = 0.0
    for start in range(0, whole, _AT_ONCE * PIECE_ELEMENTS):
        pieces = flat[start : min(start + _AT_ONCE * PIECE_ELEMENTS, whole)].reshape(-1, PIECE_ELEMENTS)
        for squares in _squares(pieces):
            total += squares
    return total if whole == flat.size else total + _squares(flat[whole:].reshape(1, -1))[0]


def _squares(pieces: Array) -> list[float]:
    """The sum of squares of each row; several rows a call, since other threads wait between calls."""
    wide = pieces.astype(np.float64, copy=False)
    found: list[float] = np.vecdot(wide, wide).tolist()
    return found


def l2_norm(tensors: Mapping[str, Array]) -> float:
    """The L2 norm of all float tensors together, measured as the gateway measures it."""
    return math.sqrt(
        sum(square_sum(tensor) for _, tensor in sorted(tensors.items()) if tensor.dtype.kind == "f")
    )


def clip_factor(norm: float, clip_norm: float) -> float:
    """What to multiply a vector of this norm with, so that its norm is at most `clip_norm`."""
    return 1.0 if norm <= clip_norm else clip_norm / norm


def clip(tensors: Mapping[str, Array], clip_norm: float) -> dict[str, Array]:
    """The tensors scaled together to at most `clip_norm`; integer tensors stay as they are."""
    factor = clip_factor(l2_norm(tensors), clip_norm)
    return {
        name: tensor * tensor.dtype.type(factor) if tensor.dtype.kind == "f" else tensor
        for name, tensor in tensors.items()
    }
