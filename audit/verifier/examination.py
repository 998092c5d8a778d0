"""One examination of a bundle: what outsiders hold against it, and what its entries show as they pass."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import datetime

from audit.checkpoint import NoteVerifier, SignedTree
from audit.entry import Entry
from audit.errors import AuditError, BadReceipt, Refuted
from audit.merkle import CompactRange
from audit.proof import carried_entry, parse_proof
from audit.receipt import Receipt, ReceiptKeys, parse_receipt
from audit.succession import succeeded_tree
from audit.verifier.conduct import Conduct
from audit.verifier.held import ELSEWHERE, HeldCheckpoints
from audit.verifier.log_keys import LogKeys
from audit.verifier.progress import PROGRESS_EACH, Progress
from audit.verifier.verdict import ReceiptFinding, ReceiptVerdict

_PROOF = "c2sp.org/tlog-proof"


@dataclass(frozen=True, slots=True)
class Pin:
    """An entry that somebody outside holds evidence of: a receipt, or an earlier proof file."""

    entry_id: str
    digest: bytes
    receipt: Receipt | None = None


@dataclass(slots=True)
class Examination:
    """The evidence, and what is known so far of the entries that passed by."""

    signed: SignedTree
    verifier: NoteVerifier
    progress: Progress | None = None
    checkpoints: HeldCheckpoints = field(init=False)
    keys: LogKeys = field(init=False)
    conduct: Conduct = field(default_factory=Conduct)
    pins: dict[str, list[Pin]] = field(default_factory=dict)
    found: dict[str, int] = field(default_factory=dict)
    succeeds: SignedTree | None = None

    def __post_init__(self) -> None:
        self.checkpoints = HeldCheckpoints(self.signed, self.verifier)
        self.keys = LogKeys(self.verifier)

    def take_receipts(self, texts: Sequence[str], keys: ReceiptKeys | None) -> None:
        """Receipts, and proof files, which carry an older checkpoint as well."""
        for text in texts:
            pin = self._proof_pin(text) if text.startswith(_PROOF) else _receipt_pin(text, keys)
            self.pins.setdefault(pin.entry_id, []).append(pin)

    def visit(self, entry: Entry, tree: CompactRange) -> None:
        """Look at one good entry, which is the last of `tree`."""
        self.checkpoints.pass_by(tree)
        self.keys.hear(entry)
        self.conduct.watch(entry)
        if entry.seq == 0:
            self.succeeds = succeeded_tree(entry)
        if self.pins:
            self._find(entry)
        if self.progress and tree.size % PROGRESS_EACH == 0:
            self.progress(tree.size, self.signed.size)

    def judge_receipts(self, now: datetime, *, is_checked: bool) -> list[ReceiptFinding]:
        """The verdict on each receipt, once every entry has passed by."""
        findings = []
        for pin in (pin for pins in self.pins.values() for pin in pins):
            seq = self.found.get(pin.entry_id)
            if pin.receipt is not None:
                self._insist_origin(pin.receipt, seq)
                verdict = _verdict(pin.receipt, seq, now)
                findings.append(ReceiptFinding(pin.entry_id, verdict, seq, is_checked))
            elif seq is None:
                raise Refuted(f"the entry {pin.entry_id} of a proof file is not in the bundle")
        return findings

    def succession(self) -> list[str]:
        """Which log was before this one, as a finding."""
        if self.succeeds is None:
            return []
        old = self.succeeds
        return [
            f"the first entry says that this log succeeds the log {old.origin!r}, which ended at "
            f"{old.size} entries with the root {old.root.hex()}; its entries are in a bundle of its own"
        ]

    def _find(self, entry: Entry) -> None:
        for pin in self.pins.get(entry.id, ()):
            if entry.digest() != pin.digest:
                raise Refuted("the receipt was given for another content of this entry", entry.seq)
            self.found[pin.entry_id] = entry.seq

    def _proof_pin(self, text: str) -> Pin:
        try:
            proof = parse_proof(text)
            entry = carried_entry(proof)
        except AuditError as error:
            raise Refuted(f"a proof file: {error}") from None
        self.checkpoints.take(proof.checkpoint, "the proof file's checkpoint")
        return Pin(entry.id, entry.digest())

    def _insist_origin(self, receipt: Receipt, seq: int | None) -> None:
        """A receipt is of this log, or of the one before it; then its entry may have come over, still pending."""
        if receipt.origin == self.signed.origin:
            return
        told = f"the receipt of {receipt.entry_id} is of the log {receipt.origin!r}, "
        if self.succeeds is None or self.succeeds.origin != receipt.origin:
            raise Refuted(f"{told}not of this one")
        if seq is None:
            raise Refuted(f"{told}{ELSEWHERE} --receipt that receipt")


def _receipt_pin(text: str, keys: ReceiptKeys | None) -> Pin:
    try:
        receipt = parse_receipt(text, keys)
    except BadReceipt as error:
        raise Refuted(f"a receipt: {error}") from None
    return Pin(receipt.entry_id, receipt.entry_digest, receipt)


def _verdict(receipt: Receipt, seq: int | None, now: datetime) -> ReceiptVerdict:
    if seq is not None:
        return ReceiptVerdict.PROVEN
    return ReceiptVerdict.OVERDUE_MISSING if receipt.is_due(now) else ReceiptVerdict.NOT_DUE
