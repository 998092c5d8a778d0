"""Races at a chosen moment: a clock that lets something else happen between two looks at it.

The gateway's code asks its clock before, between and never inside its transactions (RULES 3), so that what
another process might do at that moment, the test does there.
"""

from __future__ import annotations

from collections.abc import Callable
from datetime import datetime

from gateway.services import utc_now


class Interruption:
    """The present time; at the call of that number, counted from `arm`, the action comes first."""

    def __init__(self) -> None:
        self._left = 0
        self._action: Callable[[], object] = utc_now
        self.happened = False

    def arm(self, at_call: int, action: Callable[[], object]) -> None:
        """Let the action happen at the next call of that number (1 is the next one)."""
        self._left, self._action, self.happened = at_call, action, False

    def __call__(self) -> datetime:
        self._left -= 1
        if self._left == 0:
            self.happened = True
            self._action()
        return utc_now()
