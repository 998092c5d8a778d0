"""Files that are whole or absent after a crash: written aside, fsynced, then renamed (POSIX rename is atomic)."""

from __future__ import annotations

import os
from pathlib import Path
from uuid import uuid4


def sync_directory(directory: Path) -> None:
    """Make the names in a directory survive a power failure."""
    descriptor = os.open(directory, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def replace_file(path: Path, content: bytes, *, mode: int = 0o600, aside_in: Path | None = None) -> None:
    """Give a file this content in one step, readable by its owner alone unless `mode` says otherwise.

    Args:
        path: the file.
        content: its new content.
        mode: who may read it.
        aside_in: a folder of the same file system to write in; beside the file when not given.
    """
    aside = (aside_in or path.parent) / f".{path.name}.{uuid4().hex}"
    descriptor = os.open(aside, os.O_WRONLY | os.O_CREAT | os.O_EXCL, mode)
    try:
        with os.fdopen(descriptor, "wb") as file:
            os.fchmod(descriptor, mode)  # whatever the umask
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        aside.replace(path)
    except OSError:
        aside.unlink(missing_ok=True)  # no room, most likely: each try would leave another
        raise
    sync_directory(path.parent)
