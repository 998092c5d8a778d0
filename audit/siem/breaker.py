"""When to try a failing sink again, and with how much: ever more rarely, ever less, and in the end one event.

After a number of failures in a row the breaker is open: each further try is a probe with a single event.
"""

from __future__ import annotations

from collections.abc import Callable

FIRST_BACKOFF_S = 0.5
LONGEST_BACKOFF_S = 60.0
LONGEST_OBEYED_S = 3600.0
"""A sink that asks to be left alone for longer is asked again after this time."""

OPENS_AFTER = 5


class Breaker:
    """Counts the failures of one sink.

    Args:
        whole: the events of a batch while all is well.
        jitter: from 0 to 1, at random.
    """

    def __init__(self, whole: int, jitter: Callable[[], float]) -> None:
        self._whole, self._jitter = whole, jitter
        self._size = whole
        self.failures = 0

    @property
    def size(self) -> int:
        """How many events the next batch may have: halved by a failure, doubled by a success, one while open."""
        return 1 if is_open(self.failures) else self._size

    def failed(self, retry_after_s: float | None = None) -> float:
        """Count a failure; how long to wait before the next try.

        Args:
            retry_after_s: how long the sink asked to be left alone.
        """
        self.failures += 1
        self._size = max(1, self._size // 2)
        asked_s = min(retry_after_s or 0.0, LONGEST_OBEYED_S)
        return max(asked_s, backoff_s(self.failures, self._jitter()))

    def succeeded(self) -> None:
        """Count a batch that was taken: the failures are over."""
        self.failures = 0
        self._size = min(self._whole, self._size * 2)


def is_open(failures: int) -> bool:
    """Whether so many failures in a row have opened the breaker."""
    return failures >= OPENS_AFTER


def backoff_s(failures: int, jitter: float) -> float:
    """The wait after so many failures in a row: doubling up to a minute, shortened at random by up to a half.

    Args:
        failures: how many, from 1.
        jitter: from 0 (half the wait) to 1 (all of it), so that many forwarders do not return together.
    """
    longest: float = min(LONGEST_BACKOFF_S, FIRST_BACKOFF_S * 2 ** min(failures - 1, 16))
    return longest * (1 + jitter) / 2
