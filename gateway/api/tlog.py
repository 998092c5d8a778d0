"""The log as C2SP tlog-tiles, for standard tooling: a checkpoint, and tiles that never change once they are shown."""

from __future__ import annotations

from hashlib import sha256

from flask import Blueprint, Response, request

from audit.reading import reading
from audit.tiles import NotCovered, checkpoint_shown, content, parse_tile
from gateway.errors import NotFound
from gateway.openapi import Media, operation
from gateway.publishing.targets import FOREVER, NEVER
from gateway.services import current_services

tlog = Blueprint("tlog", __name__, url_prefix="/tlog")


@tlog.get("/checkpoint")
@operation(
    "The signed checkpoint that covers every tile (C2SP tlog-tiles)",
    answers={200: Media.TEXT},
    errors=(NotFound,),
)
def show_checkpoint() -> Response:
    """The newest one or, where witnesses are configured, the newest one with enough cosignatures."""
    services = current_services()
    with reading(services.engine) as conn:
        shown = checkpoint_shown(conn, services.config.quorum_shown)
    if shown is None:
        raise NotFound("No checkpoint was signed, and cosigned by as many witnesses as are wanted, yet")
    return _answer(shown.note.encode(), Media.TEXT, NEVER)


@tlog.get("/tile/<kind>/<path:rest>", merge_slashes=False)
@operation(
    "A tile of hashes (`kind`: its level, 0 to 63) or of entries (`kind`: entries); `rest` is `N` or `N.p/W`",
    answers={200: Media.BINARY},
    errors=(NotFound,),
)
def show_tile(kind: str, rest: str) -> Response:
    """What lies beyond the shown checkpoint is not found: no hash leaves that no signature covers."""
    services = current_services()
    tile = parse_tile(kind, rest)
    if tile is None:
        raise NotFound("That is no name of a tile")
    with reading(services.engine) as conn:
        shown = checkpoint_shown(conn, services.config.quorum_shown)
        try:
            found = content(conn, tile, shown.size if shown else 0)
        except NotCovered:
            raise NotFound("The checkpoint does not cover that tile") from None
    scope = "public" if services.config.tlog_public else "private"
    return _answer(found, Media.BINARY, f"{scope}, {FOREVER}")


def _answer(body: bytes, medium: Media, caching: str) -> Response:
    response = Response(body, mimetype=medium.value)
    response.headers["Cache-Control"] = caching
    response.set_etag(sha256(body).hexdigest())
    response.make_conditional(request.environ)
    return response
