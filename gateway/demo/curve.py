"""A curve over rounds as the numbers of an inline SVG: points, grid lines and labels; no script draws it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

WIDTH, HEIGHT = 640.0, 260.0
LEFT, RIGHT, TOP, BOTTOM = 48.0, 16.0, 14.0, 40.0
_MOST_X_LABELS = 12


@dataclass(frozen=True, slots=True)
class Tick:
    """A label and where it stands along its axis."""

    at: float
    label: str


@dataclass(frozen=True, slots=True)
class Point:
    """One round's value, placed, with the words for a screen reader or a hovering pointer."""

    x: float
    y: float
    label: str


@dataclass(frozen=True, slots=True)
class Curve:
    """Everything the template needs to draw one curve."""

    name: str
    title: str
    summary: str
    points: tuple[Point, ...]
    x_ticks: tuple[Tick, ...]
    y_ticks: tuple[Tick, ...]
    limit: Tick | None

    @property
    def path(self) -> str:
        """The line through the points, as SVG's `points`."""
        return " ".join(f"{point.x:.1f},{point.y:.1f}" for point in self.points)


def draw(
    name: str,
    title: str,
    values: Sequence[float],
    *,
    top: float,
    steps: int,
    decimals: int,
    limit: tuple[float, str] | None = None,
) -> Curve:
    """Place a value for each round, from 1, on axes that begin at 0 and end at `top`."""
    points = tuple(
        Point(_x(index, len(values)), _y(value, top), f"Round {index + 1}: {value:.{decimals}f}")
        for index, value in enumerate(values)
    )
    every = -(-len(values) // _MOST_X_LABELS)
    x_ticks = [Tick(_x(index, len(values)), str(index + 1)) for index in range(0, len(values), every)]
    y_ticks = [
        Tick(_y(top * part / steps, top), f"{top * part / steps:.{decimals}f}") for part in range(steps + 1)
    ]
    first, last = (f"{values[index]:.{decimals}f}" for index in (0, -1))
    summary = f"{title}: from {first} in round 1 to {last} in round {len(values)}."
    marked = None if limit is None else Tick(_y(limit[0], top), limit[1])
    return Curve(name, title, summary, points, tuple(x_ticks), tuple(y_ticks), marked)


def _x(index: int, count: int) -> float:
    inner = WIDTH - LEFT - RIGHT
    return LEFT + (inner / 2 if count == 1 else inner * (0.03 + 0.94 * index / (count - 1)))


def _y(value: float, top: float) -> float:
    return TOP + (HEIGHT - TOP - BOTTOM) * (1 - min(max(value / top, 0.0), 1.0))
