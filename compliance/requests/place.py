"""Privacy requests as a place: an access shows their history, an erasure removes the export packages."""

from __future__ import annotations

from collections.abc import Iterator

from sqlalchemy import Engine

from audit.reading import reading
from compliance.errors import CaseChanged
from compliance.parts import Blobs
from compliance.places import ErasedCount, ExportFile
from compliance.requests.cases import Case, RequestType, change_case, list_cases

NO_PACKAGE = {"package_blob": None, "package_key": None, "package_bytes": None, "package_expires_at": None}


class RequestPlace:
    """A person's privacy requests and the packages that answered them."""

    name = "privacy_requests"

    def __init__(self, engine: Engine, blobs: Blobs) -> None:
        self._engine = engine
        self._blobs = blobs

    def export(self, subject: str) -> Iterator[ExportFile]:
        """What the person asked for, and when it was answered."""
        with reading(self._engine) as conn:
            rows = [case.public() for case in list_cases(conn, subject_id=subject)]
        yield ExportFile("privacy/requests.jsonl", "Art. 15", rows=rows)

    def erase(self, subject: str) -> ErasedCount:
        """Remove the person's packages; the requests stay as proof that they were answered (Art. 5(2))."""
        gone = [remove_package(self._engine, self._blobs, case) for case in self._with_package(subject)]
        return ErasedCount(blobs=sum(gone))

    def count(self, subject: str) -> int:
        """How many packages there are."""
        return len(self._with_package(subject))

    def _with_package(self, subject: str) -> list[Case]:
        with reading(self._engine) as conn:
            cases = list_cases(conn, request_type=RequestType.ACCESS, subject_id=subject)
        return [case for case in cases if case.package_blob is not None]


def remove_package(engine: Engine, blobs: Blobs, case: Case) -> bool:
    """Delete a request's package; False if there is none, or if an export is just ending (try again)."""
    if case.package_blob is None:
        return False
    blobs.delete(case.package_blob)
    try:
        with engine.begin() as conn:
            change_case(conn, case, **NO_PACKAGE)
    except CaseChanged:
        return False
    return True
