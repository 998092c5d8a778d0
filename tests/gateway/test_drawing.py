"""Chance is drawn exactly: coins by all binary digits of their rate, orders without a favourite."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterator
from fractions import Fraction
from hashlib import shake_256
from itertools import count

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.rounds.drawing import Entropy, coins, shuffled


def entropy_of(*words: int) -> Entropy:
    """Entropy that gives these 64-bit words, one after the other."""
    left: Iterator[int] = iter(words)
    return lambda size: b"".join(next(left).to_bytes(8, "little") for _ in range(size // 8))


def seeded(seed: str) -> Entropy:
    """Entropy that looks random and is the same in every run."""
    calls = count()
    return lambda size: shake_256(f"{seed}|{next(calls)}".encode()).digest(size)


def test_a_coin_compares_all_binary_digits_of_its_rate() -> None:
    """RULES 12: where 64 bits equal the rate's first digits, the next ones decide; no probability is rounded."""
    half, tiny = 0.5, math.ldexp(1.0, -70)

    assert coins(1, half, entropy_of(2**63 - 1)).tolist() == [True]
    assert coins(1, half, entropy_of(2**63)).tolist() == [False]
    assert coins(1, tiny, entropy_of(1)).tolist() == [False]
    assert coins(1, tiny, entropy_of(0, 2**58 - 1)).tolist() == [True]
    assert coins(1, tiny, entropy_of(0, 2**58)).tolist() == [False]


@given(st.floats(1e-300, 1, exclude_max=True), st.integers(0, 2**64 - 1), st.integers(0, 2**64 - 1))
def test_a_coin_is_the_exact_comparison_of_random_digits_with_its_rate(
    rate: float, first: int, second: int
) -> None:
    """For any rate: true exactly where the random number 0.(first)(second)… lies below it."""
    drawn = Fraction(first, 2**64) + Fraction(second, 2**128)
    if Fraction(rate) - drawn < Fraction(1, 2**128) and Fraction(rate) > drawn:
        return  # more digits would be needed

    thrown = coins(1, rate, entropy_of(first, second, 2**64 - 1, *([2**64 - 1] * 20)))

    assert thrown.tolist() == [drawn < Fraction(rate)]


@pytest.mark.parametrize("rate", [0.003, 0.1, 0.5, 0.97])
def test_coins_come_up_as_often_as_their_rate_says(rate: float) -> None:
    """Six standard deviations of the binomial law, from fixed entropy."""
    throws = 200_000

    heads = int(coins(throws, rate, seeded("coins")).sum())

    assert abs(heads - throws * rate) < 6 * math.sqrt(throws * rate * (1 - rate))


def test_coins_are_independent() -> None:
    """Pairs of neighbours come up as independent coins do (chi-squared, 3 degrees of freedom, p = 1e-6)."""
    rate, throws = 0.3, 200_000

    thrown = coins(throws, rate, seeded("pairs")).reshape(-1, 2)

    met = Counter(map(tuple, thrown.tolist()))
    expected = {
        (one, two): throws / 2 * (rate if one else 1 - rate) * (rate if two else 1 - rate)
        for one in (False, True)
        for two in (False, True)
    }
    assert sum((met[pair] - wanted) ** 2 / wanted for pair, wanted in expected.items()) < 30.7


def test_every_order_is_as_likely_as_any_other() -> None:
    """The 24 orders of four items (chi-squared, 23 degrees of freedom, p = 1e-6), from fixed entropy."""
    entropy, times = seeded("orders"), 24_000

    met = Counter(tuple(shuffled("abcd", entropy)) for _ in range(times))

    assert len(met) == 24
    assert sum((seen - 1000) ** 2 / 1000 for seen in met.values()) < 73.3


@given(st.lists(st.integers(), max_size=50))
def test_a_shuffle_keeps_every_item(items: list[int]) -> None:
    """Without replacement: nothing is lost, nothing doubled."""
    assert sorted(shuffled(items, seeded("kept"))) == sorted(items)


def test_nothing_is_drawn_from_nobody() -> None:
    """An empty population has no coins and one order."""
    assert coins(0, 0.5, seeded("none")).tolist() == []
    assert shuffled([], seeded("none")) == []
