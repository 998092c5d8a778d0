"""One examination of a bundle: what outsiders hold against it, and what its entries show as they pass."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import TypeAlias

from audit.checkpoint import NoteVerifier, SignedTree, parse_checkpoint, parse_note
from audit.entry import Entry, read_time
from audit.errors import AuditError, BadReceipt
from audit.merkle import EMPTY_ROOT, CompactRange
from audit.proof import check_entry_proof, parse_proof
from audit.receipt import Receipt, ReceiptKeys, parse_receipt
from audit.succession import succeeded_tree
from audit.verdict import ReceiptFinding, ReceiptVerdict

Progress: TypeAlias = Callable[[int, int], None]

PROGRESS_EACH = 1000
_ALLOWED_LAG = timedelta(seconds=60)  # RULES 22
_PROOF = "c2sp.org/tlog-proof"
_ELSEWHERE = (
    "which ended in a restore and which this log succeeds: check it against a bundle of that log, "
    "`fl-gateway audit verify BUNDLE_OF_THAT_LOG`"
)


class Refuted(AuditError):
    """The bundle does not verify; `seq` is the first bad place, if one can be named."""

    code = "REFUTED"

    def __init__(self, problem: str, seq: int | None = None) -> None:
        super().__init__(problem)
        self.problem = problem
        self.seq = seq


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
    progress: Progress | None = None
    olds: list[SignedTree] = field(default_factory=list)
    pins: dict[str, list[Pin]] = field(default_factory=dict)
    found: dict[str, int] = field(default_factory=dict)
    succeeds: SignedTree | None = None
    strangers: list[SignedTree] = field(default_factory=list)
    _latest: str = ""
    _laggards: int = 0
    _first_laggard: int = 0

    def take_old(self, verifier: NoteVerifier, note: str) -> None:
        """An older checkpoint, whose tree must be the beginning of this one."""
        if stranger := _stranger(verifier, note):
            self.strangers.append(stranger)  # judged when the first entry has said which log was before
            return
        try:
            old = verifier.open(note)
        except AuditError as error:
            raise Refuted(f"the older checkpoint: {error}") from None
        if old.size > self.signed.size:
            raise Refuted(
                f"an older checkpoint covers {old.size} entries, this one only {self.signed.size}: "
                "the log was cut, or restored from a backup",
                self.signed.size,
            )
        if old.size == 0 and old.root != EMPTY_ROOT:
            raise Refuted("the older checkpoint speaks of an empty log with a root of its own")
        self.olds.append(old)

    def take_receipts(self, texts: Sequence[str], verifier: NoteVerifier, keys: ReceiptKeys | None) -> None:
        """Receipts, and proof files, which carry an older checkpoint as well."""
        for text in texts:
            pin = (
                self._proof_pin(text, verifier) if text.startswith(_PROOF) else self._receipt_pin(text, keys)
            )
            self.pins.setdefault(pin.entry_id, []).append(pin)

    def visit(self, entry: Entry, tree: CompactRange) -> None:
        """Look at one good entry, which is the last of `tree`."""
        self.succeeds = self.succeeds or succeeded_tree(entry)
        for old in self.olds:
            if old.size == tree.size and old.root != tree.root():
                raise Refuted(
                    f"the first {old.size} entries are not those of the older checkpoint: "
                    "the log was rewritten at this entry or before it",
                    old.size - 1,
                )
        for pin in self.pins.get(entry.id, ()):
            if entry.digest() != pin.digest:
                raise Refuted("the receipt was given for another content of this entry", entry.seq)
            self.found[pin.entry_id] = entry.seq
        self._watch_time(entry)
        if self.progress and tree.size % PROGRESS_EACH == 0:
            self.progress(tree.size, self.signed.size)

    def judge_strangers(self) -> None:
        """Older checkpoints of another log: whether this one succeeds it, and ended it where they say."""
        for old in self.strangers:
            ended = self.succeeds
            if ended is None or ended.origin != old.origin:
                raise Refuted(f"the older checkpoint is of the log {old.origin!r}, not of this one")
            if old.size > ended.size or (old.size == ended.size and old.root != ended.root):
                raise Refuted(
                    f"the first entry says that {old.origin!r} ended at {ended.size} entries, but the older "
                    f"checkpoint of that log covers {old.size}, or has another root: entries were concealed",
                    0,
                )
            raise Refuted(
                f"the older checkpoint of {old.size} entries is of the log {old.origin!r}, {_ELSEWHERE}"
                " --since that checkpoint; its end is the tree in this log's first entry"
            )

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

    def remarks(self) -> list[str]:
        """What is odd, though no proof of wrongdoing."""
        if not self._laggards:
            return []
        return [
            f"{self._laggards} entries, the first at seq {self._first_laggard}, are dated more than 60 s "
            "before one that precedes them"
        ]

    def _proof_pin(self, text: str, verifier: NoteVerifier) -> Pin:
        try:
            proof = parse_proof(text)
            entry = check_entry_proof(proof, verifier)
        except AuditError as error:
            raise Refuted(f"a proof file: {error}") from None
        self.take_old(verifier, proof.checkpoint)
        return Pin(entry.id, entry.digest())

    def _receipt_pin(self, text: str, keys: ReceiptKeys | None) -> Pin:
        try:
            receipt = parse_receipt(text, keys)
        except BadReceipt as error:
            raise Refuted(f"a receipt: {error}") from None
        return Pin(receipt.entry_id, receipt.entry_digest, receipt)

    def _insist_origin(self, receipt: Receipt, seq: int | None) -> None:
        """A receipt is of this log, or of the one before it; then its entry may have come over, still pending."""
        if receipt.origin == self.signed.origin:
            return
        told = f"the receipt of {receipt.entry_id} is of the log {receipt.origin!r}, "
        if self.succeeds is None or self.succeeds.origin != receipt.origin:
            raise Refuted(f"{told}not of this one")
        if seq is None:
            raise Refuted(f"{told}{_ELSEWHERE} --receipt that receipt")

    def _watch_time(self, entry: Entry) -> None:
        time = str(entry.members["time"])  # one spelling, so that texts compare as times do
        if time >= self._latest:
            self._latest = time
        elif entry.time < read_time(self._latest) - _ALLOWED_LAG:
            self._first_laggard = self._first_laggard if self._laggards else entry.seq
            self._laggards += 1


def _stranger(verifier: NoteVerifier, note: str) -> SignedTree | None:
    """The tree of a checkpoint that this key signed for a log of another name."""
    try:
        origin = parse_checkpoint(parse_note(note).text).origin
        return None if origin == verifier.name else verifier.named(origin).open(note)
    except AuditError:
        return None


def _verdict(receipt: Receipt, seq: int | None, now: datetime) -> ReceiptVerdict:
    if seq is not None:
        return ReceiptVerdict.PROVEN
    return ReceiptVerdict.OVERDUE_MISSING if receipt.is_due(now) else ReceiptVerdict.NOT_DUE
