"""Entry ids: UUIDv7 (RFC 9562), so that ids sort by time; ids of one microsecond sort as they were drawn."""

from __future__ import annotations

import os
import threading
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from uuid import UUID

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_TAIL_BITS = 62


class IdMaker:
    """Draws ids for given times; safe to share between threads."""

    def __init__(self, random: Callable[[int], bytes] = os.urandom) -> None:
        self._random = random
        self._lock = threading.Lock()
        self._last_us = -1
        self._tail = 0

    def __call__(self, now: datetime) -> str:
        micros = (now - _EPOCH) // timedelta(microseconds=1)
        millis, fraction = divmod(micros, 1000)
        head = millis << 80 | 0x7 << 76 | (fraction * 4096 // 1000) << 64
        return str(UUID(int=head | 0b10 << _TAIL_BITS | self._next_tail(micros)))

    def _next_tail(self, micros: int) -> int:
        with self._lock:
            step = int.from_bytes(self._random(4)) + 1
            if micros != self._last_us or self._tail + step >= 1 << _TAIL_BITS:
                self._last_us = micros
                self._tail = (
                    int.from_bytes(self._random(8)) >> 3
                )  # one bit free, so that later ones fit above
            else:
                self._tail += step
            return self._tail


new_id = IdMaker()
