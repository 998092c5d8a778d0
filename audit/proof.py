"""Proof files: C2SP tlog-proof. An entry, its place, and the path from its leaf to a signed root."""

from __future__ import annotations

import re
from base64 import b64decode, b64encode
from binascii import Error as Base64Error
from dataclasses import dataclass

from audit.checkpoint import NoteVerifier, SignedTree, parse_checkpoint, parse_note
from audit.entry import Entry, parse_entry
from audit.errors import AuditError, BadProof
from audit.merkle import HASH_BYTES, verify_inclusion

_HEADER = "c2sp.org/tlog-proof@v1"
_INDEX = re.compile(r"index (0|[1-9][0-9]{0,17})")
_MAX_HASHES = 64


@dataclass(frozen=True, slots=True)
class Proof:
    """What a proof file says; nothing in it is verified. `extra` is the canonical entry."""

    index: int
    hashes: tuple[bytes, ...]
    checkpoint: str
    extra: bytes | None = None

    def text(self) -> str:
        """The proof file."""
        extra = [f"extra {b64encode(self.extra).decode()}"] if self.extra is not None else []
        hashes = [b64encode(step).decode() for step in self.hashes]
        lines = [_HEADER, *extra, f"index {self.index}", *hashes, "", self.checkpoint]
        return "\n".join(lines)


def parse_proof(text: str) -> Proof:
    """Take a proof file apart; raises BadProof."""
    head, separator, checkpoint = text.partition("\n\n")
    lines = head.split("\n")
    if not separator or lines.pop(0) != _HEADER:
        raise BadProof(f"a proof file begins with {_HEADER} and ends with a checkpoint")
    extra = _decode(lines.pop(0).removeprefix("extra ")) if lines and lines[0].startswith("extra ") else None
    index = _INDEX.fullmatch(lines.pop(0)) if lines else None
    if index is None:
        raise BadProof("a proof file says its index as a decimal")
    hashes = tuple(_decode(line) for line in lines)
    if len(hashes) > _MAX_HASHES or any(len(step) != HASH_BYTES for step in hashes):
        raise BadProof("the hashes of a proof are at most 64, of 32 bytes each")
    return Proof(int(index[1]), hashes, checkpoint, extra)


def check_proof(proof: Proof, leaf: bytes, verifier: NoteVerifier) -> SignedTree:
    """The signed tree that contains this leaf at the proof's index; raises BadNote or BadProof."""
    tree = verifier.open(proof.checkpoint)
    verify_inclusion(leaf, proof.index, tree.size, proof.hashes, tree.root)
    return tree


def check_entry_proof(proof: Proof, verifier: NoteVerifier) -> Entry:
    """The entry that a proof file carries, proven to be in the log; raises BadNote or BadProof."""
    entry = carried_entry(proof)
    verifier.open(proof.checkpoint)
    return entry


def carried_entry(proof: Proof) -> Entry:
    """The entry that a proof file carries, if it is in the tree of its checkpoint, which anybody may have signed.

    Raises:
        BadNote, BadProof: it is not.
    """
    if proof.extra is None:
        raise BadProof("the proof file carries no entry (its `extra` line is missing)")
    try:
        entry = parse_entry(proof.extra)
    except AuditError as error:
        raise BadProof(f"the proof file carries no entry: {error}") from None
    if entry.seq != proof.index:
        raise BadProof("the entry's seq is not the index of the proof")
    tree = parse_checkpoint(parse_note(proof.checkpoint).text)
    verify_inclusion(entry.leaf(), proof.index, tree.size, proof.hashes, tree.root)
    return entry


def _decode(text: str) -> bytes:
    try:
        data = b64decode(text, validate=True)
    except (Base64Error, ValueError):
        raise BadProof("a line of the proof is not base64") from None
    if b64encode(data).decode() != text:
        raise BadProof("a line of the proof is not base64")
    return data
