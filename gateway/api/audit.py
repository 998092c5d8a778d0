"""The log over HTTP, for auditors and SIEMs: entries as stored, checkpoints, proofs, and the bundle."""

from __future__ import annotations

import base64
import json
import tempfile
from typing import Any

from flask import Blueprint, Response, request, send_file
from pydantic.dataclasses import dataclass

from audit.bundle import export_bundle
from audit.errors import NoCheckpoint
from audit.events import EventType
from audit.reading import reading
from audit.store import entry_at, latest_checkpoint, newest_checkpoint, read_entries, tree_size
from audit.tree import consistency, inclusion
from gateway.errors import NotFound, ValidationFailed
from gateway.log_key import log_keys
from gateway.openapi import Media, operation
from gateway.paths import insist_number
from gateway.services import Services, current_services
from gateway.wire import (
    PAGE,
    PER_PAGE,
    WIRE,
    Links,
    Pagination,
    answer,
    json_response,
    number_asked,
    page,
    page_asked,
)

audit = Blueprint("audit", __name__, url_prefix="/api/v1/audit")
MOST_ENTRIES = 1000


@dataclass(frozen=True, slots=True, config=WIRE)
class EntryList:
    """Entries as they are stored."""

    data: list[dict[str, Any]]
    pagination: Pagination | None = None
    links: Links | None = None


@dataclass(frozen=True, slots=True, config=WIRE)
class ProofView:
    """The hashes of a proof (RFC 6962, section 2.1), base64."""

    hashes: list[str]


@audit.get("/entries")
@operation(
    "Entries as stored, in order",
    answers={200: EntryList},
    errors=(ValidationFailed,),
    numbers=("after", "limit", *PAGE),
)
def show_entries() -> Response:
    """`after` and `limit` for readers that follow the log, `page` and `per_page` for people."""
    services = current_services()
    if "page" in request.args or "per_page" in request.args:
        number, per_page = page_asked()
        with reading(services.engine) as conn:
            first = (number - 1) * per_page
            found = read_entries(conn, first - 1 if first else None, per_page)
            total = tree_size(conn)
        return page([json.loads(entry.canonical) for entry in found], total)
    after = number_asked("after", None)
    limit = number_asked("limit", PER_PAGE, least=1, most=MOST_ENTRIES) or PER_PAGE
    with reading(services.engine) as conn:
        found = read_entries(conn, after, limit)
    return json_response({"data": [json.loads(entry.canonical) for entry in found]})


@audit.get("/entries/<int:seq>")
@operation("One entry, in its canonical bytes", answers={200: Media.JSON}, errors=(NotFound,))
def show_entry(seq: int) -> Response:
    """The very bytes that were hashed."""
    with reading(current_services().engine) as conn:
        found = entry_at(conn, insist_number(seq))
    if found is None:
        raise NotFound("There is no such entry")
    return Response(found.canonical, mimetype=Media.JSON.value)


@audit.get("/checkpoint")
@operation("The newest signed checkpoint", answers={200: Media.TEXT}, errors=(NotFound,))
def show_checkpoint() -> Response:
    """A C2SP tlog-checkpoint."""
    with reading(current_services().engine) as conn:
        note = latest_checkpoint(conn)
    if note is None:
        raise NotFound("Nothing was signed yet")
    return Response(note, mimetype=Media.TEXT.value)


@audit.get("/proof/inclusion")
@operation(
    "Proof that an entry is in a tree",
    answers={200: ProofView},
    errors=(ValidationFailed,),
    numbers=("seq", "size"),
)
def show_inclusion() -> Response:
    """`seq` and `size`; without `size`, the newest checkpoint's."""
    with reading(current_services().engine) as conn:
        size = _size(conn, "size")
        seq = _needed("seq", most=size - 1)
        return _proof(inclusion(conn, seq, size))


@audit.get("/proof/consistency")
@operation(
    "Proof that one tree grew out of another",
    answers={200: ProofView},
    errors=(ValidationFailed,),
    numbers=("from", "to"),
)
def show_consistency() -> Response:
    """`from` and `to`; without `to`, the newest checkpoint's."""
    with reading(current_services().engine) as conn:
        new = _size(conn, "to")
        old = _needed("from", least=1, most=new)
        return _proof(consistency(conn, old, new))


@audit.get("/bundle")
@operation("The whole log as a bundle to be verified offline", answers={200: Media.ZIP}, errors=(NotFound,))
def download_bundle() -> Response:
    """What the database holds, with the last checkpoint; never repaired, judged or signed again."""
    services = current_services()
    file = tempfile.TemporaryFile()  # noqa: SIM115 - send_file closes it
    quorum = services.config.witness_quorum
    try:
        entries = export_bundle(services.engine, file, log_vkey(services), quorum=quorum)
    except NoCheckpoint:
        file.close()
        raise NotFound("Nothing was signed yet") from None
    services.trail.note(EventType.AUDIT_EXPORTED, entries=entries, format="bundle")
    file.seek(0)
    return send_file(file, mimetype=Media.ZIP.value, as_attachment=True, download_name="audit-bundle.zip")


def log_vkey(services: Services) -> str:
    """The note verifier key of this log, the newest if its keys change."""
    return log_keys(services).vkey


def _size(conn: Any, name: str) -> int:
    newest = newest_checkpoint(conn)
    most = newest.size if newest else 0
    size = number_asked(name, most, least=1, most=most)
    if not size:
        raise ValidationFailed([{"pointer": f"?{name}", "detail": "nothing was signed yet"}])
    return size


def _needed(name: str, *, least: int = 0, most: int) -> int:
    found = number_asked(name, None, least=least, most=most)
    if found is None:
        raise ValidationFailed([{"pointer": f"?{name}", "detail": "is missing"}])
    return found


def _proof(hashes: list[bytes]) -> Response:
    return answer(ProofView([base64.b64encode(one).decode() for one in hashes]))
