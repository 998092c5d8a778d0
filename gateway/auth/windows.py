"""Windows that count: in Redis for all replicas, where there is one, else in this process, in a bounded memory.

A window begins with the first hit in it, so that a client has its whole allowance whenever it starts.
"""

from __future__ import annotations

import threading
from collections import OrderedDict
from dataclasses import dataclass
from math import ceil
from typing import Protocol

MOST_WINDOWS = 50_000


@dataclass(frozen=True, slots=True)
class Limit:
    """So many hits in so many seconds."""

    count: int
    period_s: int


@dataclass(frozen=True, slots=True)
class Standing:
    """Where a key stands in its window after a hit."""

    limit: Limit
    used: int
    resets_at_s: float

    @property
    def is_over(self) -> bool:
        """Whether this hit was one too many."""
        return self.used > self.limit.count

    def headers(self) -> dict[str, str]:
        """The standing as response headers; the reset is in epoch seconds."""
        return {
            "X-RateLimit-Limit": str(self.limit.count),
            "X-RateLimit-Remaining": str(max(0, self.limit.count - self.used)),
            "X-RateLimit-Reset": str(ceil(self.resets_at_s)),
        }


class LocalWindows:
    """The open windows of one class in this process; past `most` of them the oldest is forgotten."""

    def __init__(self, period_s: int, *, most: int = MOST_WINDOWS) -> None:
        self._period_s = period_s
        self._most = most
        self._open: OrderedDict[str, tuple[float, int]] = OrderedDict()
        self._lock = threading.Lock()

    def count(self, key: str, now_s: float) -> tuple[int, float]:
        """Count one hit; tells how many there were and how many seconds are left."""
        with self._lock:
            began_s, used = self._open.get(key, (now_s, 0))
            if not used or began_s + self._period_s <= now_s:
                self._make_room(now_s)
                began_s, used = now_s, 0
            self._open[key] = (began_s, used + 1)
        return used + 1, began_s + self._period_s - now_s

    def __len__(self) -> int:
        return len(self._open)

    def _make_room(self, now_s: float) -> None:
        """Windows stand in the order in which they began: what is over, or too much, is in front."""
        while self._open:
            began_s, _ = next(iter(self._open.values()))
            if now_s < began_s + self._period_s and len(self._open) < self._most:
                return
            self._open.popitem(last=False)


class Shared(Protocol):
    """Windows outside of this process (`gateway.caching.windows`)."""

    def count(self, name: str, key: str, period_s: int) -> tuple[int, float] | None:
        """Count one hit; tells how many there were and the seconds left, or None when nobody answers in time."""


@dataclass(frozen=True, slots=True)
class Windows:
    """The windows of one class of requests or failed proofs."""

    name: str
    limit: Limit
    local: LocalWindows
    shared: Shared | None

    def hit(self, key: tuple[str, ...], now_s: float) -> Standing:
        """Count one hit: among all replicas, or in this process alone while nobody else answers."""
        whole, period_s = "\n".join(key), self.limit.period_s
        counted = self.shared.count(self.name, whole, period_s) if self.shared else None
        used, left_s = counted or self.local.count(whole, now_s)
        return Standing(self.limit, used, now_s + left_s)
