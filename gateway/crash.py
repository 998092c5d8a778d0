"""Named points where the crash tests kill this very process, to prove that nothing acknowledged is lost."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable

CrashPoint = Callable[[str], None]


def crash_at(name: str) -> CrashPoint:
    """A function that kills the process without warning at the point of that name, and does nothing elsewhere.

    Args:
        name: the point (`FLG_CRASH_AT`); empty means never.
    """

    def point(here: str) -> None:
        if name and here == name:
            os.kill(os.getpid(), signal.SIGKILL)

    return point
