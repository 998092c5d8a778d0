"""Export packages over HTTP."""

from __future__ import annotations

from collections.abc import Iterator
from uuid import UUID

from flask import Blueprint, Response

from gateway.errors import NotFound
from gateway.openapi import Media, operation
from gateway.privacy import privacy_desk
from gateway.services import current_services

packages = Blueprint("packages", __name__, url_prefix="/api/v1/privacy")
_CHUNK = 1 << 20


@packages.get("/requests/<uuid:case_id>/package")
@operation(
    "The export package of a completed access request",
    answers={200: Media.ZIP},
    errors=(NotFound,),
)
def download_package(case_id: UUID) -> Response:
    """May be fetched for seven days; an erasure removes it."""
    services = current_services()
    package = privacy_desk(services).package(str(case_id))

    def chunks() -> Iterator[bytes]:
        with services.blobs.reader(package.blob_id, package.key) as blob:
            for start in range(0, blob.size_bytes, _CHUNK):
                yield blob.read_at(start, min(_CHUNK, blob.size_bytes - start))

    headers = {
        "Content-Length": str(package.size_bytes),
        "Content-Disposition": f'attachment; filename="{case_id}.zip"',
    }
    return Response(chunks(), headers=headers, mimetype=Media.ZIP.value)
