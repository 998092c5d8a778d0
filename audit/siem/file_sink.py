"""A sink that is a file of JSON lines, on disk before a batch counts as delivered."""

from __future__ import annotations

import errno
import fcntl
import os
from collections.abc import Sequence
from pathlib import Path
from typing import BinaryIO

from audit.siem.errors import SinkDown
from audit.siem.event import SiemEvent
from audit.siem.formats import FORMATS, Format
from audit.siem.sink import Delivery, encode

_BLOCK = 65_536


class FileSink:
    """Appends one line an event. The file may be moved away between batches (log rotation)."""

    def __init__(self, path: str | Path, *, form: Format = FORMATS["raw"]) -> None:
        self._path, self._form = Path(path), form
        self._named = (0, 0)  # the file whose name is on disk, by device and inode

    def deliver(self, events: Sequence[SiemEvent]) -> Delivery:
        """Append the batch and wait until it is on disk."""
        try:
            self._append(b"".join(encode(event, self._form) + b"\n" for event in events))
        except OSError as error:
            raise self._down(error) from error
        return Delivery("the lines are on disk")

    def probe(self) -> None:
        """See that the file, or its folder, can be written."""
        target = self._path if self._path.exists() else self._path.parent
        if not os.access(target, os.W_OK):
            number = errno.EACCES if target.exists() else errno.ENOENT
            raise self._down(OSError(number, os.strerror(number)))

    def close(self) -> None:
        """Nothing stays open between batches."""

    def _down(self, error: OSError) -> SinkDown:
        return SinkDown(f"file:{self._path}", error.strerror or "it cannot be written")

    def _append(self, lines: bytes) -> None:
        with os.fdopen(os.open(self._path, os.O_RDWR | os.O_CREAT, 0o640), "r+b", buffering=0) as file:
            fcntl.flock(file, fcntl.LOCK_EX)  # a half-written line of another forwarder is not torn
            _cut_torn_line(file)
            rest = memoryview(lines)
            while rest:
                rest = rest[file.write(rest) :]
            os.fsync(file.fileno())
            status = os.fstat(file.fileno())
        if self._named != (
            status.st_dev,
            status.st_ino,
        ):  # also one that a killed process made, or log rotation
            _sync_folder(self._path.parent)
            self._named = (status.st_dev, status.st_ino)


def _cut_torn_line(file: BinaryIO) -> None:
    """Remove what a crash left behind the last newline, and stand at the end: its event comes again."""
    end = file.seek(0, os.SEEK_END)
    while end:
        start = max(0, end - _BLOCK)
        file.seek(start)
        newline = file.read(end - start).rfind(b"\n")
        if newline >= 0:
            end = start + newline + 1
            break
        end = start
    file.truncate(end)
    file.seek(end)


def _sync_folder(folder: Path) -> None:
    """Make a new file's name durable."""
    number = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(number)
    finally:
        os.close(number)
