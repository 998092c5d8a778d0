"""What the API and the console hand out alike: a package as it is decrypted, and the proof of a receipt's entry."""

from __future__ import annotations

from collections.abc import Iterator

from flask import Response

from audit.proof import Proof
from audit.reading import reading
from audit.receipt import parse_receipt
from audit.store import entry_by_id
from audit.tree import prove
from compliance.errors import NoPackage
from compliance.parts import Package
from gateway.openapi import Media
from gateway.services import Services
from gateway.storage.chunks import NoSuchBlob

_CHUNK = 1 << 20


def streamed(services: Services, package: Package, name: str) -> Response:
    """A package as a download, decrypted as it leaves.

    Raises:
        NoPackage: its file is not in the store of blobs.
    """
    try:
        reader = services.blobs.reader(package.blob_id, package.key)
    except NoSuchBlob as error:
        raise NoPackage("the package's file is not there any more: open a new request") from error

    def chunks() -> Iterator[bytes]:
        with reader as blob:
            for start in range(0, blob.size_bytes, _CHUNK):
                yield blob.read_at(start, min(_CHUNK, blob.size_bytes - start))

    headers = {
        "Content-Length": str(package.size_bytes),
        "Content-Disposition": f'attachment; filename="{name}"',
        "Cache-Control": "no-store",
    }
    return Response(chunks(), headers=headers, mimetype=Media.ZIP.value)


def receipt_proof(services: Services, receipt: str) -> Proof | None:
    """The proof of the entry that a receipt names; None until a checkpoint covers it."""
    entry_id = parse_receipt(receipt, None).entry_id
    with reading(services.engine) as conn:
        entry = entry_by_id(conn, entry_id)
        return prove(conn, entry.seq, services.config.quorum_shown) if entry else None
