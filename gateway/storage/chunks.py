"""The bytes of a blob, whatever store they lie in: plain (models), or a row of encrypted chunks (everything else).

A sealed blob is a row of AES-256-GCM chunks of 1 MiB (RULES 17); the chunk's number and a last-flag are its
associated data, so that a chunk can be read alone and neither a cut nor a swap goes unseen.
"""

from __future__ import annotations

import hmac
import re
import struct
from collections.abc import Callable
from dataclasses import dataclass
from hashlib import sha256
from typing import Protocol

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from gateway.errors import BlobCorrupt

CHUNK_BYTES = 1 << 20
MODEL_NAME = re.compile(
    r"models/v[0-9]+\.[0-9]+\.[0-9]+\.bin"
)  # of a version, where the store has such names
TAG_BYTES = 16
_AAD = struct.Struct(">QB")

Fetch = Callable[[int, int], bytes]  # (offset, length) of what is stored; shorter at the end


class NoSuchBlob(FileNotFoundError):
    """The store answers, and has no such blob."""


@dataclass(frozen=True, slots=True)
class StoredBlob:
    """What a store's listing says of a kept blob: its name, its stored bytes, its age by the store's own clock."""

    name: str
    size_bytes: int
    age_s: float


class Target(Protocol):
    """Where the bytes of a blob that is being written go."""

    def put(self, data: bytes) -> None:
        """Take the next bytes."""

    def finish(self) -> None:
        """Make them durable, and give them their name."""

    def abort(self) -> None:
        """Leave nothing behind; harmless after `finish`, and when repeated. It never raises."""


def plain_size(stored_bytes: int) -> int:
    """How many plain bytes a sealed blob of this stored size holds."""
    return stored_bytes - _chunks_in(stored_bytes) * TAG_BYTES


class Incoming:
    """A blob being written: nothing of it has a name until `keep`, and nothing is left after `discard`.

    Args:
        target: where the bytes go.
        key: the 32-byte data key; None writes in clear (models).
    """

    def __init__(self, target: Target, key: bytes | None) -> None:
        self._target = target
        self._cipher = AESGCM(key) if key else None
        self._buffer = bytearray()  # at most a chunk: only `keep` knows which is the last
        self._number = 0
        self.size_bytes = 0

    def write(self, data: bytes) -> None:
        """Take the next bytes.

        Raises:
            StorageFull: there is no room; nothing is left of the blob.
            BlobsAway: the store does not answer; nothing that has a name is left of the blob.
        """
        self.size_bytes += len(data)
        if self._cipher is None:
            self._put(data)
            return
        view = memoryview(data)
        while view:
            if len(self._buffer) == CHUNK_BYTES:  # more is here, so it is not the last
                self._put_sealed(last=False)
            room = CHUNK_BYTES - len(self._buffer)
            self._buffer += view[:room]
            view = view[room:]

    def keep(self) -> None:
        """Make the blob durable and give it its name; raises what `write` raises."""
        if self._cipher is not None:
            self._put_sealed(last=True)
        try:
            self._target.finish()
        except BaseException:
            self.discard()
            raise

    def discard(self) -> None:
        """Leave nothing behind; harmless after `keep`."""
        self._target.abort()

    def __enter__(self) -> Incoming:
        return self

    def __exit__(self, *_: object) -> None:
        self.discard()

    def _put_sealed(self, *, last: bool) -> None:
        assert self._cipher is not None  # noqa: S101 - narrows the type
        number, self._number = self._number, self._number + 1
        sealed = self._cipher.encrypt(number.to_bytes(12, "big"), self._buffer, _AAD.pack(number, last))
        self._buffer.clear()
        self._put(sealed)

    def _put(self, data: bytes) -> None:
        try:
            self._target.put(data)
        except BaseException:
            self.discard()
            raise


class ClearReader:
    """Bytes of a blob that is kept in clear, at any offset; safe for threads.

    Args:
        fetch: reads what is stored.
        size_bytes: how much that is.
        close: gives back what `fetch` holds open.
        fileno: the open file itself, where it is one, for `sendfile`.
    """

    def __init__(
        self,
        fetch: Fetch,
        size_bytes: int,
        close: Callable[[], None] = lambda: None,
        *,
        fileno: int | None = None,
    ) -> None:
        self._fetch, self._close = fetch, close
        self.size_bytes = size_bytes
        self.fileno = fileno

    def read_at(self, offset: int, length: int) -> bytes:
        """`length` bytes from `offset`."""
        return self._fetch(offset, length)

    def insist(self, checksum: str) -> None:
        """Read all of it once, and compare.

        Raises:
            BlobCorrupt: its SHA-256 is another one than this (hex).
        """
        hashed = sha256()
        for start in range(0, self.size_bytes, CHUNK_BYTES):
            hashed.update(self._fetch(start, min(CHUNK_BYTES, self.size_bytes - start)))
        if not hmac.compare_digest(hashed.hexdigest(), checksum):
            raise BlobCorrupt("a model's bytes are not those that were published")

    def __enter__(self) -> ClearReader:
        return self

    def __exit__(self, *_: object) -> None:
        self._close()


class SealedReader:
    """Plain bytes of an encrypted blob at any offset; reading on is cheap, and threads may share it.

    It holds nothing open: a cohort may have more updates than a process may have open files. With `hold` it keeps
    the last chunk in memory, for reads that go on; a large cohort does without.
    """

    def __init__(self, fetch: Fetch, stored_bytes: int, key: bytes, *, hold: bool = True) -> None:
        self._fetch = fetch
        self._cipher = AESGCM(key)
        self._chunks = _chunks_in(stored_bytes)
        self.size_bytes = plain_size(stored_bytes)
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
        if held is not None and held[0] == number:
            return held[1]
        stored = CHUNK_BYTES + TAG_BYTES
        sealed = self._fetch(number * stored, stored)
        last = number == self._chunks - 1
        try:
            plain = self._cipher.decrypt(number.to_bytes(12, "big"), sealed, _AAD.pack(number, last))
        except InvalidTag:
            raise BlobCorrupt from None
        self._held = (number, plain) if self._hold else None
        return plain


def _chunks_in(stored_bytes: int) -> int:
    return max(1, -(-stored_bytes // (CHUNK_BYTES + TAG_BYTES)))
