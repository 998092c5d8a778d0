"""What was found out about tokens and their owners: it stands for half a second, and never beyond an ending.

Where a verdict falls on this machine, every process sees it at once (`endings`); from another machine's database write
it takes half a second, whether or not any messenger is alive (decision 0124).
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, TypeVar

V = TypeVar("V")
LONGEST_S = 0.5
PART_S = LONGEST_S / 2
MOST = 10_000


@dataclass(frozen=True, slots=True)
class _Verdict:
    value: Any
    epoch: int
    until_s: float


class Verdicts:
    """Values looked up at most twice a second, in bounded memory; what was not found is never remembered.

    Two generations: once the young one is full or old, the one before it goes. Threads need no lock: a lost verdict is
    looked up again.

    Args:
        epoch: a number that moves when what is kept under a key may have ended.
        clock: counts seconds, monotonic.
        most: how many values a generation holds.
    """

    def __init__(
        self,
        epoch: Callable[[str], int],
        *,
        clock: Callable[[], float] = time.monotonic,
        most: int = MOST,
    ) -> None:
        self._epoch = epoch
        self._clock = clock
        self._most = most
        self._young: dict[str, _Verdict] = {}
        self._old: dict[str, _Verdict] = {}
        self._turns_at_s = clock() + LONGEST_S

    def find(
        self,
        key: str,
        load: Callable[[], V | None],
        *,
        epoch: int | None = None,
        longest_s: float = LONGEST_S,
    ) -> V | None:
        """The value under a key, or what `load` finds; an exception of `load` is not remembered.

        Args:
            key: begins with two hex digits, unless an epoch is given.
            load: looks where it is really kept.
            epoch: the number to go by, read by the caller just now.
            longest_s: how long it stands; `PART_S` for what rests on other verdicts, and for those.
        """
        if epoch is None:
            epoch = self._epoch(key)  # before the look: what ends during it is looked up again
        now_s = self._clock()
        known = self._young.get(key) or self._old.get(key)
        if known is not None and known.epoch == epoch and now_s < known.until_s:
            value: V = known.value
            return value
        found = load()
        if found is not None:
            self._keep(key, _Verdict(found, epoch, now_s + longest_s), now_s)
        return found

    def __len__(self) -> int:
        return len(self._young) + len(self._old)

    def _keep(self, key: str, verdict: _Verdict, now_s: float) -> None:
        if len(self._young) >= self._most or now_s >= self._turns_at_s:
            self._old, self._young = self._young, {}
            self._turns_at_s = now_s + LONGEST_S
        self._young[key] = verdict
