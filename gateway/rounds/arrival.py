"""How a body comes in: hashed in one lane, checked and kept in another, each in order and a few chunks behind at most.

Hashing, encryption, arithmetic and writing all let other threads run. A small body needs no thread, and with two
cores one thread more is enough: the request's own keeps what it reads (decision 0095).
"""

from __future__ import annotations

import os
import sys
import tempfile
import threading
from collections.abc import Callable, Iterator
from hashlib import sha256
from queue import SimpleQueue
from typing import IO

from aggregation.npz import npz_to_safetensors
from aggregation.wire import Schema
from gateway.errors import PayloadTooLarge, StorageFull
from gateway.storage.blobs import is_full

INLINE_BYTES = 1 << 20  # less than this is done sooner than a thread is started
CORES = len(os.sched_getaffinity(0))
_ZIP_MAGIC = b"PK\x03\x04"
_SPOOL_SLACK_BYTES = 16 << 20
_DEPTH = 2  # chunks that wait in a lane: memory for each upload

Convert = Callable[[Iterator[bytes]], Iterator[bytes]]


class Lane:
    """Work on chunks, one after the other; past the first mebibyte in a thread of its own, if it may have one.

    Leaving the block waits for the thread; what the work raised is raised by `give` or `finish`.
    """

    def __init__(self, work: Callable[[bytes], None], *, threaded: bool = True) -> None:
        self._work = work
        self._inline_bytes, self._most_inline = 0, INLINE_BYTES if threaded else sys.maxsize
        self._thread: threading.Thread | None = None
        self._given = SimpleQueue[bytes | None]()
        self._answers = SimpleQueue[BaseException | None]()
        self._waiting, self._left = 0, False

    def give(self, chunk: bytes) -> None:
        """Have the chunk worked on; waits while enough of them wait."""
        if self._thread is None and self._inline_bytes < self._most_inline:
            self._inline_bytes += len(chunk)
            self._work(chunk)
            return
        if self._thread is None:
            self._thread = threading.Thread(target=self._run, name="lane")
            self._thread.start()
        if self._waiting == _DEPTH:
            self._hear()
        self._given.put(chunk)
        self._waiting += 1

    def finish(self) -> None:
        """Wait until all is done."""
        while self._waiting:
            self._hear()

    def __enter__(self) -> Lane:
        return self

    def __exit__(self, *_: object) -> None:
        self._left = True
        if self._thread is not None:
            self._given.put(None)
            self._thread.join()

    def _hear(self) -> None:
        problem = self._answers.get()
        self._waiting -= 1
        if problem is not None:
            raise problem

    def _run(self) -> None:
        problem: BaseException | None = None
        while (chunk := self._given.get()) is not None:
            if problem is None and not self._left:
                problem = self._problem_with(chunk)
            del chunk  # the next may be long in coming
            self._answers.put(problem)

    def _problem_with(self, chunk: bytes) -> BaseException | None:
        try:
            self._work(chunk)
        except BaseException as problem:  # noqa: BLE001 - the request's own thread raises it
            return problem
        return None


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
    with Lane(hashed.update) as hashing, Lane(take, threaded=CORES > 2) as keeping:

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
