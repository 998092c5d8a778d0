"""Checks a model or an update while its bytes arrive: format, schema, finiteness and norm, in one pass.

The bytes are pushed in, in pieces of any size; the first wrong byte that can be known to be wrong raises.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from aggregation.clipping import square_sum
from aggregation.errors import BadFormat
from aggregation.header import MAX_HEADER_BYTES, compare, header_length, header_limit, parse_header
from aggregation.wire import BLOCK_ELEMENTS, NUMPY_DTYPES, Layout, Schema, Slot, decode

_PREFIX_BYTES = 8


@dataclass(frozen=True, slots=True)
class Summary:
    """What one pass over a file found out."""

    schema: Schema
    norm: float
    elements: int
    size_bytes: int


class UpdateReader:
    """A push parser: `feed` the body as it comes, `close` at its end.

    `expected` is the round's schema, or None for a model that starts a lineage. `size_bytes` is the body's
    size where it is known beforehand: a header that promises another size is then refused at once.
    """

    def __init__(self, expected: Schema | None = None, *, size_bytes: int | None = None) -> None:
        self._expected = expected
        self._size_bytes = size_bytes
        self._head = bytearray()
        self._head_length: int | None = None
        self._layout: Layout | None = None
        self._body = _Body(())
        self._problem: BadFormat | None = None

    @property
    def layout(self) -> Layout | None:
        """The parsed header, once it has arrived."""
        return self._layout

    def feed(self, data: bytes | bytearray | memoryview) -> None:
        """Take the next bytes; raises BadFormat as soon as they can be refused, and at each later call."""
        if self._problem is not None:
            raise self._problem
        try:
            view = memoryview(data).cast("B")
            if self._layout is None:
                view = self._feed_head(view)
            if view:
                self._body.feed(view)
        except BadFormat as problem:
            self._problem = problem
            raise

    def close(self) -> Summary:
        """The verdict, once the whole body has been fed."""
        if self._problem is not None:
            raise self._problem
        if self._layout is None:
            raise BadFormat(None, "the body ends inside the header")
        unfinished = self._body.unfinished()
        if unfinished is not None:
            raise BadFormat(unfinished, "the body ends before the tensor does")
        schema = self._layout.schema
        norm = math.sqrt(self._body.square_sum())
        return Summary(schema, norm, sum(spec.elements for spec in schema), self._layout.size_bytes)

    def _feed_head(self, view: memoryview) -> memoryview:
        if self._head_length is None:
            view = self._take(view, _PREFIX_BYTES)
            if len(self._head) < _PREFIX_BYTES:
                return view
            limit = MAX_HEADER_BYTES if self._size_bytes is None else self._size_bytes - _PREFIX_BYTES
            length = header_length(bytes(self._head), min(limit, header_limit(self._expected)))
            self._head_length = _PREFIX_BYTES + length
        view = self._take(view, self._head_length)
        if len(self._head) == self._head_length:
            self._open_body()
        return view

    def _take(self, view: memoryview, length: int) -> memoryview:
        missing = length - len(self._head)
        self._head += view[:missing]
        return view[missing:]

    def _open_body(self) -> None:
        layout = parse_header(bytes(self._head[:_PREFIX_BYTES]), bytes(self._head[_PREFIX_BYTES:]))
        if self._expected is not None:
            compare(layout, self._expected)
        if self._size_bytes is not None and self._size_bytes != layout.size_bytes:
            raise BadFormat(None, f"the header describes {layout.size_bytes} bytes, not {self._size_bytes}")
        self._layout = layout
        self._head.clear()
        self._body = _Body(layout.slots)


class _Body:
    """The tensors' bytes, cut at fixed borders, so that the norm does not depend on how they arrived."""

    def __init__(self, slots: tuple[Slot, ...]) -> None:
        self._slots = iter([slot for slot in slots if slot.end > slot.begin])
        self._slot = next(self._slots, None)
        self._left_bytes = _size(self._slot)
        self._pending, self._used = bytearray(), 0  # of a block whose bytes come in several pieces
        self._squares: list[float] = []

    def feed(self, view: memoryview) -> None:
        while view:
            if self._slot is None:
                raise BadFormat(None, "the body goes on after the last tensor")
            block_bytes = BLOCK_ELEMENTS * NUMPY_DTYPES[self._slot.spec.dtype].itemsize
            wanted = min(block_bytes, self._left_bytes + self._used) - self._used
            piece, view = view[:wanted], view[wanted:]
            self._left_bytes -= len(piece)
            self._take(self._slot, piece, complete=len(piece) == wanted)
            if self._left_bytes == 0:
                self._slot = next(self._slots, None)
                self._left_bytes = _size(self._slot)

    def unfinished(self) -> str | None:
        """The name of the tensor whose bytes are still missing."""
        return None if self._slot is None else self._slot.spec.name

    def square_sum(self) -> float:
        return math.fsum(self._squares)

    def _take(self, slot: Slot, piece: memoryview, *, complete: bool) -> None:
        if complete and not self._used:
            self._measure(slot, piece)
            return
        self._pending[self._used : self._used + len(piece)] = piece
        self._used += len(piece)
        if complete:
            block, self._used = memoryview(self._pending)[: self._used], 0
            self._measure(slot, block)

    def _measure(self, slot: Slot, raw: memoryview) -> None:
        name = slot.spec.name
        if slot.spec.dtype == "BOOL" and np.frombuffer(raw, np.uint8).max(initial=0) > 1:
            raise BadFormat(name, "a boolean is neither 0 nor 1")
        if not slot.spec.is_float:
            return
        block = decode(raw, slot.spec.dtype)
        with np.errstate(over="ignore", invalid="ignore"):
            squares = square_sum(block)
        if not math.isfinite(squares):
            if np.isnan(block).any():
                raise BadFormat(name, "the tensor holds NaN")
            raise BadFormat(name, "the tensor holds an infinite or far too large number")
        self._squares.append(squares)


def _size(slot: Slot | None) -> int:
    return 0 if slot is None else slot.end - slot.begin
