"""A person's part of the audit log in a package: each entry as it is stored, what of it the person may read, its proof.

All proofs lead to the one checkpoint that lies beside them. Entries behind it, of the last moments, are left out.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from heapq import merge
from itertools import islice
from typing import Any

from sqlalchemy import Engine

from audit.canonical import JsonValue
from audit.entry import Entry, Sealed, parse_entry
from audit.errors import KeyDestroyed
from audit.merkle import prove_inclusion
from audit.proof import Proof
from audit.reading import reading
from audit.store import StoredCheckpoint, StoredEntry, entries_at, newest_checkpoint, seqs_of_key
from audit.tree import TreeSource
from compliance.keyring.keystore import KeyStore
from compliance.keyring.sealing import SubjectSealer
from compliance.packages.columns import ExportColumn, Form
from compliance.places import ExportFile, ExportFolder, ExportPart, ExportTable, FolderFile

_PAGE = 100  # a proof may need 33 kB of tiles
_ARTICLE = "Art. 15"
ENTRIES, PROOFS = "audit/entries.json", "audit/proofs"
_OPEN_MEMBERS = ("seq", "id", "time", "event_type", "action", "outcome")
_COLUMNS = (
    ExportColumn("seq", Form.INTEGER, "the entry's place in the log"),
    ExportColumn("opened", Form.ANY, "the entry with the fields that are sealed under your keys in clear"),
    ExportColumn("stored", Form.TEXT, "the entry as the log keeps it: the very text that was hashed"),
)


class OwnEntries:
    """Reads the entries with a field of a person; fields of others stay sealed."""

    def __init__(self, engine: Engine, keystore: KeyStore, sealer: SubjectSealer) -> None:
        self._engine = engine
        self._keystore = keystore
        self._sealer = sealer

    def parts(self, subject: str) -> Iterator[ExportPart]:
        """The entries, the checkpoint that covers them, and the proof of each."""
        keys = [row.key_id for row in self._keystore.keys_of(subject)]
        with reading(self._engine) as conn:
            checkpoint = newest_checkpoint(conn)
        title = "What the audit log says of you: opened for you, and as it is stored"
        rows = self._rows(keys, checkpoint)
        yield ExportTable("audit_entries", _ARTICLE, title, _COLUMNS, rows, path=ENTRIES)
        if checkpoint is not None:
            note = checkpoint.note.encode()
            yield ExportFile("audit/checkpoint", _ARTICLE, "The signed state of the log", [note])
            proofs = self._proofs(keys, checkpoint)
            title = "A proof for each entry that it is in the log (C2SP tlog-proof)"
            yield ExportFolder(PROOFS, _ARTICLE, title, proofs)

    def _rows(self, keys: list[str], checkpoint: StoredCheckpoint | None) -> Iterator[dict[str, Any]]:
        known = frozenset(keys)
        for page in self._pages(keys, checkpoint.size if checkpoint else 0):
            for stored in page:
                opened = self._opened(parse_entry(stored.canonical), known)
                yield {"seq": stored.seq, "opened": opened, "stored": stored.canonical.decode()}

    def _proofs(self, keys: list[str], checkpoint: StoredCheckpoint) -> Iterator[FolderFile]:
        for page in self._pages(keys, checkpoint.size):
            with reading(self._engine) as conn:
                source = TreeSource(conn, checkpoint.size)
                paths = [prove_inclusion(source, entry.seq, checkpoint.size) for entry in page]
            for entry, path in zip(page, paths, strict=True):
                text = Proof(entry.seq, tuple(path), checkpoint.note, entry.canonical).text().encode()
                yield FolderFile(f"{entry.seq}.tlog-proof", len(text), [text])

    def _pages(self, keys: list[str], size: int) -> Iterator[list[StoredEntry]]:
        seqs = _distinct(merge(*(self._seqs(key) for key in keys)))
        while page := list(islice(seqs, _PAGE)):
            with reading(self._engine) as conn:
                found = entries_at(conn, [seq for seq in page if seq < size])
            yield found

    def _seqs(self, key: str) -> Iterator[int]:
        after = -1
        while True:
            with reading(self._engine) as conn:
                found = seqs_of_key(conn, key, after=after, limit=_PAGE)
            yield from found
            if len(found) < _PAGE:
                return
            after = found[-1]

    def _opened(self, entry: Entry, keys: frozenset[str]) -> dict[str, JsonValue]:
        details = self._readable(entry, keys, "details.", entry.details)
        people = {name: entry.members[name] for name in ("actor", "ip_address")}
        open_members = {name: entry.members[name] for name in _OPEN_MEMBERS}
        return {**open_members, **self._readable(entry, keys, "", people), "details": details}

    def _readable(
        self, entry: Entry, keys: frozenset[str], prefix: str, fields: Mapping[str, JsonValue]
    ) -> dict[str, JsonValue]:
        shown: dict[str, JsonValue] = {}
        for name, value in fields.items():
            sealed = Sealed.read(value)
            if sealed is None:
                shown[name] = value
            elif sealed.key in keys:
                shown[name] = self._open(sealed, f"{entry.id}.{prefix}{name}")
        return shown

    def _open(self, sealed: Sealed, context: str) -> JsonValue:
        try:
            return self._sealer.open(sealed, context)
        except KeyDestroyed:  # an erasure overtook this export
            return None


def _distinct(ordered: Iterable[int]) -> Iterator[int]:
    last = None
    for one in ordered:
        if one != last:
            yield one
        last = one
