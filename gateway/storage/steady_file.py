"""A new file whose bytes go to the disk while more are coming, so that the fsync at its end has little left to do."""

from __future__ import annotations

import os
from contextlib import suppress
from pathlib import Path

STEP_BYTES = 2 << 20  # a smaller file is written as any other
_ROOM_BYTES = 16 << 20
_REMEMBERED_BYTES = 64 << 20  # the worker finds these in memory; what goes beyond it reads from the disk


class SteadyFile:
    """Writes in order, and `finish`: everything is on the disk then.

    Past the first step, room is taken ahead of the bytes (one piece of the disk instead of many), and each step
    is handed to the disk as soon as it is full.
    """

    def __init__(self, path: Path) -> None:
        self._file = path.open("xb")
        self._written, self._handed_over, self._taken = 0, 0, 0

    def write(self, data: bytes) -> None:
        """Take the next bytes; raises OSError."""
        end = self._written + len(data)
        if end > max(self._taken, STEP_BYTES):
            self._take_room(end)
        self._file.write(data)
        self._written = end
        if self._written - self._handed_over >= STEP_BYTES:
            self._hand_over()

    def finish(self) -> None:
        """Make it durable, and close it; raises OSError."""
        self._file.flush()
        if self._taken > self._written:
            self._file.truncate(self._written)
        os.fsync(self._file.fileno())
        self._file.close()

    def close(self) -> None:
        """Close it as it is; raises OSError if the last bytes cannot be written, and it is closed all the same."""
        self._file.close()

    def _take_room(self, end: int) -> None:
        self._taken = end + _ROOM_BYTES
        with suppress(OSError):  # the bytes that come may yet fit: if not, their own write says so
            os.posix_fallocate(self._file.fileno(), self._written, self._taken - self._written)

    def _hand_over(self) -> None:
        """Start writing to the disk what is not there yet, and let go of what came long before.

        "Not needed" starts the writing of bytes that are not on the disk, without waiting for it (Linux), and frees
        the memory of those that are: a large file would push everything else out of it, and new pages cost time.
        """
        self._file.flush()
        self._not_needed(self._handed_over, self._written)
        settled = self._handed_over - STEP_BYTES
        if settled > _REMEMBERED_BYTES:
            self._not_needed(settled - STEP_BYTES, settled)
        self._handed_over = self._written

    def _not_needed(self, start: int, end: int) -> None:
        os.posix_fadvise(self._file.fileno(), start, end - start, os.POSIX_FADV_DONTNEED)
