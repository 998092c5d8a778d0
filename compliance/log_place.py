"""The audit log as a place: entries are found by key, and erased by destroying keys (RULES 19, 26).

No entry is ever removed; without its key an entry's personal fields are noise, and the log still verifies.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from sqlalchemy import Engine

from audit.canonical import JsonValue
from audit.entry import Entry, Sealed, parse_entry
from audit.errors import KeyDestroyed
from audit.events import Retention
from audit.reading import reading
from audit.store import read_entries, seqs_of_keys
from compliance.erasures.receipt import KeptLine
from compliance.keyring.keystore import KeyStore
from compliance.keyring.sealing import SubjectSealer
from compliance.places import ErasedCount, ExportFile

_WHY_KEPT = "Art. 17(3)(b) and (e): security refusals and acts of staff, at least two years"
_OPEN_MEMBERS = ("seq", "id", "time", "event_type", "action", "outcome")


class LogPlace:
    """Exports and erases a person's part of the audit log."""

    name = "audit_log"

    def __init__(self, engine: Engine, keystore: KeyStore, sealer: SubjectSealer) -> None:
        self._engine = engine
        self._keystore = keystore
        self._sealer = sealer

    def export(self, subject: str) -> Iterator[ExportFile]:
        """The entries with a field of the person, and that field in clear; fields of others stay out."""
        yield ExportFile("audit/entries.jsonl", "Art. 15", rows=self._entries(subject))

    def erase(self, subject: str) -> ErasedCount:
        """Destroy the person's participation keys, and part the person from its SIEM pseudonym."""
        self._keystore.forbid(subject)
        doomed = [row.key_id for row in self._keystore.keys_of(subject, Retention.PARTICIPATION)]
        gone = self._keystore.destroy(doomed)
        self._keystore.forget_pseudonym(subject)
        return ErasedCount(rows=gone)

    def count(self, subject: str) -> int:
        """How many participation keys are left."""
        return len(self._keystore.keys_of(subject, Retention.PARTICIPATION))

    def kept(self, subject: str) -> KeptLine:
        """The entries that an erasure leaves readable, and why."""
        keys = [row.key_id for row in self._keystore.keys_of(subject, Retention.ACCOUNTABILITY)]
        with reading(self._engine) as conn:
            entries = len(seqs_of_keys(conn, keys)) if keys else 0
        return KeptLine("audit entries of class accountability", entries, _WHY_KEPT)

    def _entries(self, subject: str) -> Iterator[dict[str, Any]]:
        keys = {row.key_id for row in self._keystore.keys_of(subject)}
        with reading(self._engine) as conn:
            seqs = sorted(set(seqs_of_keys(conn, sorted(keys)))) if keys else []
        for seq in seqs:
            with reading(self._engine) as conn:
                stored = read_entries(conn, seq - 1 if seq else None, 1)
            for entry in stored:
                yield self._opened(parse_entry(entry.canonical), keys)

    def _opened(self, entry: Entry, keys: set[str]) -> dict[str, Any]:
        """The entry's open members, and those sealed ones that are under the person's keys."""
        shown: dict[str, Any] = {name: entry.members[name] for name in _OPEN_MEMBERS}
        fields = {name: entry.members[name] for name in ("actor", "ip_address")}
        fields |= {f"details.{name}": value for name, value in entry.details.items()}
        for name, value in fields.items():
            sealed = Sealed.read(value)
            if sealed is None:
                shown[name] = value
            elif sealed.key in keys:
                shown[name] = self._open(sealed, f"{entry.id}.{name}")
        return shown

    def _open(self, sealed: Sealed, context: str) -> JsonValue:
        try:
            return self._sealer.open(sealed, context)
        except KeyDestroyed:  # an erasure overtook this export
            return None
