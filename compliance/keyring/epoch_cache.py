"""A cache of keys that is emptied when the epoch moves (RULES 18): an erased key leaves every process."""

from __future__ import annotations

from collections.abc import Callable, Hashable
from typing import Generic, TypeVar

K = TypeVar("K", bound=Hashable)
V = TypeVar("V")


class EpochCache(Generic[K, V]):
    """Values looked up once per epoch.

    A load that an epoch change overtakes is stored in the dropped generation, so it never outlives it.
    """

    def __init__(self, epoch: Callable[[], int], *, limit: int = 20_000) -> None:
        self._epoch = epoch
        self._limit = limit
        self._generation: tuple[int, dict[K, V]] = (epoch(), {})

    def get(self, key: K, load: Callable[[], V]) -> V:
        """The cached value, or what `load` finds; an exception of `load` is not remembered."""
        values = self._current()
        try:
            return values[key]
        except KeyError:
            value = load()
        if len(values) >= self._limit:
            values.clear()
        values[key] = value
        return value

    def _current(self) -> dict[K, V]:
        now = self._epoch()
        epoch, values = self._generation
        if epoch != now:
            values = {}
            self._generation = (now, values)
        return values
