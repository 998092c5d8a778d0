"""Checkpoints that somebody holds against a log: each tree must be the beginning of it, signed by a key of it.

An older checkpoint may be signed by a key that was in force then. Which keys were, only the log's own entries tell, so
that such a checkpoint is compared while the entries pass, and judged when all of them have.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

from audit.checkpoint import NoteVerifier, SignedTree, parse_checkpoint, parse_note
from audit.errors import AuditError, BadNote, BadSignature, Refuted
from audit.merkle import EMPTY_ROOT, CompactRange

OLDER = "the older checkpoint"
ELSEWHERE = (
    "which ended in a restore and which this log succeeds: check it against a bundle of that log, "
    "`fl-gateway audit verify BUNDLE_OF_THAT_LOG`"
)


@dataclass(slots=True)
class Held:
    """One checkpoint, and what the log's own root at its size turned out to be."""

    what: str
    note: str
    tree: SignedTree
    doubt: AuditError | None
    """Why the given key does not vouch for it; another key of the log may."""
    root: bytes | None = None

    @property
    def is_beginning(self) -> bool:
        """Whether the log begins with its tree; False as long as too few entries passed."""
        return self.root == self.tree.root


@dataclass(slots=True)
class HeldCheckpoints:
    """All checkpoints that this log must continue."""

    signed: SignedTree
    verifier: NoteVerifier
    held: list[Held] = field(default_factory=list)
    strangers: list[SignedTree] = field(default_factory=list)
    _by_size: dict[int, list[Held]] = field(default_factory=dict)

    def take(self, note: str, what: str = OLDER) -> None:
        """A checkpoint that is to be the beginning of this log; raises Refuted if it cannot be."""
        if stranger := _stranger(self.verifier, note):
            self.strangers.append(stranger)  # judged when the first entry has said which log was before
            return
        held = self._read(note, what)
        if held.doubt is None:
            self._insist_fits(held)
        if held.tree.size == 0:
            held.root = EMPTY_ROOT
        self.held.append(held)
        self._by_size.setdefault(held.tree.size, []).append(held)

    def pass_by(self, tree: CompactRange) -> None:
        """See the tree of the log's first entries; raises Refuted where a genuine checkpoint has another one."""
        for held in self._by_size.get(tree.size, ()):
            held.root = tree.root()
            if held.doubt is None:
                _insist_beginning(held)

    def judge(self, keys: Sequence[NoteVerifier]) -> list[str]:
        """What was found, now that every entry passed and the log's keys are known; raises Refuted."""
        for held in self.held:
            if held.doubt is not None and not any(opens(key, held.note) for key in keys):
                raise Refuted(f"{held.what}: {held.doubt}")
            self._insist_fits(held)
            _insist_beginning(held)
        return [f"the first {held.tree.size} entries are those of {held.what}" for held in self.held]

    def judge_strangers(self, succeeds: SignedTree | None) -> None:
        """Checkpoints of another log: whether this one succeeds it, and ended it where they say."""
        for old in self.strangers:
            if succeeds is None or succeeds.origin != old.origin:
                raise Refuted(f"{OLDER} is of the log {old.origin!r}, not of this one")
            if old.size > succeeds.size or (old.size == succeeds.size and old.root != succeeds.root):
                raise Refuted(
                    f"the first entry says that {old.origin!r} ended at {succeeds.size} entries, but the older "
                    f"checkpoint of that log covers {old.size}, or has another root: entries were concealed",
                    0,
                )
            raise Refuted(
                f"{OLDER} of {old.size} entries is of the log {old.origin!r}, {ELSEWHERE}"
                " --since that checkpoint; its end is the tree in this log's first entry"
            )

    def _read(self, note: str, what: str) -> Held:
        try:
            tree = parse_checkpoint(parse_note(note).text)
            if tree.origin != self.verifier.name:
                raise BadNote("the checkpoint speaks of another log than its key")
            return Held(what, note, tree, _doubt(self.verifier, note))
        except AuditError as error:
            raise Refuted(f"{what}: {error}") from None

    def _insist_fits(self, held: Held) -> None:
        if held.tree.size > self.signed.size:
            raise Refuted(
                f"{held.what} covers {held.tree.size} entries, this bundle's only {self.signed.size}: "
                "the log was cut, or restored from a backup",
                self.signed.size,
            )
        if held.tree.size == 0 and held.tree.root != EMPTY_ROOT:
            raise Refuted(f"{held.what} speaks of an empty log with a root of its own")


def opens(key: NoteVerifier, note: str) -> bool:
    """Whether a key signed a checkpoint of its log."""
    try:
        key.open(note)
    except AuditError:
        return False
    return True


def _insist_beginning(held: Held) -> None:
    if not held.is_beginning:
        raise Refuted(
            f"the first {held.tree.size} entries are not those of {held.what}: "
            "the log was rewritten at this entry or before it",
            held.tree.size - 1,
        )


def _doubt(verifier: NoteVerifier, note: str) -> BadSignature | None:
    try:
        verifier.verify(note)
    except BadSignature as error:
        return error
    return None


def _stranger(verifier: NoteVerifier, note: str) -> SignedTree | None:
    """The tree of a checkpoint that this key signed for a log of another name."""
    try:
        origin = parse_checkpoint(parse_note(note).text).origin
        return None if origin == verifier.name else verifier.named(origin).open(note)
    except AuditError:
        return None
