"""The sum of squares behind every norm: fixed pieces in a fixed order."""

from __future__ import annotations

import numpy as np
import pytest

from aggregation.clipping import PIECE_ELEMENTS, square_sum


@pytest.mark.parametrize("elements", [0, 1, PIECE_ELEMENTS - 1, PIECE_ELEMENTS, 9 * PIECE_ELEMENTS + 5])
@pytest.mark.parametrize("dtype", ["f2", "f4", "f8"])
def test_squares_are_summed_piece_by_piece_to_the_last_bit(elements: int, dtype: str) -> None:
    """Norms of the past are found again, however many pieces a call takes."""
    block = np.random.default_rng(0).standard_normal(elements).astype(dtype)
    total = 0.0

    for start in range(0, elements, PIECE_ELEMENTS):
        piece = block[start : start + PIECE_ELEMENTS].astype(np.float64)
        total += float(np.dot(piece, piece))

    assert square_sum(block) == total
