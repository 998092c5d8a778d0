"""The conversion of .npz archives: what numpy saves without pickles passes, bombs and pickles do not."""

from __future__ import annotations

import io
import zipfile
from typing import Any

import numpy as np
import pytest
import safetensors.numpy

from aggregation import BadFormat, TensorSpec, UpdateReader, npz_to_safetensors

_SCHEMA = (TensorSpec("layer/w", "F32", (300, 400)), TensorSpec("n", "I64", ()), TensorSpec("b", "F64", (3,)))
_TENSORS: dict[str, Any] = {
    "layer/w": np.random.default_rng(0).normal(size=(300, 400)).astype("<f4"),
    "n": np.array(7),
    "b": np.array([1.0, 2.0, 3.0]),
}


def _convert(archive: bytes) -> bytes:
    written = io.BytesIO()
    npz_to_safetensors(io.BytesIO(archive), written.write, _SCHEMA)
    return written.getvalue()


def _saved(tensors: dict[str, Any], *, compressed: bool = False) -> bytes:
    file = io.BytesIO()
    (np.savez_compressed if compressed else np.savez)(file, **tensors)
    return file.getvalue()


def _zipped(members: dict[str, bytes]) -> bytes:
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content in members.items():
            archive.writestr(name, content)
    return file.getvalue()


@pytest.mark.parametrize("compressed", [False, True])
def test_an_archive_of_arrays_becomes_safetensors(compressed: bool) -> None:
    """What numpy.savez writes is accepted, and comes out in the schema's order."""
    raw = _convert(_saved(_TENSORS, compressed=compressed))

    reader = UpdateReader(_SCHEMA)
    reader.feed(raw)
    assert reader.close().schema == _SCHEMA
    loaded = safetensors.numpy.load(raw)
    assert all(np.array_equal(loaded[name], array) for name, array in _TENSORS.items())


@pytest.mark.parametrize(
    ("change", "tensor", "word"),
    [
        ({"b": np.array([1, "x", None], dtype=object)}, "b", "pickled"),
        ({"b": np.zeros(3, ">f8")}, "b", "dtype"),
        ({"b": np.zeros(4, "<f8")}, "b", "shape"),
        ({"layer/w": np.asfortranarray(_TENSORS["layer/w"])}, "layer/w", "Fortran"),
        ({"layer/w": np.zeros((3000, 4000), "<f4")}, "layer/w", "larger"),
        ({"extra": np.zeros(1)}, None, "too many"),
    ],
)
def test_an_array_that_is_not_the_models_is_refused(
    change: dict[str, Any], tensor: str | None, word: str
) -> None:
    """The refusal names the tensor; no pickle is ever read."""
    archive = _saved({**_TENSORS, **change}, compressed=True)

    with pytest.raises(BadFormat, match=word) as caught:
        _convert(archive)

    assert caught.value.tensor == tensor


def test_a_missing_array_is_named() -> None:
    """Every tensor of the model must be there."""
    with pytest.raises(BadFormat, match="missing") as caught:
        _convert(_saved({name: array for name, array in _TENSORS.items() if name != "n"}))

    assert caught.value.tensor == "n"


def test_a_damaged_archive_leaks_no_other_error() -> None:
    """Whatever byte is wrong, the answer is BadFormat or the right tensors."""
    good = _saved(_TENSORS, compressed=True)
    rng = np.random.default_rng(0)

    for at in [*rng.integers(0, len(good), 150), *range(len(good) - 200, len(good))]:
        damaged = bytearray(good)
        damaged[at] ^= 1 << int(rng.integers(8))
        try:
            raw = _convert(bytes(damaged))
        except BadFormat:
            continue
        assert safetensors.numpy.load(raw).keys() == _TENSORS.keys()


def test_a_lying_header_is_refused() -> None:
    """A .npy header is parsed as literals only, and its size must be the truth."""
    for content in (b"", b"\x93NUMPY\x01\x00\x10\x00__import__('os')", b"\x93NUMPY\x03\x00", b"x" * 100):
        with pytest.raises(BadFormat):
            _convert(_zipped({"layer/w.npy": content, "n.npy": content, "b.npy": content}))


def test_a_large_table_of_contents_is_refused_before_it_is_read() -> None:
    """zipfile would read it whole into memory."""
    end = (
        b"PK\x05\x06" + bytes(4) + b"\xff\xff\xff\xff" + (9 << 20).to_bytes(4, "little") + bytes(4) + b"\0\0"
    )

    for archive in (bytes(100) + end, b"PK\x06\x07" + bytes(16) + end, b"", b"PK", end[:-2] + b"\x01\0"):
        with pytest.raises(BadFormat):
            _convert(archive)
