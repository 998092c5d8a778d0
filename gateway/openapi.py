"""What each route takes and gives, said once beside its view; the OpenAPI 3.1 document is made from it.

Its security is that of the table of rules.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import Any, TypeVar, assert_never

from flask import Flask

from gateway.auth.rules import Proof, Rule, rules_of
from gateway.auth.scopes import MEANINGS
from gateway.errors import GatewayError
from gateway.wire import adapter

View = TypeVar("View", bound=Callable[..., Any])
_OPERATION = "flg_operation"


class Media(StrEnum):
    """Bodies that are not JSON."""

    BINARY = "application/octet-stream"
    FORM = "application/x-www-form-urlencoded"
    TEXT = "text/plain"
    HTML = "text/html"
    ZIP = "application/zip"
    JSON = "application/json"
    EVENTS = "text/event-stream"


@dataclass(frozen=True, slots=True)
class Operation:
    """A route's promise: what it takes, what it answers."""

    summary: str
    body: type | Media | None
    answers: Mapping[int, type | Media | None]
    errors: tuple[type[GatewayError], ...]
    headers: tuple[str, ...]
    numbers: tuple[str, ...]


def operation(
    summary: str,
    *,
    body: type | Media | None = None,
    answers: Mapping[int, type | Media | None],
    errors: tuple[type[GatewayError], ...] = (),
    headers: tuple[str, ...] = (),
    numbers: tuple[str, ...] = (),
) -> Callable[[View], View]:
    """Declare a view's promise; who may call it is said in `gateway.auth.rules`.

    Args:
        summary: one sentence for the document.
        body: the JSON body's dataclass, or the medium of another body.
        answers: by status, the answer's dataclass or medium.
        errors: refusals beside those that every route may give.
        headers: request headers that the view reads.
        numbers: whole numbers of the query string that it reads.
    """
    promise = Operation(summary, body, answers, errors, headers, numbers)

    def mark(view: View) -> View:
        setattr(view, _OPERATION, promise)
        return view

    return mark


def promise_of(view: Callable[..., Any]) -> Operation | None:
    """What a view promises, or None for one that is not part of the API."""
    found: Operation | None = getattr(view, _OPERATION, None)
    return found


def document(app: Flask, *, version: str) -> dict[str, Any]:
    """The OpenAPI 3.1 document of an application's routes."""
    schemas: dict[str, Any] = {"Problem": _PROBLEM}
    paths: dict[str, dict[str, Any]] = {}
    for rule in sorted(app.url_map.iter_rules(), key=lambda rule: rule.rule):
        promise = promise_of(app.view_functions[rule.endpoint])
        if promise is None:
            continue
        path = re.sub(r"<(?:\w+:)?(\w+)>", r"{\1}", rule.rule)
        for method in sorted((rule.methods or set()) - {"HEAD", "OPTIONS"}):
            who = rules_of(app)[rule.endpoint]
            paths.setdefault(path, {})[method.lower()] = _described(rule, method, promise, who, schemas)
    return {
        "openapi": "3.1.0",
        "info": {
            "title": "fl-gateway",
            "version": version,
            "license": {"name": "Apache-2.0", "identifier": "Apache-2.0"},
        },
        "paths": paths,
        "components": {"schemas": schemas, "securitySchemes": _SECURITY_SCHEMES},
    }


def _described(
    rule: Any, method: str, promise: Operation, who: Rule, schemas: dict[str, Any]
) -> dict[str, Any]:
    everywhere = () if method == "GET" else ("Prefer",)
    described: dict[str, Any] = {
        "operationId": rule.endpoint.replace(".", "_"),
        "summary": promise.summary,
        "parameters": _parameters(rule, promise, everywhere),
        "responses": _responses(promise, who, schemas),
        "security": _security(who),
    }
    if promise.body is not None:
        described["requestBody"] = {"required": True, "content": _content(promise.body, schemas)}
    if who.limit:
        described["x-rate-limit"] = who.limit.value
    if who.proof is Proof.TOKEN:
        described["x-owner"] = who.owner.value
    return described


def _security(who: Rule) -> list[dict[str, list[str]]]:
    """What may open the door; each member is enough by itself, and an empty one means that nothing is needed."""
    match who.proof:
        case Proof.TOKEN:
            schemes = [{name: [scope.value]} for scope in who.scopes for name in ("oauth2", "bearer")]
            return [*schemes, *([{}] if who.open_by else [])]
        case Proof.CLIENT:  # or a secret or an assertion in the form, for which OpenAPI has no word
            return [{"basic": []}, {"mutualTLS": []}, {}]
        case Proof.PERSON:  # OpenAPI 3.1 lets a scheme that is not OAuth name what its user must have
            return [{"session": [scope.value]} for scope in who.scopes] or [{"session": []}]
        case Proof.NONE:
            return []
        case _:
            assert_never(who.proof)


def _parameters(rule: Any, promise: Operation, everywhere: tuple[str, ...]) -> list[dict[str, Any]]:
    kinds = {"int": {"type": "integer"}, "uuid": {"type": "string", "format": "uuid"}}
    inside = [
        {"name": name, "in": "path", "required": True, "schema": kinds.get(kind, {"type": "string"})}
        for kind, name in re.findall(r"<(?:(\w+):)?(\w+)>", rule.rule)
    ]
    return [
        *inside,
        *(
            {"name": name, "in": "query", "required": False, "schema": {"type": "integer", "minimum": 0}}
            for name in promise.numbers
        ),
        *(
            {"name": name, "in": "header", "required": False, "schema": {"type": "string"}}
            for name in (*promise.headers, *everywhere)
        ),
    ]


def _responses(promise: Operation, who: Rule, schemas: dict[str, Any]) -> dict[str, Any]:
    good: dict[str, Any] = {
        str(status): {"description": promise.summary, **_with_content(kind, schemas)}
        for status, kind in promise.answers.items()
    }
    codes: dict[int, list[str]] = {}
    for error in promise.errors:
        codes.setdefault(error.status, []).append(error.code)
    if who.scopes and who.proof is Proof.TOKEN:
        codes.setdefault(401, []).append("UNAUTHORIZED")
        codes.setdefault(403, []).append("INSUFFICIENT_SCOPE")
    problem = {"application/problem+json": {"schema": {"$ref": "#/components/schemas/Problem"}}}
    bad = {
        str(status): {"description": " or ".join(said), "content": problem} for status, said in codes.items()
    }
    return {**good, **{status: value for status, value in bad.items() if status not in good}}


def _with_content(kind: type | Media | None, schemas: dict[str, Any]) -> dict[str, Any]:
    return {"content": _content(kind, schemas)} if kind is not None else {}


def _content(kind: type | Media, schemas: dict[str, Any]) -> dict[str, Any]:
    if isinstance(kind, Media):
        plain = {"type": "object"} if kind in (Media.JSON, Media.FORM) else {"type": "string"}
        return {kind.value: {"schema": plain}}
    schema = adapter(kind).json_schema(by_alias=False, ref_template="#/components/schemas/{model}")
    schemas.update(schema.pop("$defs", {}))
    schemas[kind.__name__] = schema
    return {"application/json": {"schema": {"$ref": f"#/components/schemas/{kind.__name__}"}}}


_FLOW = {"tokenUrl": "/oauth/token", "scopes": {scope.value: meaning for scope, meaning in MEANINGS.items()}}
_SECURITY_SCHEMES: dict[str, dict[str, Any]] = {
    "oauth2": {
        "type": "oauth2",
        "description": "Access tokens of /oauth/token",
        "flows": {
            "clientCredentials": _FLOW,
            "authorizationCode": {
                "authorizationUrl": "/oauth/authorize",
                "refreshUrl": "/oauth/token",
                **_FLOW,
            },
        },
    },
    "bearer": {
        "type": "http",
        "scheme": "bearer",
        "description": "API keys, registration tokens, and tokens of outside issuers",
    },
    "basic": {"type": "http", "scheme": "basic", "description": "A client's id and secret"},
    "mutualTLS": {"type": "mutualTLS", "description": "A client's certificate (RFC 8705)"},
    "session": {
        "type": "apiKey",
        "in": "cookie",
        "name": "__Host-flg_session",
        "description": "A person's session in the console",
    },
}
_PROBLEM: dict[str, Any] = {
    "type": "object",
    "description": "A problem document (RFC 9457)",
    "required": ["type", "title", "status", "detail", "code", "error"],
    "properties": {
        "type": {"type": "string"},
        "title": {"type": "string"},
        "status": {"type": "integer"},
        "detail": {"type": "string"},
        "code": {"type": "string"},
        "errors": {
            "type": "array",
            "items": {
                "type": "object",
                "properties": {"pointer": {"type": "string"}, "detail": {"type": "string"}},
            },
        },
        "error": {
            "type": "object",
            "required": ["code", "message", "details", "request_id", "timestamp"],
            "properties": {
                "code": {"type": "string"},
                "message": {"type": "string"},
                "details": {"type": "object"},
                "request_id": {"type": "string"},
                "timestamp": {"type": "string", "format": "date-time"},
            },
        },
    },
}
