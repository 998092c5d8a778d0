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


def square_sum(block: Array) -> float:
    """The sum of squares of a block; NaN or infinite if an element is, or if a float64 square overflows."""
    flat = block.reshape(-1)
    wide = np.empty(0 if flat.dtype == np.float64 else min(PIECE_ELEMENTS, flat.size))
    total = 0.0
    for start in range(0, flat.size, PIECE_ELEMENTS):
        piece = flat[start : start + PIECE_ELEMENTS]
        if wide.size:
            np.copyto(wide[: piece.size], piece)
            piece = wide[: piece.size]
        total += float(np.dot(piece, piece))
    return total


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
