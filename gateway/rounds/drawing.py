"""Chance, drawn exactly: each function takes its entropy as an argument, in production the system's (`os.urandom`).

A coin of probability q compares 64 random bits with the binary digits of q, and goes on with further digits where
they are equal, so that its probability is q itself and not a neighbour of it (RULES 12).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from fractions import Fraction
from typing import TypeVar

import numpy as np
import numpy.typing as npt

Entropy = Callable[[int], bytes]
T = TypeVar("T")
_BITS = 64
_PIECE = 1 << 16


def coins(count: int, rate: float, entropy: Entropy) -> npt.NDArray[np.bool_]:
    """Independent coins, each true with probability exactly `rate`, which lies between 0 and 1."""
    pieces = [
        _piece(min(_PIECE, count - start), Fraction(rate), entropy) for start in range(0, count, _PIECE)
    ]
    return np.concatenate(pieces) if pieces else np.zeros(0, np.bool_)


def shuffled(items: Sequence[T], entropy: Entropy) -> list[T]:
    """The items in a random order: sorted by 128-bit keys, all orders are equally likely unless two keys are equal."""
    keys = np.frombuffer(entropy(16 * len(items)), dtype="<u8").reshape(-1, 2)
    order = np.lexsort((keys[:, 0], keys[:, 1]))  # both words of a key
    return [items[place] for place in order.tolist()]


def _piece(count: int, rate: Fraction, entropy: Entropy) -> npt.NDArray[np.bool_]:
    threshold, rest = divmod(rate * 2**_BITS, 1)
    drawn = np.frombuffer(entropy(count * _BITS // 8), dtype="<u8")
    true = drawn < np.uint64(int(threshold))
    for place in np.flatnonzero(drawn == np.uint64(int(threshold))).tolist():
        true[place] = _further(rest, entropy)
    return true


def _further(rest: Fraction, entropy: Entropy) -> bool:
    """The coin whose first digits are those of the rate: the next ones decide."""
    while rest:
        threshold, rest = divmod(rest * 2**_BITS, 1)
        drawn = int.from_bytes(entropy(_BITS // 8), "little")
        if drawn != threshold:
            return bool(drawn < threshold)
    return False
