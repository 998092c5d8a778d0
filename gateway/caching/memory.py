"""Memory of one process: what was used last, within a bound, and one loader at a time for what is not there."""

from __future__ import annotations

import threading
import time
from collections import OrderedDict
from collections.abc import Callable
from concurrent.futures import Future
from typing import Generic, TypeVar

T = TypeVar("T")


class Recent(Generic[T]):
    """The values used last, as many as `limit` allows; safe for threads.

    Args:
        limit: the most that the weights of all values may come to.
        weigh: what a value weighs; each counts one when not given.
        max_age_s: an older value is not given out.
        now_s: tells the age.
    """

    def __init__(
        self,
        limit: int,
        *,
        weigh: Callable[[T], int] = lambda _: 1,
        max_age_s: float = float("inf"),
        now_s: Callable[[], float] = time.monotonic,
    ) -> None:
        self._limit, self._weigh = limit, weigh
        self._max_age_s, self._now_s = max_age_s, now_s
        self._kept: OrderedDict[str, tuple[T, float]] = OrderedDict()
        self._weight = 0
        self._forgettings = 0
        self._lock = threading.Lock()

    def get(self, key: str) -> T | None:
        """The value, if it is kept and not too old."""
        with self._lock:
            found = self._kept.get(key)
            if found is None:
                return None
            value, kept_at_s = found
            if self._now_s() - kept_at_s > self._max_age_s:
                self._remove(key)
                return None
            self._kept.move_to_end(key)
            return value

    def mark(self) -> int:
        """What to give to `put` for a value that is read from now on."""
        return self._forgettings

    def put(self, key: str, value: T, mark: int) -> None:
        """Keep a value, unless one was forgotten since the mark: this one may have been read before that."""
        with self._lock:
            if mark != self._forgettings or self._weigh(value) > self._limit:
                return
            self._remove(key)
            self._kept[key] = value, self._now_s()
            self._weight += self._weigh(value)
            while self._weight > self._limit:
                self._remove(next(iter(self._kept)))

    def forget(self, key: str) -> None:
        """Drop the value, and whatever is being read just now."""
        with self._lock:
            self._forgettings += 1
            self._remove(key)

    def _remove(self, key: str) -> None:
        found = self._kept.pop(key, None)
        if found is not None:
            self._weight -= self._weigh(found[0])


class SingleFlight(Generic[T]):
    """Lets one thread load what many ask for at the same time; the others wait and get the same."""

    def __init__(self) -> None:
        self._flights: dict[str, Future[T]] = {}
        self._lock = threading.Lock()

    def run(self, key: str, load: Callable[[], T]) -> tuple[T, bool]:
        """What `load` gives, and whether it was this thread that loaded; its error reaches all who wait."""
        with self._lock:
            flight = self._flights.get(key)
            if flight is None:
                own: Future[T] = Future()
                self._flights[key] = own
        if flight is not None:
            return flight.result(), False
        try:
            value = load()
        except BaseException as error:
            own.set_exception(error)
            raise
        else:
            own.set_result(value)
            return value, True
        finally:
            with self._lock:
                del self._flights[key]
