"""The wire format of models and updates: safetensors, described by a schema, read and written in blocks.

A file is a little-endian length, a JSON header and the tensors' bytes without gaps. `header` has the strict
parser, `reader` the check of bytes as they arrive.
"""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from aggregation.errors import BadFormat, ModelOverflow

BLOCK_ELEMENTS = 65_536
NUMPY_DTYPES: Mapping[str, np.dtype[Any]] = {
    "BOOL": np.dtype("?"),
    "U8": np.dtype("<u1"),
    "I8": np.dtype("<i1"),
    "U16": np.dtype("<u2"),
    "I16": np.dtype("<i2"),
    "U32": np.dtype("<u4"),
    "I32": np.dtype("<i4"),
    "U64": np.dtype("<u8"),
    "I64": np.dtype("<i8"),
    "F16": np.dtype("<f2"),
    "BF16": np.dtype("<u2"),  # as stored; numpy has no bfloat16
    "F32": np.dtype("<f4"),
    "F64": np.dtype("<f8"),
}
FLOATS = frozenset({"F16", "BF16", "F32", "F64"})
_NAMES = {dtype: name for name, dtype in NUMPY_DTYPES.items() if name != "BF16"}

Array = npt.NDArray[Any]
ReadAt = Callable[[int, int], bytes | memoryview]
"""Reads `length` bytes at `offset` of a stored file; called from several threads at once."""


@dataclass(frozen=True, slots=True)
class TensorSpec:
    """Name, dtype and shape of one tensor, as the safetensors header has them."""

    name: str
    dtype: str
    shape: tuple[int, ...]

    @property
    def elements(self) -> int:
        """How many numbers the tensor holds."""
        return math.prod(self.shape)

    @property
    def size_bytes(self) -> int:
        """How many bytes the tensor takes in the file."""
        return self.elements * NUMPY_DTYPES[self.dtype].itemsize

    @property
    def is_float(self) -> bool:
        """Whether the tensor is aggregated; all others pass through from the base model."""
        return self.dtype in FLOATS


Schema = tuple[TensorSpec, ...]


@dataclass(frozen=True, slots=True)
class Slot:
    """Where in the file a tensor lies: absolute offsets."""

    spec: TensorSpec
    begin: int
    end: int


@dataclass(frozen=True, slots=True)
class Layout:
    """A parsed header: the tensors in the order of their bytes, and what else it said."""

    slots: tuple[Slot, ...]
    metadata: Mapping[str, str]
    data_start: int

    @property
    def schema(self) -> Schema:
        """The tensors without their places."""
        return tuple(slot.spec for slot in self.slots)

    @property
    def size_bytes(self) -> int:
        """The size of the whole file."""
        return self.slots[-1].end if self.slots else self.data_start


def dimension(schema: Schema) -> int:
    """The number of coordinates that are aggregated, and noised: the elements of float tensors."""
    return sum(spec.elements for spec in schema if spec.is_float)


def schema_json(schema: Schema) -> list[dict[str, Any]]:
    """The schema as JSON values, for a column or a message."""
    return [{"name": spec.name, "dtype": spec.dtype, "shape": list(spec.shape)} for spec in schema]


def schema_from_json(value: list[dict[str, Any]]) -> Schema:
    """What `schema_json` gave, as a schema again."""
    return tuple(TensorSpec(item["name"], item["dtype"], tuple(item["shape"])) for item in value)


def header_bytes(schema: Schema, metadata: Mapping[str, str] | None = None) -> bytes:
    """Length and JSON header of a file that holds these tensors in this order, padded to eight bytes."""
    members: dict[str, Any] = {"__metadata__": dict(metadata)} if metadata else {}
    offset = 0
    for spec in schema:
        end = offset + spec.size_bytes
        members[spec.name] = {
            "dtype": spec.dtype,
            "shape": list(spec.shape),
            "data_offsets": [offset, end],
        }
        offset = end
    text = json.dumps(members, separators=(",", ":"), ensure_ascii=False).encode()
    text += b" " * (-len(text) % 8)
    return len(text).to_bytes(8, "little") + text


def write_safetensors(
    tensors: Mapping[str, Array],
    metadata: Mapping[str, str] | None = None,
) -> Iterator[bytes]:
    """A safetensors file of arrays, in pieces; widest dtype first, then by name, so that all are aligned."""
    names = sorted(tensors, key=lambda name: (-tensors[name].dtype.itemsize, name))
    schema = tuple(TensorSpec(name, dtype_name(name, tensors[name]), tensors[name].shape) for name in names)
    yield header_bytes(schema, metadata)
    for spec in schema:
        flat = np.ascontiguousarray(tensors[spec.name]).reshape(-1)
        for start in range(0, flat.size, BLOCK_ELEMENTS):
            block = flat[start : start + BLOCK_ELEMENTS]
            yield block.astype(NUMPY_DTYPES[spec.dtype], copy=False).tobytes()


def dtype_name(tensor: str, array: Array) -> str:
    """The safetensors name of an array's dtype, or a refusal that names the tensor."""
    try:
        return _NAMES[array.dtype.newbyteorder("<")]
    except KeyError:
        raise BadFormat(tensor, f"dtype {array.dtype} has no safetensors name here") from None


def blocks_of(spec: TensorSpec) -> Iterator[tuple[int, int, int]]:
    """The blocks of a tensor: index, first element, number of elements."""
    for index, start in enumerate(range(0, spec.elements, BLOCK_ELEMENTS)):
        yield index, start, min(BLOCK_ELEMENTS, spec.elements - start)


def read_block(read_at: ReadAt, slot: Slot, start: int, count: int) -> Array:
    """Some elements of a tensor, decoded (BF16 as float32, the others as stored)."""
    width = NUMPY_DTYPES[slot.spec.dtype].itemsize
    raw = read_at(slot.begin + start * width, count * width)
    if len(raw) != count * width:
        raise BadFormat(slot.spec.name, "the file ends inside the tensor")
    return decode(raw, slot.spec.dtype)


def iter_blocks(read_at: ReadAt, layout: Layout) -> Iterator[tuple[int, int, Array]]:
    """All tensors of a file, block by block: tensor index, block index, decoded elements."""
    for tensor, slot in enumerate(layout.slots):
        for block, start, count in blocks_of(slot.spec):
            yield tensor, block, read_block(read_at, slot, start, count)


def decode(raw: bytes | bytearray | memoryview, dtype: str) -> Array:
    """The numbers in these bytes; BF16 becomes float32, which holds it exactly."""
    stored = np.frombuffer(raw, NUMPY_DTYPES[dtype])
    if dtype == "BF16":
        return (stored.astype(np.uint32) << np.uint32(16)).view(np.float32)
    return stored


def encode(block: npt.NDArray[np.float64], dtype: str, tensor: str) -> bytes:
    """The block in a float dtype, rounded to nearest even; an overflow is an error."""
    with np.errstate(over="ignore"):
        if dtype == "BF16":
            stored = _to_bfloat16(block.astype(np.float32))
            finite = bool(((stored & 0x7F80) != 0x7F80).all())
        else:
            stored = block.astype(NUMPY_DTYPES[dtype])
            finite = bool(np.isfinite(stored).all())
    if not finite:
        raise ModelOverflow(tensor)
    return stored.tobytes()


def _to_bfloat16(block: npt.NDArray[np.float32]) -> Array:
    bits = block.view(np.uint32).astype(np.uint64)
    bits += np.uint64(0x7FFF) + ((bits >> np.uint64(16)) & np.uint64(1))
    return (bits >> np.uint64(16)).astype("<u2")
