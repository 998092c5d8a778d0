"""Judging one bundle: its checkpoint's signature, its entries, and what is held against it, one after the other."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime

from audit.checkpoint import NoteVerifier, SignedTree, parse_checkpoint, parse_note
from audit.errors import AuditError, Refuted
from audit.receipt import ReceiptKeys
from audit.verifier.chain import ChainBroken, walk
from audit.verifier.examination import Examination
from audit.verifier.held import opens
from audit.verifier.log_keys import Change, key_name, told
from audit.verifier.opening import OpenBundle
from audit.verifier.progress import Progress
from audit.verifier.quorum import Cosigned, Quorum
from audit.verifier.verdict import ReceiptFinding, ReceiptVerdict, Verdict

_WITNESSED = "the witnessed checkpoint"


class Judge:
    """Checks one bundle, and writes down what was checked.

    Raises:
        Refuted: neither the checkpoint nor one that tells of a new key is signed by the given key.
    """

    def __init__(self, bundle: OpenBundle, verifier: NoteVerifier, progress: Progress | None) -> None:
        self._bundle = bundle
        self._verifier = verifier
        self._doubt: AuditError | None = None
        self._signed = self._stated_tree()
        self._examination = Examination(self._signed, verifier, progress)
        self._checks: list[str] = []
        self._findings: list[ReceiptFinding] = []
        self._signed_by: str | None = None
        self._witnessed: Cosigned | None = None
        self.remarks: list[str] = []
        if self._doubt is None:
            self._accept(verifier)

    def judge(
        self,
        since: str | None,
        receipts: Sequence[str],
        keys: ReceiptKeys | None,
        quorum: Quorum | None,
        now: datetime,
    ) -> Verdict:
        """Check everything; the first thing that does not hold ends it."""
        try:
            self._take_members()
            if since is not None:
                self._examination.checkpoints.take(since)
            self._examination.take_receipts(receipts, keys)
            self._walk()
            self._judge_keys()
            self._checks += self._examination.succession()
            self._examination.checkpoints.judge_strangers(self._examination.succeeds)
            self.remarks += self._examination.conduct.remarks()
            if quorum is not None:
                self._judge_witnesses(quorum)
            self._judge_receipts(keys, now)
        except Refuted as refuted:
            return self._verdict(refuted)
        return self._verdict(None)

    def _stated_tree(self) -> SignedTree:
        """The checkpoint's tree; its key may be one that the given key announced, which the entries will tell."""
        try:
            return self._verifier.open(self._bundle.checkpoint)
        except AuditError as error:
            self._doubt = error
        try:
            if not any(opens(self._verifier, note) for note in self._bundle.rotations.values()):
                raise self._doubt
            tree = parse_checkpoint(parse_note(self._bundle.checkpoint).text)
        except AuditError as error:
            raise Refuted(f"the checkpoint: {error}") from None
        if tree.origin != self._verifier.name:
            raise Refuted(f"the checkpoint: {self._doubt}")
        return tree

    def _take_members(self) -> None:
        for name, note in self._bundle.rotations.items():
            self._examination.checkpoints.take(note, _member(name))
        if self._bundle.witnessed is not None:
            self._examination.checkpoints.take(self._bundle.witnessed, _WITNESSED)

    def _walk(self) -> None:
        try:
            walk(self._bundle.lines(), self._signed, self._examination.visit)
        except ChainBroken as broken:
            raise Refuted(broken.problem, broken.seq) from None
        self._checks.append("every entry is canonical, in order, and bears the hash of the one before")
        self._checks.append("the Merkle root of the entries is the signed one")

    def _judge_keys(self) -> None:
        """Which keys speak for the log, and whether everything that is held bears the signature of one."""
        keys, checkpoints = self._examination.keys, self._examination.checkpoints
        followers = keys.followers(self._reach)
        self._judge_signer(followers)
        self._checks += told(followers)
        known = [self._verifier, *(key for key, _ in followers), *keys.predecessors()]
        self._checks += checkpoints.judge(known)

    def _judge_signer(self, followers: Sequence[tuple[NoteVerifier, Change]]) -> None:
        """The newest key must have signed the checkpoint: an older one alone may be in a thief's hands."""
        newest = followers[-1][0] if followers else self._verifier
        is_signed = opens(newest, self._bundle.checkpoint)
        if self._doubt is not None and not is_signed:
            raise Refuted(f"the checkpoint: {self._doubt}; no announcement leads to the key that signed it")
        if not is_signed:
            self._signed_by = None
            raise Refuted(
                f"the checkpoint: the entry {followers[-1][1].seq} announces that {key_name(newest.vkey)} took over, "
                "which did not sign it: the older key that did may have been stolen"
            )
        if self._doubt is not None:
            self._doubt = None
            self._accept(newest)
            return
        self.remarks += [
            f"the entry {change.seq} announces that {key.vkey} follows the key that you gave: "
            "keep it, for later bundles"
            for key, change in followers
        ]

    def _reach(self, key: NoteVerifier) -> int:
        """How many entries the largest beginning of the log has that this key signed."""
        beginnings = [one for one in self._examination.checkpoints.held if one.is_beginning]
        notes = [(self._signed.size, self._bundle.checkpoint)]
        notes += [(one.tree.size, one.note) for one in beginnings]
        return max((size for size, note in notes if opens(key, note)), default=0)

    def _judge_witnesses(self, quorum: Quorum) -> None:
        candidates = [("the checkpoint", self._bundle.checkpoint, self._signed)]
        candidates += [
            (held.what, held.note, held.tree)
            for held in self._examination.checkpoints.held
            if held.what == _WITNESSED
        ]
        self._witnessed = quorum.judge(candidates)
        self._checks += quorum.findings(self._witnessed)
        if self._witnessed.size < self._signed.size:
            self.remarks.append(
                f"the entries from seq {self._witnessed.size} on are covered by no cosignature yet"
            )

    def _judge_receipts(self, keys: ReceiptKeys | None, now: datetime) -> None:
        self._findings = self._examination.judge_receipts(now, is_checked=keys is not None)
        for finding in self._findings:
            if finding.verdict is ReceiptVerdict.OVERDUE_MISSING:
                raise Refuted(
                    f"the entry {finding.entry_id} was promised and is not in the log, though its time is up "
                    "(if the bundle is old, take a new one)"
                )

    def _accept(self, key: NoteVerifier) -> None:
        self._signed_by = key.vkey
        self._checks.append(
            f"the checkpoint of {self._signed.size} entries is signed by {key_name(key.vkey)}"
        )

    def _verdict(self, refuted: Refuted | None) -> Verdict:
        return Verdict(
            ok=refuted is None,
            checks=tuple(self._checks),
            first_bad_seq=refuted.seq if refuted else None,
            problem=refuted.problem if refuted else None,
            origin=self._signed.origin,
            size=self._signed.size,
            root=self._signed.root.hex(),
            receipts=tuple(self._findings),
            remarks=tuple(self.remarks),
            signed_by=self._signed_by,
            witnessed=self._witnessed,
        )


def _member(name: str) -> str:
    return f"the bundle's checkpoint {name}"
