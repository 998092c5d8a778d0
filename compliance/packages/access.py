"""Carries out access and portability requests: one encrypted, signed package of what the places hold of a person."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from uuid import uuid4

from audit.canonical import JsonValue
from audit.entry import Draft
from audit.events import EventType, Phase, Retention
from audit.reading import reading
from compliance.errors import CaseChanged, SubjectErased
from compliance.journal import DESK
from compliance.keyring.keys import SigningUse
from compliance.packages.export import write_package
from compliance.packages.manifest import Manifest
from compliance.parts import DeskParts, Incoming
from compliance.places import ExportPart, Place
from compliance.requests.cases import Case, RequestType, Status, change_case, move_details, read_case
from compliance.requests.reasons import Refusal


class Accesses:
    """Runs access requests, and portability requests, whose package is the part to take along."""

    def __init__(self, parts: DeskParts, places: Sequence[Place]) -> None:
        self._parts = parts
        self._places = places

    def run(self, case: Case) -> Case:
        """Write the package of an approved or running request; a person erased meanwhile has none."""
        if case.status is Status.APPROVED:
            case = self._begin(case)
        if case.status is not Status.RUNNING:
            return case
        try:
            return self._export(case)
        except SubjectErased as error:
            return self._give_up(self._read(case), error.code)
        except CaseChanged:  # another worker, or an erasure, was first
            return self._read(case)

    def _export(self, case: Case) -> Case:
        blob_id, stale = uuid4().hex, case.package_blob  # a new blob has a new key: no nonce is used twice
        sealer, now = self._parts.sealer, self._parts.now()
        key_id, key = sealer.new_blob_key(case.subject_id, Retention.PARTICIPATION, blob_id, now)
        with self._parts.engine.begin() as conn:
            change_case(conn, case, package_blob=blob_id, package_key=key_id, attempts=case.attempts + 1)
        if stale is not None:
            self._parts.blobs.delete(stale)
        case = self._read(case)
        counted = _Counted(self._parts.blobs.incoming(blob_id, key))
        try:
            manifest = self._write(case, counted)
            counted.target.keep()
        finally:
            counted.target.discard()
        try:
            return self._finish(case, manifest, counted.size_bytes)
        except CaseChanged:
            self._parts.blobs.delete(blob_id)
            raise

    def _write(self, case: Case, out: _Counted) -> Manifest:
        return write_package(
            out,
            self._parts_of(case.subject_id),
            notice=self._parts.notice(case.subject_id),
            key=self._parts.keystore.signing_key(SigningUse.PACKAGE),
            at=self._parts.now(),
            is_portable=case.type is RequestType.PORTABILITY,
        )

    def _parts_of(self, subject: str) -> Iterator[ExportPart]:
        for place in self._places:
            yield from place.export(subject)
        yield from self._parts.evidence(subject)

    def _finish(self, case: Case, manifest: Manifest, size_bytes: int) -> Case:
        now, digest = self._parts.now(), manifest.digest()
        facts: dict[str, JsonValue] = {
            "case_id": case.id,
            "files": len(manifest.files),
            "size_bytes": size_bytes,
        }
        exported = self._draft(EventType.PRIVACY_EXPORTED, **facts, manifest_digest=digest)
        ended = self._intent_ended(case, Phase.DONE)
        moved = self._draft(EventType.PRIVACY_MOVED, **move_details(case, Status.COMPLETED))
        done = {"status": Status.COMPLETED.value, "finished_at": now, "last_error": None}
        package = {"package_bytes": size_bytes, "package_expires_at": now + self._parts.package_lifetime}
        with self._parts.engine.begin() as conn:
            change_case(conn, case, manifest_digest=digest, **done, **package)
            self._parts.worker_journal.write(conn, exported, ended, moved)
        return self._read(case)

    def _begin(self, case: Case) -> Case:
        intent = self._draft(EventType.INTENT_EXPORT, case_id=case.id, phase=Phase.INTENDED.value)
        moved = self._draft(EventType.PRIVACY_MOVED, **move_details(case, Status.RUNNING))
        with self._parts.engine.begin() as conn:
            change_case(conn, case, status=Status.RUNNING.value, intent_id=intent.id)
            self._parts.worker_journal.write(conn, intent, moved)
        return self._read(case)

    def _give_up(self, case: Case, problem: str) -> Case:
        ended = self._intent_ended(case, Phase.FAILED)
        ground = {"refusal": Refusal.NOT_COVERED.value}  # nothing is there that the right could reach
        moved = self._draft(EventType.PRIVACY_MOVED, **move_details(case, Status.REFUSED), **ground)
        refused = {"status": Status.REFUSED.value, "finished_at": self._parts.now(), "last_error": problem}
        with self._parts.engine.begin() as conn:
            change_case(conn, case, **refused, **ground)
            self._parts.worker_journal.write(conn, ended, moved)
        return self._read(case)

    def _intent_ended(self, case: Case, phase: Phase) -> Draft:
        intent_id = case.intent_id or ""
        return self._draft(EventType.INTENT_EXPORT, case_id=case.id, phase=phase.value, intent_id=intent_id)

    def _draft(self, event_type: EventType, **details: JsonValue) -> Draft:
        return self._parts.worker_journal.draft(event_type, details=details, actor=DESK)

    def _read(self, case: Case) -> Case:
        with reading(self._parts.engine) as conn:
            return read_case(conn, case.id)


class _Counted:
    def __init__(self, target: Incoming) -> None:
        self.target = target
        self.size_bytes = 0

    def write(self, data: bytes, /) -> None:
        self.target.write(data)
        self.size_bytes += len(data)
