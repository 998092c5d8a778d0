"""How a body comes in: hashed in one lane, checked and kept in another, each in order and a few chunks behind at most.

Hashing, encryption, arithmetic and writing all let other threads run; a small body needs no thread (decision 0095).
"""

from __future__ import annotations

import tempfile
from collections import deque
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from hashlib import sha256
from typing import IO

from aggregation.npz import npz_to_safetensors
from aggregation.wire import Schema
from gateway.errors import PayloadTooLarge, StorageFull
from gateway.storage.blobs import is_full

INLINE_BYTES = 1 << 20  # less than this is done sooner than a thread is started
_ZIP_MAGIC = b"PK\x03\x04"
_SPOOL_SLACK_BYTES = 16 << 20
_DEPTH = 2  # chunks that wait in a lane: memory for each upload

Convert = Callable[[Iterator[bytes]], Iterator[bytes]]


class Lane:
    """Work on chunks, one after the other; past the first mebibyte in a thread of its own.

    Leaving the block waits for the thread; what the work raised is raised by `give` or `finish`.
    """

    def __init__(self, work: Callable[[bytes], None]) -> None:
        self._work = work
        self._inline_bytes = 0
        self._thread: ThreadPoolExecutor | None = None
        self._waiting: deque[Future[None]] = deque()

    def give(self, chunk: bytes) -> None:
        """Have the chunk worked on; waits while enough of them wait."""
        if self._thread is None and self._inline_bytes < INLINE_BYTES:
            self._inline_bytes += len(chunk)
            self._work(chunk)
            return
        if self._thread is None:
            self._thread = ThreadPoolExecutor(1, "lane")
        if len(self._waiting) > _DEPTH - 1:
            self._waiting.popleft().result()
        self._waiting.append(self._thread.submit(self._work, chunk))

    def finish(self) -> None:
        """Wait until all is done."""
        while self._waiting:
            self._waiting.popleft().result()

    def __enter__(self) -> Lane:
        return self

    def __exit__(self, *_: object) -> None:
        if self._thread is not None:
            self._thread.shutdown(wait=True, cancel_futures=True)


def arrive(
    chunks: Iterator[bytes], take: Callable[[bytes], None], *, convert: Convert = iter
) -> tuple[bytes, int]:
    """Let a body in; its SHA-256 and its size, as it was sent.

    Args:
        chunks: the body.
        take: checks and keeps the next bytes; never called twice at once.
        convert: makes of the body what is to be kept.
    """
    hashed, size_bytes = sha256(), 0
    with Lane(hashed.update) as hashing, Lane(take) as keeping:

        def passing() -> Iterator[bytes]:
            nonlocal size_bytes
            for chunk in chunks:
                size_bytes += len(chunk)
                hashing.give(chunk)
                yield chunk

        for piece in convert(passing()):
            keeping.give(piece)
        hashing.finish()
        keeping.finish()
    return hashed.digest(), size_bytes


def as_safetensors(chunks: Iterator[bytes], schema: Schema) -> Iterator[bytes]:
    """An update as safetensors, whichever of the two formats it came in.

    Raises:
        BadFormat: it is an `.npz` that holds no update of this schema.
        PayloadTooLarge: the `.npz` is much larger than the model.
    """
    first = next(chunks, b"")
    if first.startswith(_ZIP_MAGIC):
        yield from _unzipped(_again(first, chunks), schema)
    else:
        yield from _again(first, chunks)


def _again(first: bytes, rest: Iterator[bytes]) -> Iterator[bytes]:
    yield first
    yield from rest


def _unzipped(chunks: Iterator[bytes], schema: Schema) -> Iterator[bytes]:
    """It is spooled in a file without a name, since a zip's index is at its end."""
    room = sum(spec.size_bytes for spec in schema) + _SPOOL_SLACK_BYTES
    try:
        yield from _converted(chunks, room, schema)
    except OSError as error:
        if is_full(error):
            raise StorageFull from error
        raise


def _converted(chunks: Iterator[bytes], room: int, schema: Schema) -> Iterator[bytes]:
    with tempfile.TemporaryFile() as spooled, tempfile.TemporaryFile() as converted:
        for chunk in chunks:
            if spooled.tell() + len(chunk) > room:
                raise PayloadTooLarge("The .npz file is larger than the model", max_bytes=room)
            spooled.write(chunk)
        spooled.seek(0)
        npz_to_safetensors(spooled, converted.write, schema)
        converted.seek(0)
        yield from _pieces(converted)


def _pieces(file: IO[bytes]) -> Iterator[bytes]:
    while piece := file.read(1 << 20):
        yield piece
