"""Canonical JSON of the log: RFC 8785, restricted so that the standard library's encoder gives its bytes.

Member names are ASCII, numbers are integers within 2^53 (anything else travels as a string), texts are
well-formed Unicode. `parse` accepts canonical bytes alone, so that one value has one byte string.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import TypeAlias

from audit.errors import NotCanonical

JsonValue: TypeAlias = "bool | int | str | Sequence[JsonValue] | Mapping[str, JsonValue] | None"

MAX_INTEGER = 2**53 - 1
MAX_DEPTH = 64

_DIGITS = len(str(MAX_INTEGER))


def canonical(value: JsonValue) -> bytes:
    """The one byte string of a value; raises NotCanonical for what the log cannot hold exactly."""
    return _encode(_plain(value, MAX_DEPTH))


def parse(data: bytes) -> JsonValue:
    """The value of canonical bytes; any other spelling of it (order, spaces, doubles, floats) is refused.

    Spelling the value again and comparing is the whole check of order, spaces, escapes and doubled members, which
    the value has lost. In an ASCII text every name is ASCII, so that only other texts have their names looked at.
    """
    try:
        text = data.decode("utf-8")
        value: JsonValue
        value, _ = (_DECODER if text.isascii() else _NAMES_DECODER).raw_decode(text)
        spelled = _ENCODER.encode(value)
    except NotCanonical:
        raise
    except (ValueError, RecursionError) as error:
        raise NotCanonical(f"not JSON in UTF-8: {_reason(error)}") from None
    if spelled != text:
        raise NotCanonical("JSON, but not in its canonical form (RFC 8785)")
    if text.count("{") + text.count("[") > MAX_DEPTH:  # else it cannot be too deep, which is told much faster
        _plain(value, MAX_DEPTH)
    return value


def _encode(value: object) -> bytes:
    try:
        return _ENCODER.encode(value).encode("utf-8")
    except UnicodeEncodeError:
        raise NotCanonical("a text holds half a surrogate pair, which is no character") from None


def _plain(value: JsonValue, depth: int) -> object:
    """The value in the encoder's own types, checked on the way."""
    if value is None or isinstance(value, (bool, str)):
        return value
    if isinstance(value, int):
        return _within(value)
    if depth == 0:
        raise NotCanonical(f"nested deeper than {MAX_DEPTH} levels")
    if isinstance(value, Mapping):
        return {
            _name(name): inner if type(inner) is str else _plain(inner, depth - 1)  # most are texts
            for name, inner in value.items()
        }
    if isinstance(value, (list, tuple)):
        return [_plain(inner, depth - 1) for inner in value]
    raise NotCanonical(f"a {type(value).__name__} has no canonical form: write it as a string")


def _name(name: object) -> str:
    if not isinstance(name, str) or not name.isascii():
        raise NotCanonical("member names are ASCII texts")
    return name


def _within(number: int) -> int:
    if not -MAX_INTEGER <= number <= MAX_INTEGER:
        raise NotCanonical("integers stay within 2^53: write a larger one as a string")
    return number


def _with_ascii_names(members: dict[str, object]) -> dict[str, object]:
    if not all(name.isascii() for name in members):
        raise NotCanonical("member names are ASCII texts")
    return members


def _integer(text: str) -> int:
    if len(text) < _DIGITS:
        return int(text)
    if len(text) > len("-9007199254740991"):
        raise NotCanonical("integers stay within 2^53: write a larger one as a string")
    return _within(int(text))


def _no_float(_text: str) -> object:
    raise NotCanonical("floating-point numbers have no place in the log: write them as strings")


def _reason(error: Exception) -> str:
    if isinstance(error, UnicodeDecodeError):
        return "bad UTF-8"
    return error.msg if isinstance(error, json.JSONDecodeError) else "nested too deep"


_ENCODER = json.JSONEncoder(ensure_ascii=False, check_circular=False, sort_keys=True, separators=(",", ":"))
_DECODER = json.JSONDecoder(parse_int=_integer, parse_float=_no_float, parse_constant=_no_float)
_NAMES_DECODER = json.JSONDecoder(
    object_hook=_with_ascii_names, parse_int=_integer, parse_float=_no_float, parse_constant=_no_float
)
