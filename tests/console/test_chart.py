"""The numbers of a line: every value has its place, and the axes can be read."""

from __future__ import annotations

import math

import pytest

from gateway.console.chart import draw


def _write(value: float) -> str:
    return f"{value:g}"


def test_values_lie_between_the_axis_and_its_end() -> None:
    """Higher values are drawn higher, in the order given; the limit lies on the scale of the values."""
    chart = draw([("1", 0.5), ("2", 1.0), ("3", 2.5)], write=_write, limit=3.0)

    assert chart is not None
    xs, ys = [point.x for point in chart.points], [point.y for point in chart.points]
    assert xs == sorted(xs)
    assert ys == sorted(ys, reverse=True)
    assert [tick.name for tick in chart.y_ticks] == ["0", "1", "2", "3", "4"]
    assert chart.limit is not None
    assert chart.limit.at == pytest.approx(chart.y_ticks[3].at)
    assert all(chart.y_ticks[-1].at <= y <= chart.bottom for y in ys)


@pytest.mark.parametrize(
    ("highest", "end"), [(0.07, 0.08), (1.0, 1.0), (1.01, 2.0), (7.9, 8.0), (41.0, 60.0)]
)
def test_an_axis_ends_at_a_number_that_is_easily_read(highest: float, end: float) -> None:
    """And never below the highest value."""
    chart = draw([("1", highest)], write=_write)

    assert chart is not None
    assert float(chart.y_ticks[-1].name) == pytest.approx(end)


def test_what_is_not_finite_is_no_point() -> None:
    """An epsilon without bound cannot be drawn; nothing at all is no chart."""
    chart = draw([("1", 0.5), ("2", math.inf), ("3", math.nan)], write=_write)

    assert chart is not None
    assert [point.name for point in chart.points] == ["1"]
    assert draw([("1", math.inf)], write=_write) is None
    assert draw([], write=_write) is None


def test_many_rounds_have_few_names() -> None:
    """Names on the axis do not run into each other."""
    chart = draw([(str(number), float(number)) for number in range(1, 101)], write=_write)

    assert chart is not None
    assert len(chart.points) == 100
    assert len(chart.x_ticks) <= 7
