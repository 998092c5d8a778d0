"""Halting processes to their last thread: SIGSTOP is taken by one thread, and the others stop a little later."""

from __future__ import annotations

import os
import signal
import time
from contextlib import suppress
from pathlib import Path

_WITHIN_S = 30.0


def halt(*pids: int) -> None:
    """Stop the processes, and wait until no thread of theirs runs; one that is gone does nothing anyway."""
    for pid in pids:
        with suppress(ProcessLookupError):
            os.kill(pid, signal.SIGSTOP)
    until_s = time.monotonic() + _WITHIN_S
    for pid in pids:
        while any(_is_running(thread) for thread in Path(f"/proc/{pid}/task").glob("*")):
            assert time.monotonic() < until_s, f"process {pid} did not stop"
            time.sleep(0.005)


def _is_running(thread: Path) -> bool:
    """Whether a thread is neither stopped nor gone (proc(5): the state stands behind the name)."""
    try:
        return (thread / "stat").read_text().rpartition(")")[2].split()[0] not in "TtZX"
    except (FileNotFoundError, ProcessLookupError):
        return False
