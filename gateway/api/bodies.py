"""Uploads: a body that is streamed within its limits, in a pool of places of its own (RULES 29)."""

from __future__ import annotations

import re
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from hashlib import sha256

from flask import current_app, request
from werkzeug.exceptions import ClientDisconnected

from gateway.config import Config
from gateway.errors import (
    BadRequest,
    Busy,
    ChecksumMissing,
    GatewayError,
    PayloadTooLarge,
    ValidationFailed,
)
from gateway.services import current_services

# Fewer bytes mean more waits of the lanes for each other; with S3's parts of 5 MiB an upload stays below 8 MB.
CHUNK_BYTES = 3 << 18
_FIRST_READ_BYTES = 256
EXTENSION = "fl_gateway_upload_places"
_CHECKSUM = re.compile(r"[0-9a-fA-F]{64}")


class TruncatedBody(BadRequest):
    """The connection ended before the body did."""

    code, title = "TRUNCATED_BODY", "The body is shorter than announced"


class UploadTooSlow(GatewayError):
    """The body comes so slowly that it would keep others from their turn."""

    status, code, title = 408, "UPLOAD_TOO_SLOW", "The body comes too slowly"


def stated_checksum(header: str) -> str:
    """The SHA-256 that the sender states for the body, and the size limit by `Content-Length` alone.

    Raises:
        ChecksumMissing: the header is not there.
        ValidationFailed: it is no SHA-256 in hex.
        PayloadTooLarge: the announced body passes `FLG_MAX_UPDATE_BYTES`; none of it was read.
    """
    limit = current_services().config.max_update_bytes
    if (request.content_length or 0) > limit:
        raise PayloadTooLarge(f"A body may have {limit} bytes", max_bytes=limit)
    stated = request.headers.get(header)
    if stated is None:
        raise ChecksumMissing(f"Send the body's SHA-256 in hex as {header}")
    if not _CHECKSUM.fullmatch(stated):
        raise ValidationFailed([{"pointer": header, "detail": "must be a SHA-256 in hex"}])
    return stated


@contextmanager
def upload_place() -> Iterator[None]:
    """One of the places for uploads, so that slow uploads never take the threads that small requests need.

    Raises:
        Busy: all places are taken.
    """
    places: threading.BoundedSemaphore = current_app.extensions[EXTENSION]
    if not places.acquire(blocking=False):
        raise Busy("All places for uploads are taken: try again in a moment")
    try:
        yield
    finally:
        places.release()


def body_chunks() -> Iterator[bytes]:
    """The request's body as it comes, three quarters of a mebibyte at a time.

    Raises:
        TruncatedBody: the client went away, or sent less than it announced.
        PayloadTooLarge: a body without a length passes `FLG_MAX_UPDATE_BYTES`.
        UploadTooSlow: it trickles, and would keep its place for hours.
    """
    config, read = current_services().config, request.stream.read
    received, size, began_s = 0, _FIRST_READ_BYTES, time.monotonic()
    try:
        while chunk := read(size):
            received += len(chunk)
            if received > config.max_update_bytes:
                limit = config.max_update_bytes
                raise PayloadTooLarge(f"A body may have {limit} bytes", max_bytes=limit)
            elapsed_s = time.monotonic() - began_s
            _insist_pace(config, received, elapsed_s)
            # A read returns when it is full: small ones keep an eye on slow clients, large ones serve the others.
            size = min(2 * size, CHUNK_BYTES) if received > elapsed_s * 4 * size else max(size // 2, 64)
            yield chunk
    except (ClientDisconnected, OSError) as error:
        raise TruncatedBody("The connection ended before the body did: send it again") from error
    if request.content_length is not None and received < request.content_length:
        raise TruncatedBody("The body is shorter than Content-Length: send it again")


def _insist_pace(config: Config, received: int, elapsed_s: float) -> None:
    if elapsed_s > config.upload_grace_s and received < elapsed_s * config.upload_least_bytes_per_s:
        least = config.upload_least_bytes_per_s
        raise UploadTooSlow(f"A body must come with at least {least} bytes a second: send it again")


def body_digest() -> bytes:
    """SHA-256 of a body that is not kept: it repeats an earlier request."""
    digest = sha256()
    with upload_place():
        for chunk in body_chunks():
            digest.update(chunk)
    return digest.digest()
