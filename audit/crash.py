"""Named places where a test may kill the process, to prove that nothing is lost there."""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeAlias

CrashPoint: TypeAlias = Callable[[str], None]


def no_crash(name: str) -> None:
    """Goes on; what production passes."""
