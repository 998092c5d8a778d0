"""Folders with any number of files: beyond a thousand they lie in tar archives, so that a package stays a short list.

A ZIP and its signed manifest name every file they hold; a hundred thousand names would not fit in constant memory.
"""

from __future__ import annotations

import tarfile
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from datetime import datetime
from itertools import islice

from compliance.errors import BadPackage
from compliance.places import ExportFolder, FolderFile

AT_ONCE = 1000


@dataclass(frozen=True, slots=True)
class Member:
    """One file of the package that a folder makes, with how many of the folder's files it holds once it is read."""

    path: str
    chunks: Iterable[bytes]


def members_of(folder: ExportFolder, at: datetime) -> Iterator[Member]:
    """The folder's first thousand files one by one, and each further thousand as an archive.

    Each member must be read to its end before the next one is asked for.
    """
    files = iter(folder.files)
    for file in islice(files, AT_ONCE):
        yield Member(f"{folder.path}/{file.name}", _whole(file))
    for number, first in enumerate(files, start=2):
        yield Member(f"{folder.path}/part-{number:04}.tar", _archive(first, files, at))


def _archive(first: FolderFile, others: Iterator[FolderFile], at: datetime) -> Iterator[bytes]:
    """A tar archive (POSIX.1-2001, ustar) of up to a thousand files."""
    yield from _tarred(first, at)
    for file in islice(others, AT_ONCE - 1):
        yield from _tarred(file, at)
    yield bytes(2 * tarfile.BLOCKSIZE)


def _tarred(file: FolderFile, at: datetime) -> Iterator[bytes]:
    info = tarfile.TarInfo(file.name)
    info.size, info.mtime, info.mode = file.size_bytes, int(at.timestamp()), 0o600
    yield info.tobuf(tarfile.USTAR_FORMAT)
    yield from _whole(file)
    yield bytes(-file.size_bytes % tarfile.BLOCKSIZE)


def _whole(file: FolderFile) -> Iterator[bytes]:
    size = 0
    for chunk in file.chunks:
        size += len(chunk)
        yield chunk
    if size != file.size_bytes:
        raise BadPackage(file.name, "the file is not as long as it was said to be")
