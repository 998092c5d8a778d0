"""The audit log as a place: entries are found by key, and erased by destroying keys (RULES 19, 26).

No entry is ever removed; without its key an entry's personal fields are noise, and the log still verifies.
"""

from __future__ import annotations

from collections.abc import Iterator

from sqlalchemy import Engine

from audit.events import Retention
from audit.reading import reading
from audit.store import seqs_of_keys
from compliance.keyring.keystore import KeyStore
from compliance.keyring.sealing import SubjectSealer
from compliance.packages.own_entries import OwnEntries
from compliance.places import ErasedCount, ExportPart


class LogPlace:
    """Exports and erases a person's part of the audit log."""

    name = "audit_log"

    def __init__(self, engine: Engine, keystore: KeyStore, sealer: SubjectSealer) -> None:
        self._engine = engine
        self._keystore = keystore
        self._sealer = sealer

    def export(self, subject: str) -> Iterator[ExportPart]:
        """The entries with a field of the person, and that field in clear; fields of others stay out."""
        yield from OwnEntries(self._engine, self._keystore, self._sealer).parts(subject)

    def erase(self, subject: str) -> ErasedCount:
        """Destroy the person's participation keys: every copy of what they encrypted is noise from then on."""
        self._keystore.forbid(subject)
        doomed = [row.key_id for row in self._keystore.keys_of(subject, Retention.PARTICIPATION)]
        return ErasedCount(rows=self._keystore.destroy(doomed))

    def count(self, subject: str) -> int:
        """How many participation keys are left."""
        return len(self._keystore.keys_of(subject, Retention.PARTICIPATION))

    def kept(self, subject: str) -> int:
        """How many entries an erasure leaves readable."""
        keys = [row.key_id for row in self._keystore.keys_of(subject, Retention.ACCOUNTABILITY)]
        with reading(self._engine) as conn:
            return len(seqs_of_keys(conn, keys)) if keys else 0
