"""A model on its way out: judged once, by RFC 9110; then sent by the gateway, the nginx before it, or the store."""

from __future__ import annotations

import io
import os
from contextlib import ExitStack

from flask import Response, request
from werkzeug.wsgi import wrap_file

from gateway.errors import BlobCorrupt, GatewayError
from gateway.model_cache import Download
from gateway.openapi import Media
from gateway.rounds.lineage import ModelVersion
from gateway.services import current_services
from gateway.storage.blobs import CHUNK_BYTES, ClearReader

ACCEL_PREFIX = "/_fl_models/"
LINK_LIFE_S = 60
_ACCEL = "X-Accel-Redirect"


class PreconditionFailed(GatewayError):
    """The model is another one than the request insists on."""

    status, code, title = 412, "PRECONDITION_FAILED", "The model is not the one that If-Match names"


class Window:
    """A stretch of a blob as a file: servers that can hand it to `sendfile` do, the others read on.

    Args:
        reader: the blob, closed with the window.
        start: the first byte.
        stop: the byte after the last.
    """

    def __init__(self, reader: ClearReader, start: int, stop: int) -> None:
        self._held = ExitStack()
        self._reader = self._held.enter_context(reader)
        self._at, self._stop = start, stop
        if reader.fileno is not None:
            os.lseek(reader.fileno, start, os.SEEK_SET)  # from where `sendfile` goes on

    def read(self, size: int = -1) -> bytes:
        """The next bytes; none at the end."""
        left = self._stop - self._at
        length = left if size < 0 else min(size, left)
        piece = self._reader.read_at(self._at, length) if length else b""
        self._at += len(piece)
        return piece

    def fileno(self) -> int:
        """The open file that stands at the window's start."""
        if self._reader.fileno is None:
            raise io.UnsupportedOperation("fileno")
        return self._reader.fileno

    def close(self) -> None:
        """Give back what is held open."""
        self._held.close()


def model_response(found: ModelVersion) -> Response:
    """The answer to a GET or HEAD of a model.

    Raises:
        PreconditionFailed: the request insists on another model.
        RequestedRangeNotSatisfiable: the model has no such bytes.
        FileNotFoundError: the blob that the row names is gone.
    """
    response = _judged(found)
    if response.status_code == PreconditionFailed.status:
        raise PreconditionFailed
    if request.method != "GET" or response.status_code not in (200, 206):
        return response
    match current_services().models.download:
        case Download.ACCEL if _nginx_agrees(response):
            return _handed_to_nginx(response, found) or _sent(response, found)
        case Download.REDIRECT:
            return _redirected(found) or _sent(response, found)
        case _:
            return _sent(response, found)


def _judged(found: ModelVersion) -> Response:
    """Status and headers: first the preconditions, then the range (RFC 9110, section 13.2.2)."""
    response = Response(mimetype=Media.BINARY.value, direct_passthrough=True)
    response.headers["Content-Disposition"] = f"inline; filename={found.version}.safetensors"
    response.headers["Cache-Control"] = "private, no-cache"
    response.content_length = found.size_bytes
    response.last_modified = found.created_at
    response.set_etag(found.checksum)
    response.accept_ranges = "bytes"
    _name(response, found)
    response.make_conditional(request.environ)
    if response.status_code == 200 and _has_range() and not _is_weak(request.headers.get("If-Range", "")):
        response.make_conditional(request.environ, accept_ranges=True, complete_length=found.size_bytes)
    return response


def _sent(response: Response, found: ModelVersion) -> Response:
    """The bytes, from memory or from the store."""
    window = Window(_reader(found), *_stretch(response, found.size_bytes))
    response.response = wrap_file(request.environ, window, CHUNK_BYTES)  # type: ignore[arg-type]
    return response


def _reader(found: ModelVersion) -> ClearReader:
    services = current_services()
    if services.blobs.local_path(found.blob_id) is None:  # the system keeps files at hand itself
        held = services.models.bytes_of(found)
        if held is not None:
            return ClearReader(lambda at, length: held[at : at + length], len(held))
    reader = services.blobs.clear_reader(found.blob_id)
    if reader.size_bytes != found.size_bytes:
        with reader:
            raise BlobCorrupt("a model has not the length that was published")
    return reader


def _handed_to_nginx(response: Response, found: ModelVersion) -> Response | None:
    """The model's name for nginx, which sends the file and handles the range; None if it has no file."""
    blobs = current_services().blobs
    path = blobs.local_path(found.blob_id)
    if path is None:
        return None
    blobs.size(found.blob_id)  # or nginx would say that there is no such model
    response.headers[_ACCEL] = f"{ACCEL_PREFIX}{path.parent.name}/{path.name}"
    response.response, response.content_length = [], 0
    if response.status_code == 200:
        del response.headers["Accept-Ranges"]  # nginx says it itself, where it sends the whole file
    return response


def _nginx_agrees(response: Response) -> bool:
    """Whether the nginx before us can send files, and would come to the same verdict on this request.

    It does not know our validators when it looks at If-Match, and a range that we did not grant it might.
    """
    return (
        request.headers.get("X-Sendfile-Type") == _ACCEL
        and not {"If-Match", "If-Unmodified-Since"} & set(request.headers.keys())
        and _has_range() is (response.status_code == 206)
    )


def _redirected(found: ModelVersion) -> Response | None:
    """A link to the store; None if the store gives none."""
    blobs = current_services().blobs
    url = blobs.presigned_url(found.blob_id, expires_s=LINK_LIFE_S, version=found.version)
    if url is None:
        return None
    response = Response(status=307, headers={"Location": url, "Cache-Control": "no-store"})
    return _name(response, found)


def _name(response: Response, found: ModelVersion) -> Response:
    response.headers["X-Model-Checksum"] = found.checksum
    response.headers["X-Model-Version"] = found.version
    return response


def _is_weak(validator: str) -> bool:
    """Whether it promises no equal bytes, so that nothing may be joined to them (RFC 9110, section 13.1.5)."""
    return validator.startswith("W/")


def _has_range() -> bool:
    return "Range" in request.headers


def _stretch(response: Response, size_bytes: int) -> tuple[int, int]:
    part = response.content_range
    if response.status_code != 206 or part is None or part.start is None or part.stop is None:
        return 0, size_bytes
    return part.start, part.stop
