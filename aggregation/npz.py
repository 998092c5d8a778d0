"""Converts a .npz archive without pickles into safetensors: bounded, in pieces, only the schema's tensors."""

from __future__ import annotations

import struct
import zipfile
import zlib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import IO

import numpy as np

from aggregation.errors import BadFormat
from aggregation.wire import NUMPY_DTYPES, Schema, TensorSpec, header_bytes

_PIECE_BYTES = 1 << 18
_MAX_NPY_HEADER = 10_000
_MAX_DIRECTORY_BYTES = 8 << 20
_END_OF_DIRECTORY = b"PK\x05\x06"
_END_BYTES = 22
_LOCATOR_64 = b"PK\x06\x07"
_LOCATOR_BYTES = 20
_DAMAGES = (
    zipfile.BadZipFile,
    zlib.error,
    NotImplementedError,
    EOFError,
    OSError,
    RuntimeError,
    ValueError,
    KeyError,
    struct.error,
)
"""All that zipfile raises on a file that no zip tool would have written."""
_METHODS = (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED)


def npz_to_safetensors(
    source: str | Path | IO[bytes], write: Callable[[bytes], object], schema: Schema
) -> None:
    """Write the archive's arrays as a safetensors file in the schema's order; check that with UpdateReader.

    `source` is a spooled file. Nothing is unpickled; no more is unpacked than the schema's tensors take.
    """
    if isinstance(source, str | Path):
        with Path(source).open("rb") as file:
            npz_to_safetensors(file, write, schema)
        return
    _check_directory(source)
    for piece in _convert(source, schema):  # what `write` raises is the caller's, not the archive's
        write(piece)


def _convert(source: IO[bytes], schema: Schema) -> Iterator[bytes]:
    try:
        with zipfile.ZipFile(source) as archive:
            members = _members(archive, schema)
            yield header_bytes(schema)
            for spec in schema:
                with archive.open(members[spec.name]) as member:
                    yield from _array_bytes(member, spec)
    except _DAMAGES:
        raise BadFormat(None, "the .npz archive is damaged or of an unknown kind") from None


def _check_directory(file: IO[bytes]) -> None:
    """Refuse an archive whose table of contents is large, before zipfile reads all of it into memory."""
    size = file.seek(0, 2)
    file.seek(max(0, size - _END_BYTES - _LOCATOR_BYTES))
    tail = file.read()
    end = tail[-_END_BYTES:]
    if not end.startswith(_END_OF_DIRECTORY) or end[20:22] != b"\0\0":
        raise BadFormat(None, "this is not a .npz archive as numpy writes it")
    if tail.startswith(_LOCATOR_64) or int.from_bytes(end[12:16], "little") > _MAX_DIRECTORY_BYTES:
        raise BadFormat(None, "the .npz archive has too many members")
    file.seek(0)


def _members(archive: zipfile.ZipFile, schema: Schema) -> dict[str, zipfile.ZipInfo]:
    specs = {spec.name: spec for spec in schema}
    members: dict[str, zipfile.ZipInfo] = {}
    for info in archive.infolist():
        name = info.filename.removesuffix(".npy")
        if name == info.filename or name in members or name not in specs:
            raise BadFormat(
                name if name in specs else None, "the .npz archive has a member twice or too many"
            )
        if info.compress_type not in _METHODS or info.flag_bits & 1:
            raise BadFormat(name, "the member is encrypted or compressed in an unknown way")
        if info.file_size > specs[name].size_bytes + _MAX_NPY_HEADER:
            raise BadFormat(name, "the member is larger than the tensor")
        members[name] = info
    for name in specs:
        if name not in members:
            raise BadFormat(name, "the tensor is missing")
    return members


def _array_bytes(member: IO[bytes], spec: TensorSpec) -> Iterator[bytes]:
    dtype, fortran_order, shape = _npy_header(member, spec.name)
    if dtype.hasobject:
        raise BadFormat(spec.name, "the array holds pickled objects, which are never read")
    if dtype != NUMPY_DTYPES[spec.dtype] or spec.dtype == "BF16":
        raise BadFormat(spec.name, f"dtype {dtype.str}, expected little-endian {spec.dtype}")
    if shape != spec.shape:
        raise BadFormat(spec.name, f"shape {list(shape)}, expected {list(spec.shape)}")
    if fortran_order and sum(size > 1 for size in shape) > 1:
        raise BadFormat(spec.name, "the array is in Fortran order: save it with numpy.ascontiguousarray")
    left = spec.size_bytes
    while piece := member.read(min(_PIECE_BYTES, left)):
        left -= len(piece)
        yield piece
    if left or member.read(1):
        raise BadFormat(spec.name, "the array has not as many bytes as its header says")


def _npy_header(member: IO[bytes], name: str) -> tuple[np.dtype[np.generic], bool, tuple[int, ...]]:
    """The header of a .npy member, read by numpy's own parser, which evaluates literals only."""
    try:
        version = np.lib.format.read_magic(member)
        if version not in ((1, 0), (2, 0)):
            raise BadFormat(name, "the .npy version is unknown")
        read = (
            np.lib.format.read_array_header_1_0 if version == (1, 0) else np.lib.format.read_array_header_2_0
        )
        shape, fortran_order, dtype = read(member, max_header_size=_MAX_NPY_HEADER)
    except (ValueError, SyntaxError, TypeError, RecursionError, MemoryError):
        raise BadFormat(name, "the .npy header cannot be read") from None
    return dtype, fortran_order, shape
