"""Privacy requests as a place: an access shows their history, an erasure removes the export packages."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from sqlalchemy import Engine, Row, Select, select

from audit.canonical import JsonValue
from audit.errors import KeyDestroyed
from audit.reading import reading
from compliance.keeping.hold import COLUMNS, Hold, hold_of
from compliance.keyring.sealing import SubjectSealer
from compliance.packages.columns import ExportColumn, Form, text_of
from compliance.packages.handing_out import remove_package
from compliance.parts import Blobs
from compliance.places import ErasedCount, ExportPart, ExportTable
from compliance.requests.cases import Case, list_cases
from compliance.tables import privacy_holds, subjects

_REQUESTS = (
    ExportColumn("id", Form.ID, "names the request"),
    ExportColumn("type", Form.TEXT, "which right was used"),
    ExportColumn("status", Form.TEXT, "where the request stands"),
    ExportColumn("received_at", Form.TIME, "when the month of Art. 12(3) began"),
    ExportColumn("due_at", Form.TIME, "when the answer is due"),
    ExportColumn("is_extended", Form.FLAG, "whether the answer got two months more"),
    ExportColumn("finished_at", Form.TIME, "when it was closed", is_optional=True),
    ExportColumn("refusal", Form.TEXT, "the ground on which it was refused", is_optional=True),
    ExportColumn("exemption", Form.TEXT, "the letter of Art. 17(3), if exempt", is_optional=True),
    ExportColumn("reason", Form.TEXT, "what was noted for the person", is_optional=True),
    ExportColumn(
        "extension_reason", Form.ANY, "why it was extended, and what you were told", is_optional=True
    ),
    ExportColumn("correction", Form.ANY, "what you asked to be put right", is_optional=True),
    ExportColumn("reference", Form.TEXT, "a silo's name of the person it is about", is_optional=True),
    ExportColumn("receipt", Form.TEXT, "the signed receipt of an erasure", is_optional=True),
    ExportColumn("statement", Form.TEXT, "the signed statement of Art. 11", is_optional=True),
)
_STANDING = (
    ExportColumn("subject_id", Form.ID, "the random id that your data and keys hang on"),
    ExportColumn("known_since", Form.TIME, "since when you are known here"),
    ExportColumn("restricted_at", Form.TIME, "since when your data is kept and not used", is_optional=True),
    ExportColumn("objected_at", Form.TIME, "since when your objection stands", is_optional=True),
)
_HOLDS = (
    ExportColumn("id", Form.ID, "names the hold"),
    ExportColumn("basis", Form.TEXT, "the letter of Art. 17(3) that it rests on"),
    ExportColumn("scope", Form.ANY, "the places whose data must stay; * is all"),
    ExportColumn("placed_at", Form.TIME, "since when"),
    ExportColumn("review_at", Form.TIME, "when its grounds are looked at again"),
    ExportColumn("lifted_at", Form.TIME, "when it ended", is_optional=True),
)


class RequestPlace:
    """What the desk keeps of a person: since when, its requests, the packages that answered them, and legal holds."""

    name = "privacy_requests"

    def __init__(self, engine: Engine, blobs: Blobs, sealer: SubjectSealer) -> None:
        self._engine = engine
        self._blobs = blobs
        self._sealer = sealer

    def export(self, subject: str) -> Iterator[ExportPart]:
        """Since when the person is known, what it asked for and got, and the holds; a hold's matter stays sealed."""
        with reading(self._engine) as conn:
            rows = [self._shown(case) for case in list_cases(conn, subject_id=subject)]
            known = [_standing(row) for row in conn.execute(_known(subject))]
            held = [_held(hold_of(row)) for row in conn.execute(_holds(subject))]
        title = "Your privacy requests, and how they were answered"
        yield ExportTable("privacy_requests", "Art. 15", title, _REQUESTS, rows)
        title = "Since when you are known here, and whether your data may be used"
        yield ExportTable("standing", "Art. 15", title, _STANDING, known)
        if held:
            title = "Legal holds: what of yours must be kept, and on which ground"
            yield ExportTable("legal_holds", "Art. 15", title, _HOLDS, held)

    def erase(self, subject: str) -> ErasedCount:
        """Remove the person's packages; the requests stay as proof that they were answered (Art. 5(2))."""
        gone = [remove_package(self._engine, self._blobs, case) for case in self._with_package(subject)]
        return ErasedCount(blobs=sum(gone))

    def count(self, subject: str) -> int:
        """How many packages there are."""
        return len(self._with_package(subject))

    def _with_package(self, subject: str) -> list[Case]:
        with reading(self._engine) as conn:
            cases = list_cases(conn, subject_id=subject)
        return [case for case in cases if case.package_blob is not None]

    def _shown(self, case: Case) -> dict[str, Any]:
        return {
            "id": case.id,
            "type": case.type.value,
            "status": case.status.value,
            "received_at": text_of(case.received_at),
            "due_at": text_of(case.due_at),
            "is_extended": case.extended_at is not None,
            "finished_at": text_of(case.finished_at),
            "refusal": case.refusal.value if case.refusal else None,
            "exemption": case.exemption.value if case.exemption else None,
            "reason": self._opened(case, "reason", case.reason),
            "extension_reason": self._opened(case, "extension_reason", case.extension_reason),
            "correction": self._opened(case, "correction", case.correction),
            "reference": self._opened(case, "reference", case.reference),
            "receipt": case.receipt,
            "statement": case.statement,
        }

    def _opened(self, case: Case, column: str, stored: Mapping[str, str] | None) -> JsonValue:
        if stored is None:
            return None
        try:
            return self._sealer.open_column(stored, "privacy_requests", column, case.id)
        except KeyDestroyed:
            return None


def _known(subject: str) -> Select[Any]:
    return select(subjects).where(subjects.c.subject_id == subject)


def _holds(subject: str) -> Select[Any]:
    found = select(*COLUMNS).where(privacy_holds.c.subject_id == subject)
    return found.order_by(privacy_holds.c.placed_at, privacy_holds.c.id)


def _standing(row: Row[Any]) -> dict[str, Any]:
    return {
        "subject_id": row.subject_id,
        "known_since": text_of(row.created_at),
        "restricted_at": text_of(row.restricted_at),
        "objected_at": text_of(row.objected_at),
    }


def _held(hold: Hold) -> dict[str, Any]:
    return {
        "id": hold.id,
        "basis": hold.basis.value,
        "scope": list(hold.scope),
        "placed_at": text_of(hold.placed_at),
        "review_at": text_of(hold.review_at),
        "lifted_at": text_of(hold.lifted_at),
    }
