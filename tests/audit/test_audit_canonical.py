"""The log's JSON against RFC 8785, with the package `rfc8785` as the judge."""

from __future__ import annotations

import json
from typing import Any

import pytest
import rfc8785
from hypothesis import given
from hypothesis import strategies as st

from audit.canonical import MAX_INTEGER, canonical, parse
from audit.errors import NotCanonical

TEXTS = st.text(st.characters(exclude_categories=["Cs"]))
NAMES = st.text(st.characters(max_codepoint=127))
VALUES = st.recursive(
    st.none() | st.booleans() | st.integers(-MAX_INTEGER, MAX_INTEGER) | TEXTS,
    lambda inner: st.lists(inner) | st.dictionaries(NAMES, inner),
    max_leaves=30,
)


@given(VALUES)
def test_the_bytes_are_those_of_rfc_8785(value: Any) -> None:
    """DESIGN, Audit entry: the standard library's encoder gives the canonical bytes."""
    data = canonical(value)

    assert data == rfc8785.dumps(value)
    assert parse(data) == value


@given(VALUES)
def test_any_other_spelling_is_refused(value: Any) -> None:
    """One value has one byte string, else one entry could have two hashes."""
    spaced = json.dumps(value, indent=1).encode()

    if spaced != canonical(value):
        with pytest.raises(NotCanonical):
            parse(spaced)


@pytest.mark.parametrize(
    "value",
    [
        1.0,
        float("nan"),
        2**53,
        -(2**53),
        "\ud800",
        {"ü": 1},
        {"\ud800": 1},
        {1: 2},
        {"a"},
        b"bytes",
        object(),
        {"deep": [{"er": 1.5}]},
    ],
)
def test_what_json_cannot_say_exactly_is_refused(value: Any) -> None:
    """DESIGN, Audit entry: ASCII member names, integers within 2^53, no floats; Unicode without halves."""
    with pytest.raises(NotCanonical):
        canonical(value)


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"{",
        b" {}",
        b"{}\n",
        b'{"b":1,"a":2}',
        b'{"a":1,"a":1}',
        b'{"a":1,"a":2}',
        b"1.0",
        b"1e3",
        b"-0",
        b"01",
        b"NaN",
        b"9007199254740992",
        b"1" * 5000,
        b'"\\u0041"',
        b'"\\ud800"',
        b'"\\/"',
        b'"\x01"',
        b'"\xff"',
        b"\xef\xbb\xbf{}",
        '{"ü":1}'.encode(),
        "{}".encode("utf-16"),
        b"[" * 60_000,
        b'{"a":' * 9_000,
        b"[" * 65 + b"]" * 65,
        b'{"a":' * 65 + b"1" + b"}" * 65,
    ],
)
def test_bytes_that_are_not_canonical_are_refused(data: bytes) -> None:
    """Hostile bundles: no spelling but the canonical one, and never another error."""
    with pytest.raises(NotCanonical):
        parse(data)


@given(st.binary(max_size=200))
def test_no_bytes_make_the_parser_stumble(data: bytes) -> None:
    """Hostile bundles: whatever the bytes, they are canonical or refused."""
    try:
        value = parse(data)
    except NotCanonical:
        return
    assert canonical(value) == data


@pytest.mark.parametrize("data", [b"[" * 64 + b"]" * 64, b"[" + b"[],{}," * 999 + b'"[{"]'])
def test_how_deep_a_value_may_be_is_the_same_when_it_is_read_and_when_it_is_written(data: bytes) -> None:
    """Sixty-four levels, whatever the interpreter could do; brackets beside each other and in texts do not count."""
    assert canonical(parse(data)) == data


def test_a_value_nested_too_deep_is_refused() -> None:
    """Recursion is bounded, whatever is passed."""
    value: Any = []
    for _ in range(500):
        value = [value]

    with pytest.raises(NotCanonical):
        canonical(value)
