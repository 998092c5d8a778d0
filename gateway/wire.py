"""JSON on the wire: strict parsing into frozen dataclasses, pages, and camelCase for clients that ask for it."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from math import isfinite
from typing import Any, TypeVar
from urllib.parse import urlencode

from flask import Response, request
from pydantic import ConfigDict, TypeAdapter, ValidationError
from pydantic.alias_generators import to_camel
from pydantic.dataclasses import dataclass

from gateway.errors import BadRequest, PayloadTooLarge, UnsupportedMediaType, ValidationFailed
from gateway.services import current_services

WIRE = ConfigDict(
    alias_generator=to_camel,
    validate_by_name=True,
    validate_by_alias=True,
    serialize_by_alias=False,
    extra="forbid",
    strict=True,
    allow_inf_nan=False,
)
PER_PAGE, MOST_PER_PAGE = 50, 200
PAGE = ("page", "per_page")
T = TypeVar("T")


@dataclass(frozen=True, slots=True, config=WIRE)
class Pagination:
    """Where a page stands among the others."""

    page: int
    per_page: int
    total_pages: int
    total_items: int


@dataclass(frozen=True, slots=True, config=WIRE)
class Links:
    """The pages around it, relative; null where there is none."""

    first: str | None
    prev: str | None
    next: str | None
    last: str | None


_ADAPTERS: dict[Any, TypeAdapter[Any]] = {}
encode = json.JSONEncoder(ensure_ascii=False, separators=(",", ":")).encode


def adapter(kind: Any) -> TypeAdapter[Any]:
    """The validator of a wire dataclass, made once."""
    found = _ADAPTERS.get(kind)
    if found is None:
        found = _ADAPTERS[kind] = TypeAdapter(kind)
    return found


def parse_body(kind: type[T]) -> T:
    """The request's JSON body as a wire dataclass.

    Raises:
        BadRequest: it is no JSON object.
        PayloadTooLarge: it is longer than `FLG_MAX_JSON_BYTES`.
        UnsupportedMediaType: it is not `application/json`.
        ValidationFailed: a member is missing, unknown, or has a bad value; each is named.
    """
    return parse_json(kind, read_json_body())


def read_json_body() -> bytes:
    """The raw JSON body, within its limit."""
    limit = limit_json()
    if request.mimetype != "application/json":
        raise UnsupportedMediaType("Send the body as application/json")
    body = request.stream.read(limit + 1)
    if len(body) > limit:
        raise PayloadTooLarge(f"A JSON body may have {limit} bytes")
    return body


def limit_json() -> int:
    """How long a JSON body may be; also for routes that need none, whose caller may send one all the same.

    Raises:
        PayloadTooLarge: the announced body is longer; none of it was read.
    """
    limit = current_services().config.max_json_bytes
    if (request.content_length or 0) > limit:
        raise PayloadTooLarge(f"A JSON body may have {limit} bytes")
    return limit


def refuse_long_body() -> None:
    """Before requests of a blueprint: do nothing for a caller who announces more than a JSON body may have."""
    limit_json()


def parse_json(kind: type[T], body: bytes | str, *, at: str = "") -> T:
    """JSON text as a wire dataclass; `at` names the header it came in, and is put before the pointers of errors.

    Raises:
        BadRequest: the body is no JSON text, or one that two readers would read differently.
        ValidationFailed: a value is wrong, or a header is no such JSON text.
    """
    try:
        found: T = adapter(kind).validate_json(body)
    except ValidationError as error:
        raise _refusal(error, at) from None
    if not _is_unambiguous(body):
        raise _unreadable("has a member twice, or a number that is none (NaN, 1e400)", at)
    return found


def _is_unambiguous(text: bytes | str) -> bool:
    """Whether no object has a member twice and every number is finite, also in free-form objects (RFC 8259)."""
    try:
        json.loads(text, object_pairs_hook=_once, parse_float=_finite, parse_constant=_finite)
    except (ValueError, RecursionError):
        return False
    return True


def _once(pairs: list[tuple[str, Any]]) -> None:
    if len({name for name, _ in pairs}) < len(pairs):
        raise ValueError


def _finite(text: str) -> None:
    if not isfinite(float(text)):
        raise ValueError


def _unreadable(why: str, at: str) -> BadRequest | ValidationFailed:
    return ValidationFailed([{"pointer": at, "detail": why}]) if at else BadRequest(f"The body {why}")


def _refusal(error: ValidationError, at: str) -> BadRequest | ValidationFailed:
    found = error.errors(include_url=False, include_input=False, include_context=False)
    if any(item["type"] == "json_invalid" for item in found):
        return _unreadable("is no JSON text", at)
    return ValidationFailed(
        [
            {"pointer": at + "".join(f"/{part}" for part in item["loc"]), "detail": item["msg"]}
            for item in found
        ]
    )


def wants_camel_case() -> bool:
    """Whether the client is one of the published TypeScript SDK's (`X-WIA-Platform`)."""
    return "X-WIA-Platform" in request.headers


def answer(value: Any, status: int = 200, headers: Mapping[str, str] | None = None) -> Response:
    """A JSON answer of a wire dataclass or of a plain object."""
    return json_response(dump(value), status, headers)


def dump(value: Any) -> Any:
    """A wire dataclass as a plain JSON value, with the member names that the client wishes."""
    if isinstance(value, dict | list):
        return value
    return adapter(type(value)).dump_python(value, mode="json", by_alias=wants_camel_case())


def json_response(
    value: Any,
    status: int = 200,
    headers: Mapping[str, str] | None = None,
    mimetype: str = "application/json",
) -> Response:
    """A JSON answer."""
    return Response(encode(value), status, dict(headers or {}), mimetype=mimetype)


def page_asked() -> tuple[int, int]:
    """`page` (from 1) and `per_page` of the query string.

    Raises:
        ValidationFailed: one of them is no number in its range.
    """
    return _number("page", 1, 1 << 31), _number("per_page", PER_PAGE, MOST_PER_PAGE)


def number_asked(name: str, default: int | None, *, least: int = 0, most: int = (1 << 53)) -> int | None:
    """A whole number of the query string.

    Raises:
        ValidationFailed: it is no number in its range.
    """
    text = request.args.get(name)
    if text is None:
        return default
    if not (text.isascii() and text.isdigit() and least <= int(text[:20]) <= most):
        raise ValidationFailed(
            [{"pointer": f"?{name}", "detail": f"must be a whole number from {least} to {most}"}]
        )
    return int(text)


def _number(name: str, default: int, most: int) -> int:
    found = number_asked(name, default, least=1, most=most)
    assert found is not None  # noqa: S101 - a default was given
    return found


def page(items: Sequence[Any], total: int, **beside: Any) -> Response:
    """One page of a list, with its place among the others; links are relative, null where there is none."""
    number, per_page = page_asked()
    pages = max(1, -(-total // per_page))

    def link(to: int) -> str | None:
        if not 1 <= to <= pages or (to == number and to not in (1, pages)):
            return None
        return f"{request.path}?{urlencode({**request.args, 'page': to, 'per_page': per_page})}"

    body = {
        "data": [dump(item) for item in items],
        **{name: dump(value) if value is not None else None for name, value in beside.items()},
        "pagination": dump(Pagination(number, per_page, pages, total)),
        "links": dump(Links(link(1), link(number - 1), link(number + 1), link(pages))),
    }
    return json_response(body)
