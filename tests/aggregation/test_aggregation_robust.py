"""Robust rules against straightforward numpy, and against clients that lie."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from scipy import optimize

from aggregation import Policy, ReadAt, Rule, TooFewUpdates, UpdateSource, aggregate
from aggregation.robust import geometric_median_shares, multi_krum_shares, trimmed_mean

Accept = Callable[..., UpdateSource]
Store = Callable[..., ReadAt]


def _policy(rule: Rule, **changes: Any) -> Policy:
    return Policy(**{"planned_clients": 10, "min_clients": 5, "rule": rule, **changes})


@pytest.fixture
def release(stored: Store, accept: Accept) -> Callable[..., np.ndarray]:
    """What a rule makes of these updates, on a model of zeros."""

    def run(policy: Policy, rows: np.ndarray, threads: int = 1) -> np.ndarray:
        base = stored({"a": np.zeros(rows.shape[1] - 2), "b": np.zeros(2)})
        updates = [accept(f"u{i:03}", {"a": row[:-2], "b": row[-2:]}) for i, row in enumerate(rows)]
        pieces: list[bytes] = []
        aggregate(policy, base, updates, write=pieces.append, threads=threads)
        raw = b"".join(pieces)
        return np.frombuffer(raw[-8 * rows.shape[1] :], "<f8")

    return run


@pytest.mark.parametrize("count", [5, 6, 9])
def test_the_median_is_numpys(release: Callable[..., np.ndarray], count: int) -> None:
    """Coordinate by coordinate, for odd and even counts."""
    rows = np.random.default_rng(count).normal(size=(count, 66_000))

    found = release(_policy(Rule.MEDIAN), rows, threads=2)

    assert found == pytest.approx(np.median(rows, axis=0), rel=1e-12)


def test_the_trimmed_mean_leaves_out_either_end(release: Callable[..., np.ndarray]) -> None:
    """A fifth by default, or the stated number of faulty clients."""
    rows = np.random.default_rng(0).normal(size=(10, 50))
    ordered = np.sort(rows, axis=0)

    assert release(_policy(Rule.TRIMMED_MEAN), rows) == pytest.approx(ordered[2:8].mean(axis=0))
    stated = _policy(Rule.TRIMMED_MEAN, faulty_clients=1)
    assert release(stated, rows) == pytest.approx(ordered[1:9].mean(axis=0))


def test_krum_is_the_textbooks(release: Callable[..., np.ndarray]) -> None:
    """Scores by the n - f - 2 nearest others; the n - f - 2 best are averaged."""
    rows = np.random.default_rng(3).normal(size=(9, 40))
    squares = ((rows[:, None] - rows[None]) ** 2).sum(axis=2)
    scores = [sum(sorted(np.delete(squares[i], i))[:5]) for i in range(9)]
    kept = np.argsort(scores)[:5]

    found = release(_policy(Rule.MULTI_KRUM, min_clients=7, faulty_clients=2), rows)

    assert found == pytest.approx(rows[kept].mean(axis=0))


def test_the_geometric_median_minimises_the_distances(release: Callable[..., np.ndarray]) -> None:
    """No better point is found by a general minimiser."""
    rows = np.random.default_rng(4).normal(size=(7, 6)) * np.arange(1, 8)[:, None]

    found = release(_policy(Rule.GEOMETRIC_MEDIAN), rows)

    def total(point: np.ndarray) -> float:
        return float(np.linalg.norm(rows - point, axis=1).sum())

    best = optimize.minimize(
        total, rows.mean(axis=0), method="Nelder-Mead", options={"maxiter": 20_000, "xatol": 1e-9}
    )
    assert total(found) <= best.fun * (1 + 1e-6)


@pytest.mark.parametrize("rule", [Rule.MEDIAN, Rule.TRIMMED_MEAN, Rule.MULTI_KRUM, Rule.GEOMETRIC_MEDIAN])
def test_a_few_liars_do_not_move_the_model_far(release: Callable[..., np.ndarray], rule: Rule) -> None:
    """Two of ten send a huge update; a mean would be carried away."""
    rng = np.random.default_rng(5)
    rows = 1 + 0.1 * rng.normal(size=(10, 30))
    rows[3:5] = -1e6

    found = release(_policy(rule), rows)

    assert np.abs(found - 1).max() < 0.5
    assert np.abs(rows.mean(axis=0) - 1).min() > 1e5


@pytest.mark.parametrize("rule", [Rule.MULTI_KRUM, Rule.GEOMETRIC_MEDIAN])
def test_equal_updates_are_their_own_median(release: Callable[..., np.ndarray], rule: Rule) -> None:
    """No division by the distance zero."""
    rows = np.tile(np.arange(8.0), (5, 1))

    assert release(_policy(rule), rows) == pytest.approx(np.arange(8.0))
    assert release(_policy(rule), 0 * rows).tolist() == [0.0] * 8


def test_clipping_comes_before_a_robust_rule(release: Callable[..., np.ndarray]) -> None:
    """clip_norm bounds what one liar can do to a geometric median, too."""
    rows = np.zeros((5, 4))
    rows[:, 0] = [1, 2, 3, 4, 1000]

    assert release(_policy(Rule.MEDIAN, clip_norm=2.0, server_lr=0.5), rows)[0] == pytest.approx(1.0)


def test_krum_needs_enough_updates() -> None:
    """n - f - 2 neighbours must be there."""
    with pytest.raises(TooFewUpdates):
        multi_krum_shares(np.eye(3), 1)


def test_shares_are_convex() -> None:
    """The parts of a weighted sum are not negative and make one."""
    gram = np.cov(np.random.default_rng(6).normal(size=(6, 20)))

    for shares in (geometric_median_shares(gram), multi_krum_shares(gram, 1)):
        assert shares.min() >= 0
        assert shares.sum() == pytest.approx(1)
    assert trimmed_mean(np.array([[1.0], [5.0], [2.0]]), 1).tolist() == [2.0]
