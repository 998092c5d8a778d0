"""The strict safetensors reader: what it takes, what it refuses, and that it agrees with the safetensors package."""

from __future__ import annotations

import json
import math
import pickle
import tracemalloc
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import safetensors
import safetensors.numpy
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from aggregation import BadFormat, Schema, Summary, TensorSpec, UpdateReader, write_safetensors
from aggregation.header import MAX_HEADER_BYTES

_DTYPES = ["?", "<u1", "<i1", "<u2", "<i2", "<u4", "<i4", "<u8", "<i8", "<f2", "<f4", "<f8"]


def _arrays() -> st.SearchStrategy[Any]:
    shapes = hnp.array_shapes(min_dims=0, max_dims=3, min_side=0, max_side=5)
    one = st.sampled_from(_DTYPES).flatmap(
        lambda dtype: hnp.arrays(
            dtype,
            shapes,
            elements=st.floats(-1e100, 1e100)
            if dtype == "<f8"
            else hnp.from_dtype(np.dtype(dtype), allow_nan=False, allow_infinity=False),
        )
    )
    names = st.text(st.characters(exclude_categories=["Cs"]), max_size=8).filter(
        lambda n: n != "__metadata__"
    )
    return st.dictionaries(names, one, max_size=4)


def _read(raw: bytes, expected: Schema | None = None, piece: int = 1 << 20) -> Summary:
    reader = UpdateReader(expected)
    for at in range(0, len(raw), piece):
        reader.feed(raw[at : at + piece])
    return reader.close()


def _file(header: object, body: bytes = b"") -> bytes:
    text = header if isinstance(header, bytes) else json.dumps(header).encode()
    return len(text).to_bytes(8, "little") + text + body


def _tensor(
    dtype: str = "F32", shape: object = (1,), offsets: object = (0, 4), **more: object
) -> dict[str, object]:
    return {"dtype": dtype, "shape": shape, "data_offsets": offsets, **more}


@given(_arrays())
def test_what_we_write_the_safetensors_package_reads_back(tensors: dict[str, Any]) -> None:
    """Our writer's files are safetensors to the reference implementation."""
    raw = b"".join(write_safetensors(tensors, {"format": "np"}))

    loaded = safetensors.numpy.load(raw)

    assert loaded.keys() == tensors.keys()
    for name, array in tensors.items():
        assert loaded[name].shape == array.shape
        assert loaded[name].tobytes() == array.tobytes()


@given(_arrays(), st.integers(1, 64))
def test_what_the_safetensors_package_writes_we_read(tensors: dict[str, Any], piece: int) -> None:
    """The reference implementation's files pass our reader, however they are cut into pieces."""
    raw = safetensors.numpy.save(tensors)

    summary = _read(raw, piece=piece)

    floats = [array.astype(np.float64).reshape(-1) for array in tensors.values() if array.dtype.kind == "f"]
    assert {spec.name: spec.shape for spec in summary.schema} == {n: a.shape for n, a in tensors.items()}
    assert summary.norm == pytest.approx(math.sqrt(sum(float(a @ a) for a in floats)), rel=1e-12)
    assert summary.size_bytes == len(raw)


@settings(max_examples=300)
@given(st.data())
def test_a_damaged_file_is_refused_or_read_by_the_package_too(data: st.DataObject) -> None:
    """Malformed input leaks no other exception, and whatever we accept the reference accepts."""
    good = bytearray(_file({"a": _tensor("F32", [2], [0, 8]), "b": _tensor("U8", [3], [8, 11])}, bytes(11)))
    for _ in range(data.draw(st.integers(1, 3))):
        at = data.draw(st.integers(0, len(good) - 1))
        good[at : at + data.draw(st.integers(0, 2))] = data.draw(st.binary(max_size=3))
        if not good:
            break
    raw = bytes(good)

    try:
        names = {spec.name for spec in _read(raw, piece=7).schema}
    except BadFormat:
        return

    assert {name for name, _ in safetensors.deserialize(raw)} == names


@given(st.binary(max_size=200))
def test_noise_is_refused_as_bad_format(raw: bytes) -> None:
    """No bytes at all make the reader raise anything but BadFormat."""
    try:
        names = {spec.name for spec in _read(raw).schema}
    except BadFormat:
        return

    assert {name for name, _ in safetensors.deserialize(raw)} == names


_BAD_HEADERS = {
    "not an object": [1],
    "an unknown dtype": {"a": _tensor("F8_E4M3", [4])},
    "a dtype that is no text": {"a": {**_tensor(), "dtype": 5}},
    "a negative size": {"a": _tensor(shape=[-1])},
    "a boolean size": {"a": _tensor(shape=[True])},
    "a floating size": {"a": _tensor(shape=[1.0])},
    "a number for a shape": {"a": _tensor(shape=1)},
    "too many dimensions": {"a": _tensor(shape=[1] * 33)},
    "three offsets": {"a": _tensor(offsets=[0, 4, 8])},
    "offsets that do not fit": {"a": _tensor(offsets=[0, 8])},
    "swapped offsets": {"a": _tensor(offsets=[4, 0])},
    "a gap before": {"a": _tensor(offsets=[4, 8])},
    "an overlap": {"a": _tensor(shape=[2], offsets=[0, 8]), "b": _tensor(offsets=[4, 8])},
    "a hole": {"a": _tensor(), "b": _tensor(offsets=[8, 12])},
    "one tensor upon another": {"a": _tensor(), "b": _tensor()},
    "an unknown member": {"a": _tensor(more=1)},
    "a missing member": {"a": {"dtype": "F32", "shape": [1]}},
    "metadata that is no map": {"__metadata__": ["x"]},
    "metadata of numbers": {"__metadata__": {"x": 1}},
    "metadata that is null": {"__metadata__": None},
    "a shape beyond all memory": {"a": _tensor(shape=[2**62, 2**62, 0], offsets=[0, 0])},
    "a name of surrogates": b'{"\\ud800": {"dtype": "F32", "shape": [1], "data_offsets": [0, 4]}}',
    "a name too long": {"a" * 1025: _tensor()},
    "a tensor twice": b'{"a":{"dtype":"U8","shape":[0],"data_offsets":[0,0]},"a":'
    b'{"dtype":"U8","shape":[0],"data_offsets":[0,0]}}',
    "a member twice": b'{"a":{"dtype":"U8","dtype":"U8","shape":[0],"data_offsets":[0,0]}}',
    "metadata twice": b'{"__metadata__":{},"__metadata__":{}}',
    "NaN in JSON": b'{"a":{"dtype":"U8","shape":[NaN],"data_offsets":[0,0]}}',
    "a number of many digits": b'{"a":{"dtype":"U8","shape":[' + b"9" * 5000 + b'],"data_offsets":[0,0]}}',
    "deep nesting": b'{"a":' + b"[" * 100_000,
    "broken JSON": b'{"a":',
    "another encoding": '{"ä":1}'.encode("latin-1"),
    "a leading space": b" {}",
    "UTF-16": "{}".encode("utf-16-le"),
}


@pytest.mark.parametrize("header", _BAD_HEADERS.values(), ids=_BAD_HEADERS.keys())
def test_a_header_with_a_flaw_is_refused(header: object) -> None:
    """The header is parsed strictly: no doubles, no gaps, no overlaps, nothing unknown."""
    raw = _file(header)  # no body: it is the header that is refused

    with pytest.raises(BadFormat):
        UpdateReader().feed(raw)


@pytest.mark.parametrize(
    ("body", "word"),
    [
        (pickle.dumps({"a": 1}, protocol=4), "pickle"),
        (b"PK\x03\x04" + bytes(30), "zip"),
        (b"\x93NUMPY\x01\x00" + bytes(30), "npy"),
        (b"\x89HDF\r\n\x1a\n" + bytes(30), "HDF5"),
        (b"\x1f\x8b\x08\x00\x00\x00\x00\x00\x02\x03" + bytes(600_000), "gzip"),
        (b"", "ends inside the header"),
        (b"\x02", "ends inside the header"),
        (bytes(8), "empty"),
        ((MAX_HEADER_BYTES + 1).to_bytes(8, "little"), "too many"),
    ],
)
def test_another_format_is_named(body: bytes, word: str) -> None:
    """A pickle, a zip or anything else is refused with a reason that a user understands."""
    with pytest.raises(BadFormat, match=word) as caught:
        _read(body)

    assert caught.value.tensor is None
    assert caught.value.code == "INVALID_MODEL_FORMAT"


def test_a_length_that_looks_like_a_pickle_is_still_read() -> None:
    """Magic numbers are asked only where the file is no safetensors: a header of 0x280 bytes starts like a pickle."""
    text = b"{}".ljust(0x280)

    summary = _read(_file(text))

    assert summary.schema == ()


@pytest.mark.parametrize("dtype", ["<f2", "<f4", "<f8"])
@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
def test_a_number_that_is_not_finite_names_its_tensor(dtype: str, value: float) -> None:
    """NaN and infinity are refused while the body arrives, with the tensor's name."""
    array = np.zeros(70_000, dtype)
    array[-1] = value
    raw = b"".join(write_safetensors({"good": np.ones(3, dtype), "layer.bad": array}))

    with pytest.raises(BadFormat) as caught:
        _read(raw, piece=8192)

    assert caught.value.tensor == "layer.bad"


def test_a_bfloat16_infinity_is_found() -> None:
    """BF16 is decoded before it is checked."""
    header = {"a": _tensor("BF16", [2], [0, 4])}

    assert _read(_file(header, b"\x80\x3f\x80\x3f")).norm == pytest.approx(math.sqrt(2))
    with pytest.raises(BadFormat, match="infinite"):
        _read(_file(header, b"\x80\x3f\x80\x7f"))


def test_a_float64_whose_square_overflows_is_refused() -> None:
    """A norm is always a finite number."""
    raw = b"".join(write_safetensors({"a": np.array([1e200])}))

    with pytest.raises(BadFormat, match="too large"):
        _read(raw)


def test_a_boolean_is_zero_or_one() -> None:
    """Other bytes in a BOOL tensor would be undefined to numpy."""
    with pytest.raises(BadFormat, match="boolean"):
        _read(_file({"a": _tensor("BOOL", [2], [0, 2])}, b"\x01\x02"))


_EXPECTED = (TensorSpec("w", "F32", (2, 3)), TensorSpec("b", "F32", (3,)))


@pytest.mark.parametrize(
    ("tensors", "tensor", "word"),
    [
        ({"w": np.zeros((2, 3), "<f4")}, "b", "missing"),
        ({"w": np.zeros((3, 2), "<f4"), "b": np.zeros(3, "<f4")}, "w", "shape"),
        ({"w": np.zeros((2, 3), "<f4"), "b": np.zeros(3, "<f8")}, "b", "dtype"),
        (
            {"w": np.zeros((2, 3), "<f4"), "b": np.zeros(3, "<f4"), "c": np.zeros(1, "<f4")},
            "c",
            "not in the model",
        ),
    ],
)
def test_a_tensor_that_the_round_does_not_expect_is_named(
    tensors: dict[str, Any], tensor: str, word: str
) -> None:
    """Names, dtypes and shapes are the round's; the refusal says which tensor is wrong, before any data."""
    raw = b"".join(write_safetensors(tensors))
    header_end = 8 + int.from_bytes(raw[:8], "little")

    with pytest.raises(BadFormat, match=word) as caught:
        UpdateReader(_EXPECTED).feed(raw[:header_end])

    assert caught.value.tensor == tensor


def test_the_order_of_tensors_in_the_file_is_free() -> None:
    """Two writers may lay out the same tensors differently."""
    body = np.arange(9, dtype="<f4").tobytes()
    header = {"w": _tensor("F32", [2, 3], [12, 36]), "b": _tensor("F32", [3], [0, 12])}

    summary = _read(_file(header, body), _EXPECTED)

    assert [spec.name for spec in summary.schema] == ["b", "w"]


def test_a_zero_update_is_valid() -> None:
    """A client that learned nothing is heard."""
    raw = b"".join(write_safetensors({"w": np.zeros((2, 3), "<f4"), "b": np.zeros(3, "<f4")}))

    assert _read(raw, _EXPECTED).norm == 0


@pytest.mark.parametrize("piece", [1, 7, 1 << 20])
def test_a_body_too_short_or_too_long_is_refused(piece: int) -> None:
    """The offsets cover the body exactly."""
    raw = b"".join(write_safetensors({"a": np.ones(100, "<f4"), "e": np.ones((0, 3), "<f4")}))

    _read(raw, piece=piece)
    for cut in (1, 200, len(raw) - 9):
        with pytest.raises(BadFormat, match="ends"):
            _read(raw[:-cut], piece=piece)
    with pytest.raises(BadFormat, match="goes on"):
        _read(raw + b"\0", piece=piece)


def test_a_body_of_known_size_is_refused_at_its_header() -> None:
    """With a Content-Length, a header that promises more or less is refused before the data come."""
    raw = b"".join(write_safetensors({"a": np.ones(100, "<f4")}))
    header_end = 8 + int.from_bytes(raw[:8], "little")

    UpdateReader(size_bytes=len(raw)).feed(raw[:header_end])
    for size in (len(raw) - 1, len(raw) + 1, 20, 3):
        with pytest.raises(BadFormat):
            UpdateReader(size_bytes=size).feed(raw[:header_end])


def test_a_refused_reader_stays_refused() -> None:
    """A caller that goes on feeding, or closes, gets the first refusal again."""
    reader = UpdateReader()
    with pytest.raises(BadFormat):
        reader.feed(bytes(8))

    with pytest.raises(BadFormat):
        reader.feed(b"more")
    with pytest.raises(BadFormat):
        reader.close()


def test_the_norm_does_not_depend_on_how_the_bytes_arrive() -> None:
    """The same file has the same norm to the last bit, so that a replay scales it alike."""
    numbers = np.random.default_rng(1).normal(size=200_001).astype("<f4")
    raw = b"".join(write_safetensors({"a": numbers, "b": numbers[:77]}))

    norms = {_read(raw, piece=piece).norm for piece in (1 << 24, 65_536, 10_007, 333)}

    assert len(norms) == 1


def test_the_reader_keeps_one_block_in_memory(pack: Callable[..., bytes]) -> None:
    """Memory is O(block), whatever the size of the update."""
    raw = memoryview(pack({"a": np.ones(4_000_000, "<f4")}))
    reader = UpdateReader()
    tracemalloc.start()

    for at in range(0, len(raw), 60_000):
        reader.feed(raw[at : at + 60_000])
    reader.close()
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()

    assert peak < 2_000_000
