"""Blobs in a directory: written aside, fsynced, named only once the verdict is good; updates are encrypted.

An update's blob is a row of AES-256-GCM chunks of 1 MiB (RULES 17); the chunk's number and a last-flag are its
associated data, so that a chunk can be read alone and neither a cut nor a swap goes unseen.
"""

from __future__ import annotations

import errno
import os
import struct
import time
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from uuid import uuid4

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from gateway.errors import ConfigError, GatewayError, StorageFull
from gateway.storage.durable import sync_directory

CHUNK_BYTES = 1 << 20
_TAG_BYTES = 16
_AAD = struct.Struct(">QB")


class BlobCorrupt(GatewayError):
    """A blob is not what was written."""

    code, title = "BLOB_CORRUPT", "A stored blob is damaged"


def is_full(error: OSError) -> bool:
    """Whether there is no room, as opposed to a disk that is broken."""
    return error.errno in (errno.ENOSPC, errno.EDQUOT)


class Incoming:
    """A blob being written: nothing of it has a name until `keep`, and nothing is left after `discard`.

    Args:
        path: the temporary file.
        final: the name it gets.
        key: the 32-byte data key; None writes in clear (models).
    """

    def __init__(self, path: Path, final: Path, key: bytes | None) -> None:
        self._path, self._final = path, final
        self._cipher = AESGCM(key) if key else None
        self._buffer = bytearray()
        self._number = 0
        self._file = path.open("xb")
        self.size_bytes = 0

    def write(self, data: bytes) -> None:
        """Take the next bytes.

        Raises:
            StorageFull: the disk is full; the temporary file is gone.
        """
        self.size_bytes += len(data)
        if self._cipher is None:
            self._put(data)
            return
        self._buffer += data
        while len(self._buffer) > CHUNK_BYTES:  # the last chunk stays: only close knows that it is the last
            self._put(self._sealed(bytes(self._buffer[:CHUNK_BYTES]), last=False))
            del self._buffer[:CHUNK_BYTES]

    def keep(self) -> None:
        """Make the blob durable and give it its name."""
        try:
            if self._cipher is not None:
                self._put(self._sealed(bytes(self._buffer), last=True))
            self._file.flush()
            os.fsync(self._file.fileno())
            self._file.close()
            self._final.parent.mkdir(parents=True, exist_ok=True)
            self._path.rename(self._final)
            sync_directory(self._final.parent)
        except OSError as error:
            self._fail(error)

    def discard(self) -> None:
        """Leave nothing behind; harmless after `keep`."""
        with suppress(OSError):  # a full disk fails the last flush once more; the file is closed all the same
            self._file.close()
        self._path.unlink(missing_ok=True)

    def __enter__(self) -> Incoming:
        return self

    def __exit__(self, *_: object) -> None:
        self.discard()

    def _sealed(self, chunk: bytes, *, last: bool) -> bytes:
        assert self._cipher is not None  # noqa: S101 - narrows the type
        number, self._number = self._number, self._number + 1
        return self._cipher.encrypt(number.to_bytes(12, "big"), chunk, _AAD.pack(number, last))

    def _put(self, data: bytes) -> None:
        try:
            self._file.write(data)
        except OSError as error:
            self._fail(error)

    def _fail(self, error: OSError) -> None:
        self.discard()
        if is_full(error):
            raise StorageFull from error
        raise error


class FileBlobs:
    """Blobs below one directory, fanned out by the first two digits of their random names."""

    def __init__(self, directory: Path) -> None:
        self._directory = directory
        self._incoming = directory / "incoming"
        self._incoming.mkdir(parents=True, exist_ok=True)

    def incoming(self, blob_id: str, key: bytes | None = None) -> Incoming:
        """Start a blob; its data key belongs to it alone, so that chunk numbers serve as nonces."""
        try:
            return Incoming(self._incoming / f"{blob_id}.{uuid4().hex}", self.path(blob_id), key)
        except OSError as error:
            if is_full(error):
                raise StorageFull from error
            raise

    def path(self, blob_id: str) -> Path:
        """Where the blob lies."""
        return self._directory / blob_id[:2] / blob_id

    def delete(self, blob_id: str) -> bool:
        """Remove the blob; says whether it was there."""
        path = self.path(blob_id)
        try:
            path.unlink()
        except FileNotFoundError:
            return False
        sync_directory(path.parent)
        return True

    def names(self) -> Iterator[str]:
        """The ids of all kept blobs."""
        for folder in self._directory.iterdir():
            if folder.is_dir() and folder != self._incoming:
                yield from (path.name for path in folder.iterdir() if not path.name.startswith("."))

    def modified_at(self, blob_id: str) -> float:
        """When the blob was written, in seconds since the epoch; infinity if it is gone."""
        try:
            return self.path(blob_id).stat().st_mtime
        except FileNotFoundError:
            return float("inf")

    def usable(self) -> bool:
        """Whether blobs can be written now."""
        return os.access(self._incoming, os.W_OK | os.X_OK)

    def sweep_incoming(self, *, older_than_s: float, now_s: float | None = None) -> int:
        """Remove what uploads left behind that were cut off; returns how many."""
        limit = (time.time() if now_s is None else now_s) - older_than_s
        swept = 0
        for path in self._incoming.iterdir():
            with suppress(FileNotFoundError):  # it was kept, or discarded, this very moment
                if path.stat().st_mtime <= limit:
                    path.unlink()
                    swept += 1
        return swept

    def reader(self, blob_id: str, key: bytes, *, hold: bool = True) -> SealedReader:
        """A reader of an encrypted blob's plain bytes; with `hold`, its memory is one chunk between reads."""
        return SealedReader(self.path(blob_id), key, hold=hold)


class ClearReader:
    """Bytes of a blob that is kept in clear, at any offset; safe for threads."""

    def __init__(self, path: Path) -> None:
        self._file = path.open("rb")
        self.size_bytes = path.stat().st_size

    def read_at(self, offset: int, length: int) -> bytes:
        """`length` bytes from `offset`."""
        return os.pread(self._file.fileno(), length, offset)

    def __enter__(self) -> ClearReader:
        return self

    def __exit__(self, *_: object) -> None:
        self._file.close()


class SealedReader:
    """Plain bytes of an encrypted blob at any offset; reading on is cheap, and threads may share it.

    It holds no file open: a cohort may have more updates than a process may have open files. With `hold` it keeps
    the last chunk in memory, for reads that go on; a large cohort does without.
    """

    def __init__(self, path: Path, key: bytes, *, hold: bool = True) -> None:
        self._path = path
        self._cipher = AESGCM(key)
        stored = path.stat().st_size
        self._chunks = max(1, -(-stored // (CHUNK_BYTES + _TAG_BYTES)))
        self.size_bytes = stored - self._chunks * _TAG_BYTES
        self._hold = hold
        self._held: tuple[int, bytes] | None = None

    def read_at(self, offset: int, length: int) -> bytes:
        """`length` plain bytes from `offset`.

        Raises:
            BlobCorrupt: the blob was changed, cut or swapped.
        """
        if offset < 0 or offset + length > self.size_bytes:
            raise BlobCorrupt("a read lies outside the blob")
        parts = []
        while length > 0:
            number, start = divmod(offset, CHUNK_BYTES)
            part = self._chunk(number)[start : start + length]
            parts.append(part)
            offset, length = offset + len(part), length - len(part)
        return b"".join(parts)

    def __enter__(self) -> SealedReader:
        return self

    def __exit__(self, *_: object) -> None:
        self._held = None

    def _chunk(self, number: int) -> bytes:
        held = self._held  # one read: several threads use this reader at once
        if held is None or held[0] != number:
            stored = CHUNK_BYTES + _TAG_BYTES
            with self._path.open("rb", buffering=0) as file:
                sealed = os.pread(file.fileno(), stored, number * stored)
            last = number == self._chunks - 1
            try:
                plain = self._cipher.decrypt(number.to_bytes(12, "big"), sealed, _AAD.pack(number, last))
            except InvalidTag:
                raise BlobCorrupt from None
            self._held = (number, plain) if self._hold else None
            return plain
        return held[1]


def open_blobs(url: str) -> FileBlobs:
    """The blob store that `FLG_BLOB_URL` names.

    Raises:
        ConfigError: it is not of the form `file:DIR`.
    """
    scheme, _, path = url.partition(":")
    if scheme != "file" or not path:
        raise ConfigError("FLG_BLOB_URL must have the form file:DIR")
    return FileBlobs(Path(path))
