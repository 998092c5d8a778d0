"""A strict parser of safetensors headers: what it accepts, every other reader accepts and reads alike.

Refused: a member twice, an unknown dtype or member, overlaps, gaps, a size that does not fit the shape.
"""

from __future__ import annotations

import json
import math
from collections import Counter
from typing import Any, NoReturn

from aggregation.errors import BadFormat
from aggregation.wire import NUMPY_DTYPES, Layout, ReadAt, Schema, Slot, TensorSpec

MAX_HEADER_BYTES = 8 << 20
_MAX_NAME = 1024
_MAX_RANK = 32
_MAX_ELEMENTS = 1 << 53
_MAX_DIGITS = 19
_OTHER_FORMATS = (
    (b"PK\x03\x04", "this is a zip archive (.npz or torch.save), not safetensors"),
    (b"PK\x05\x06", "this is an empty zip archive, not safetensors"),
    (b"\x93NUMPY", "this is a .npy array, not safetensors"),
    (b"\x89HDF", "this is an HDF5 file, not safetensors"),
    (b"\x1f\x8b", "this is gzip data, not safetensors"),
    (b"GGUF", "this is a GGUF file, not safetensors"),
)
_PICKLE_PROTOCOLS = range(2, 6)


def header_length(prefix: bytes, limit: int) -> int:
    """The length that the first eight bytes announce, at most `limit`."""
    length = int.from_bytes(prefix[:8], "little")
    if length > min(limit, MAX_HEADER_BYTES):
        raise BadFormat(None, _guess(prefix) or f"the header is said to take {length} bytes, too many")
    if length < len("{}"):
        raise BadFormat(None, "the header is empty, not safetensors")
    return length


def header_limit(expected: Schema | None) -> int:
    """How long a header may be that describes this schema, its names escaped and metadata beside it."""
    if expected is None:
        return MAX_HEADER_BYTES
    return min(MAX_HEADER_BYTES, (1 << 16) + sum(6 * len(spec.name) + 1024 for spec in expected))


def parse_header(prefix: bytes, raw: bytes) -> Layout:
    """The layout that a header's JSON describes; `prefix` is the eight bytes before it."""
    if raw[:1] != b"{":
        raise BadFormat(None, _guess(prefix + raw[:8]) or "the header is not a JSON object, not safetensors")
    members = _load(raw)
    metadata = _metadata(members.pop("__metadata__", {}))
    data_start = len(prefix) + len(raw)
    slots = [_slot(name, value, data_start) for name, value in members.items()]
    slots.sort(key=lambda slot: (slot.begin, slot.end))
    position = data_start
    for slot in slots:
        if slot.begin != position:
            problem = "overlaps another tensor" if slot.begin < position else "leaves a gap before it"
            raise BadFormat(slot.spec.name, f"the tensor {problem}")
        position = slot.end
    return Layout(tuple(slots), metadata, data_start)


def read_layout(read_at: ReadAt, expected: Schema | None = None) -> Layout:
    """The layout of a stored file, compared with a schema if one is given."""
    prefix = bytes(read_at(0, 8))
    if len(prefix) < 8:
        raise BadFormat(None, "the file ends inside the header's length")
    length = header_length(prefix, header_limit(expected))
    raw = bytes(read_at(8, length))
    if len(raw) < length:
        raise BadFormat(None, "the file ends inside the header")
    layout = parse_header(prefix, raw)
    if expected is not None:
        compare(layout, expected)
    return layout


def compare(layout: Layout, expected: Schema) -> None:
    """Refuse a file whose tensors are not the expected ones; their order in the file is free."""
    found = {slot.spec.name: slot.spec for slot in layout.slots}
    for want in expected:
        got = found.pop(want.name, None)
        if got is None:
            raise BadFormat(want.name, "the tensor is missing")
        if got.dtype != want.dtype:
            raise BadFormat(want.name, f"dtype {got.dtype}, expected {want.dtype}")
        if got.shape != want.shape:
            raise BadFormat(want.name, f"shape {list(got.shape)}, expected {list(want.shape)}")
    for name in found:
        raise BadFormat(name, "the tensor is not in the model")


def _load(raw: bytes) -> dict[str, Any]:
    try:
        value = json.loads(
            raw.decode("utf-8"),
            object_pairs_hook=_without_doubles,
            parse_int=_integer,
            parse_constant=_no_constant,
        )
    except (UnicodeDecodeError, json.JSONDecodeError):
        raise BadFormat(None, "the header is not valid JSON in UTF-8") from None
    except RecursionError:
        raise BadFormat(None, "the header is nested too deeply") from None
    if not isinstance(value, dict):
        raise BadFormat(None, "the header is not a JSON object")
    return value


def _without_doubles(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    members = dict(pairs)
    if len(members) < len(pairs):
        counts = Counter(name for name, _ in pairs)  # one pass: a header may have a hundred thousand members
        double = next(name for name, count in counts.items() if count > 1)
        raise BadFormat(double if _is_text(double) else None, "the header has a member twice")
    return members


def _integer(digits: str) -> int:
    if len(digits) > _MAX_DIGITS:
        raise BadFormat(None, "the header has a number that is too large")
    return int(digits)


def _no_constant(name: str) -> NoReturn:
    raise BadFormat(None, f"the header has the number {name}, which JSON does not know")


def _metadata(value: Any) -> dict[str, str]:
    if not isinstance(value, dict) or not all(_is_text(text) for pair in value.items() for text in pair):
        raise BadFormat(None, "__metadata__ is not a map of strings")
    return value


def _is_text(value: Any) -> bool:
    """Whether the value is a string that UTF-8 can hold (JSON's escapes can make lone surrogates)."""
    return isinstance(value, str) and not any("\ud800" <= letter <= "\udfff" for letter in value)


def _slot(name: str, value: Any, data_start: int) -> Slot:
    if not _is_text(name) or len(name) > _MAX_NAME:
        raise BadFormat(None, f"a tensor's name is not text of at most {_MAX_NAME} characters")
    if not isinstance(value, dict) or value.keys() != {"dtype", "shape", "data_offsets"}:
        raise BadFormat(name, "the header must give dtype, shape and data_offsets, and nothing else")
    dtype, shape, offsets = value["dtype"], value["shape"], value["data_offsets"]
    if not isinstance(dtype, str) or dtype not in NUMPY_DTYPES:
        raise BadFormat(name, f"the dtype is none of {', '.join(NUMPY_DTYPES)}")
    if not _are_sizes(shape) or len(shape) > _MAX_RANK:
        raise BadFormat(name, f"the shape is not a list of at most {_MAX_RANK} sizes")
    if math.prod(size for size in shape if size) > _MAX_ELEMENTS:
        raise BadFormat(name, "the shape is too large")
    if not _are_sizes(offsets) or len(offsets) != 2:
        raise BadFormat(name, "data_offsets is not a pair of sizes")
    spec = TensorSpec(name, dtype, tuple(shape))
    if offsets[1] - offsets[0] != spec.size_bytes:
        raise BadFormat(name, "data_offsets do not fit shape and dtype")
    return Slot(spec, data_start + offsets[0], data_start + offsets[1])


def _are_sizes(value: Any) -> bool:
    return isinstance(value, list) and all(type(size) is int and size >= 0 for size in value)


def _guess(prefix: bytes) -> str | None:
    """What other format the first bytes look like; asked only once they are known not to be safetensors."""
    if prefix[:1] == b"\x80" and len(prefix) > 1 and prefix[1] in _PICKLE_PROTOCOLS:
        return "this is a pickle, which is never read: it could run code"
    return next((reason for magic, reason in _OTHER_FORMATS if prefix.startswith(magic)), None)
