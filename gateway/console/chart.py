"""A line over rounds as the numbers of an inline SVG: places, grid lines and labels; no script draws it.

The page shows the same numbers in a table, for whoever does not see the picture.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

WIDTH, HEIGHT = 560.0, 260.0
_LEFT, _RIGHT, _TOP, _BOTTOM = 54.0, 20.0, 18.0, 34.0
_STEPS = 4
_MOST_NAMES = 7


@dataclass(frozen=True, slots=True)
class Tick:
    """A label, and where it stands along its axis."""

    at: float
    name: str


@dataclass(frozen=True, slots=True)
class Point:
    """One value, placed, with its words."""

    x: float
    y: float
    name: str
    value: str


@dataclass(frozen=True, slots=True)
class Chart:
    """Everything that a template needs to draw one line."""

    points: tuple[Point, ...]
    x_ticks: tuple[Tick, ...]
    y_ticks: tuple[Tick, ...]
    limit: Tick | None
    width: float = WIDTH
    height: float = HEIGHT
    left: float = _LEFT
    right: float = WIDTH - _RIGHT
    bottom: float = HEIGHT - _BOTTOM

    @property
    def line(self) -> str:
        """The line through the points, as SVG's `points`."""
        return " ".join(f"{point.x:.1f},{point.y:.1f}" for point in self.points)

    @property
    def area(self) -> str:
        """What lies below the line, as SVG's `points`."""
        first, last = self.points[0].x, self.points[-1].x
        return f"{first:.1f},{self.bottom:.1f} {self.line} {last:.1f},{self.bottom:.1f}"


def draw(
    values: Sequence[tuple[str, float]],
    *,
    write: Callable[[float], str],
    limit: float | None = None,
    top: float | None = None,
) -> Chart | None:
    """Place the values, in order, on axes that begin at 0.

    Args:
        values: what each is called, and how large it is; what is not finite is left out.
        write: a number as the reader's language has it.
        limit: where a line across marks what may not be passed.
        top: the end of the axis; the next round number above everything, if not given.

    Returns:
        None if there is nothing to draw.
    """
    finite = [(name, value) for name, value in values if math.isfinite(value)]
    if not finite:
        return None
    highest = top or _round_up(max(*(value for _, value in finite), limit or 0.0, 1e-9))
    points = tuple(
        Point(_x(index, len(finite)), _y(value, highest), name, write(value))
        for index, (name, value) in enumerate(finite)
    )
    every = -(-len(points) // _MOST_NAMES)
    return Chart(
        points=points,
        x_ticks=tuple(Tick(point.x, point.name) for point in points[::every]),
        y_ticks=tuple(
            Tick(_y(highest * step / _STEPS, highest), write(highest * step / _STEPS))
            for step in range(_STEPS + 1)
        ),
        limit=None if limit is None else Tick(_y(limit, highest), write(limit)),
    )


def _round_up(value: float) -> float:
    """The next number of 1, 2, 4, 6, 8 or 10 times a power of ten: its quarters are easily read."""
    power = 10.0 ** math.floor(math.log10(value))
    return next(step * power for step in (1, 2, 4, 6, 8, 10) if value <= step * power * (1 + 1e-9))


def _x(index: int, count: int) -> float:
    inner = WIDTH - _LEFT - _RIGHT
    return _LEFT + (inner / 2 if count == 1 else inner * (0.03 + 0.94 * index / (count - 1)))


def _y(value: float, highest: float) -> float:
    return _TOP + (HEIGHT - _TOP - _BOTTOM) * (1 - min(max(value / highest, 0.0), 1.0))
