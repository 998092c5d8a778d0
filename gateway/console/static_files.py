"""The console's style and scripts: files of the package, named by their content, so that a browser keeps them.

Nothing comes from another host: the console works without a network, and its policy allows nothing else.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cache
from hashlib import sha256
from importlib.resources import files

from flask import Blueprint, Response, request

from gateway.errors import NotFound
from gateway.openapi import Media, operation

static = Blueprint("static", __name__, url_prefix="/console/static")
_TYPES = {".css": "text/css", ".js": "text/javascript", ".svg": "image/svg+xml"}
_FOR_EVER = "public, max-age=31536000, immutable"
_ASK_AGAIN = "public, no-cache"


@dataclass(frozen=True, slots=True)
class StaticFile:
    """One file, and what names this very content of it."""

    content: bytes = field(repr=False)
    media_type: str
    digest: str


@static.get("/<name>")
@operation("A file of the console: style or script", answers={200: Media.BINARY, 304: None})
def show_static(name: str) -> Response:
    """A file; the browser keeps it for ever if its address names its content, and else asks whether it changed."""
    found = static_files().get(name)
    if found is None:
        raise NotFound("There is no such file")
    response = Response(found.content, mimetype=found.media_type)
    response.set_etag(found.digest)
    is_named = request.args.get("v") == found.digest
    response.headers["Cache-Control"] = _FOR_EVER if is_named else _ASK_AGAIN
    response.headers["Cross-Origin-Resource-Policy"] = "same-origin"
    response.make_conditional(request)
    return response


def static_url(name: str) -> str:
    """Where a file is, with what names its content."""
    return f"/console/static/{name}?v={static_files()[name].digest}"


@cache
def static_files() -> Mapping[str, StaticFile]:
    """Every file, by name; read once."""
    found: dict[str, StaticFile] = {}
    for file in (files("gateway.console") / "static").iterdir():
        suffix = f".{file.name.rpartition('.')[2]}"
        if suffix in _TYPES:
            content = file.read_bytes()
            found[file.name] = StaticFile(content, _TYPES[suffix], sha256(content).hexdigest()[:16])
    return found
