"""Telling how far long work has come: a callback, and the line that a terminal shows."""

from __future__ import annotations

import sys
from collections.abc import Callable
from typing import TypeAlias

Progress: TypeAlias = Callable[[int, int], None]
"""Hears (done, total) after every `PROGRESS_EACH` entries."""

PROGRESS_EACH = 1000


def on_terminal() -> Progress | None:
    """Shows progress where somebody watches: on standard error, if that is a terminal."""
    return _show if sys.stderr.isatty() else None


def _show(done: int, total: int) -> None:
    end = "\n" if done + PROGRESS_EACH > total else ""
    share = 100 * done // total if total else 100
    print(f"\r{done} of {total} entries, {share} %", end=end, file=sys.stderr, flush=True)
