"""Blobs in a directory: written aside, fsynced, and named only once the verdict is good (POSIX rename is atomic)."""

from __future__ import annotations

import errno
import logging
import os
import shutil
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from datetime import datetime
from pathlib import Path
from uuid import uuid4

from gateway.errors import BlobsAway, StorageFull
from gateway.storage.chunks import (
    MODEL_NAME,
    ClearReader,
    Incoming,
    NoSuchBlob,
    SealedReader,
    StoredBlob,
)
from gateway.storage.durable import sync_directory
from gateway.storage.steady_file import SteadyFile

log = logging.getLogger(__name__)
_FULL = (errno.ENOSPC, errno.EDQUOT)
_DELETES_AT_ONCE = 8


def is_full(error: OSError) -> bool:
    """Whether there is no room, as opposed to a disk that is broken."""
    return error.errno in _FULL


@contextmanager
def _told() -> Iterator[None]:
    """What the system says, as what the gateway answers: no room (507), or a store that is away (503)."""
    try:
        yield
    except (BlobsAway, NoSuchBlob):
        raise
    except OSError as error:
        if is_full(error):
            raise StorageFull from error
        kind = errno.errorcode.get(error.errno or 0, type(error).__name__)
        log.warning("the directory of FLG_BLOB_URL cannot be used: %s", kind)
        raise BlobsAway(f"The directory of FLG_BLOB_URL cannot be used ({kind})") from error


class _Aside:
    """A blob's bytes in a file that has no name of a blob yet."""

    def __init__(self, path: Path, final: Path, make_folder: Callable[[Path], None]) -> None:
        self._path, self._final, self._make_folder = path, final, make_folder
        with _told():
            self._file = SteadyFile(path)

    def put(self, data: bytes) -> None:
        with _told():
            self._file.write(data)

    def finish(self) -> None:
        with _told():
            self._file.finish()
            self._make_folder(self._final.parent)
            self._path.rename(self._final)
            sync_directory(self._final.parent)

    def abort(self) -> None:
        with suppress(OSError):  # a full disk fails the last flush once more; the file is closed all the same
            self._file.close()
        with suppress(OSError):
            self._path.unlink(missing_ok=True)


class FileBlobs:
    """Blobs below one directory, fanned out by the first two digits of their random names."""

    files_models = False

    def __init__(self, directory: Path) -> None:
        self._directory = directory
        self._incoming = directory / "incoming"
        with _told():
            self._incoming.mkdir(parents=True, exist_ok=True)
        self._synced: set[Path] = set()

    def incoming(self, blob_id: str, key: bytes | None = None) -> Incoming:
        """Start a blob; its data key belongs to it alone, so that chunk numbers serve as nonces."""
        aside = self._incoming / f"{blob_id.replace('/', '-')}.{uuid4().hex}"
        return Incoming(_Aside(aside, self._path(blob_id), self._made), key)

    def reader(self, blob_id: str, key: bytes, *, hold: bool = True) -> SealedReader:
        """A reader of an encrypted blob's plain bytes; with `hold`, its memory is one chunk between reads."""
        path = self._path(blob_id)

        def fetch(offset: int, length: int) -> bytes:
            with self._found(), path.open("rb", buffering=0) as file:
                return os.pread(file.fileno(), length, offset)

        return SealedReader(fetch, self.size(blob_id), key, hold=hold)

    def clear_reader(self, blob_id: str) -> ClearReader:
        """A reader of a blob that is kept in clear."""
        with self._found():
            file = self._path(blob_id).open("rb", buffering=0)
        number = file.fileno()
        size_bytes = os.fstat(number).st_size
        return ClearReader(
            lambda at, length: os.pread(number, length, at), size_bytes, file.close, fileno=number
        )

    @contextmanager
    def as_file(self, blob_id: str) -> Iterator[Path]:
        """The stored bytes as a file, to be read alone."""
        with self._found():
            self._path(blob_id).stat()
        yield self._path(blob_id)

    def local_path(self, blob_id: str) -> Path | None:
        """Where the blob lies."""
        return self._path(blob_id)

    def presigned_url(self, blob_id: str, *, expires_s: int, version: str) -> str | None:  # noqa: ARG002
        """None: a directory has no URL of its own."""
        return None

    def file_model(self, blob_id: str, version: str, checksum: str, at: datetime) -> str | None:  # noqa: ARG002
        """None: in a directory a model keeps its blob's name."""
        return None

    def insist_room(self, size_bytes: int) -> None:
        """Raise `StorageFull` where the disk has less free."""
        with _told():
            if shutil.disk_usage(self._incoming).free < size_bytes:
                raise StorageFull

    def size(self, blob_id: str) -> int:
        """How many bytes are stored.

        Raises:
            FileNotFoundError: there is no such blob.
        """
        with self._found():
            return self._path(blob_id).stat().st_size

    def delete(self, blob_id: str) -> bool:
        """Remove the blob; says whether it was there."""
        folder = self._unlink(blob_id)
        if folder is not None:
            with _told():
                sync_directory(folder)
        return folder is not None

    def delete_many(self, blob_ids: Sequence[str]) -> int:
        """Remove blobs, several at a time since a disk takes its time; says how many were there."""
        with ThreadPoolExecutor(_DELETES_AT_ONCE) as pool:
            folders = [folder for folder in pool.map(self._unlink, blob_ids) if folder is not None]
            with _told():
                list(pool.map(sync_directory, set(folders)))
        return len(folders)

    def stored(self) -> Iterator[StoredBlob]:
        """Every kept blob, with its size and age; one that goes meanwhile is left out."""
        with _told():
            for folder in self._directory.iterdir():
                if folder.is_dir() and folder != self._incoming:
                    yield from _stored_in(folder)

    def names(self) -> Iterator[str]:
        """The ids of all kept blobs."""
        return (blob.name for blob in self.stored())

    def modified_at(self, blob_id: str) -> float:
        """When the blob was written, in seconds since the epoch; infinity if it is gone."""
        try:
            with self._found():
                return self._path(blob_id).stat().st_mtime
        except NoSuchBlob:
            return float("inf")

    def usable(self) -> bool:
        """Whether blobs can be written now."""
        return os.access(self._incoming, os.W_OK | os.X_OK)

    def sweep_incoming(self, *, older_than_s: float, now_s: float | None = None) -> int:
        """Remove what uploads left behind that were cut off; returns how many."""
        limit = (time.time() if now_s is None else now_s) - older_than_s
        swept = 0
        with _told():
            for path in self._incoming.iterdir():
                with suppress(FileNotFoundError):  # it was kept, or discarded, this very moment
                    if path.stat().st_mtime <= limit:
                        path.unlink()
                        swept += 1
        return swept

    def close(self) -> None:
        """Nothing is held open."""

    def _unlink(self, blob_id: str) -> Path | None:
        """Take its name away; the folder whose names must be made to last, or None if it had none."""
        path = self._path(blob_id)
        with suppress(NoSuchBlob), self._found():
            path.unlink()
            return path.parent
        return None

    def _path(self, blob_id: str) -> Path:
        if MODEL_NAME.fullmatch(blob_id):  # a backup of S3 was restored here
            return self._directory / blob_id
        return self._directory / blob_id[:2] / blob_id

    def _made(self, folder: Path) -> None:
        """Make a fan-out folder that survives a power failure, before anything in it is said to."""
        if folder not in self._synced:
            folder.mkdir(exist_ok=True)
            sync_directory(self._directory)
            self._synced.add(folder)

    @contextmanager
    def _found(self) -> Iterator[None]:
        """A blob that is missing is missing only while the store itself is there: a mount may be gone."""
        with _told():
            try:
                yield
            except FileNotFoundError:
                if self._incoming.is_dir():
                    raise NoSuchBlob from None
                raise


def _stored_in(folder: Path) -> Iterator[StoredBlob]:
    now, above = time.time(), "models/" if folder.name == "models" else ""
    for path in folder.iterdir():
        if not path.name.startswith("."):
            with suppress(FileNotFoundError):
                found = path.stat()
                yield StoredBlob(above + path.name, found.st_size, max(0.0, now - found.st_mtime))
