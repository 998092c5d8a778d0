"""The witness's judgement: it cosigns a tree that continues the last one it cosigned, and nothing else."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from datetime import datetime

from audit.checkpoint import NoteVerifier, SignedTree, parse_checkpoint, parse_note
from audit.cosignature import CosignatureSigner
from audit.errors import BadNote, BadProof, BadSignature
from audit.merkle import verify_consistency
from audit.witness.errors import (
    BadSubmission,
    NotContinued,
    NotSigned,
    RootConflict,
    SizeConflict,
    UnknownLog,
)
from audit.witness.memory import Memory
from audit.witness.submission import Submission, parse_submission


class Witness:
    """Follows some logs, each by the keys that it signs with.

    Args:
        signer: this witness's own key.
        logs: the keys of the logs; a key's name is the log's origin, and several may be of one log.
        memory: what was cosigned before.
        clock: the time of cosignatures.
    """

    def __init__(
        self,
        signer: CosignatureSigner,
        logs: Sequence[NoteVerifier],
        memory: Memory,
        clock: Callable[[], datetime],
    ) -> None:
        self._signer = signer
        self._logs = _by_origin(logs)
        self._memory = memory
        self._clock = clock

    def add_checkpoint(self, body: bytes) -> str:
        """The cosignature line for a request's checkpoint, once it is remembered; raises WitnessError.

        What this log's key signed and what does not continue the last tree is kept as evidence.
        """
        submission = parse_submission(body)
        text, tree = self._signed(submission.note)
        if submission.old > tree.size:
            raise BadSubmission("the old size is larger than the checkpoint's")
        known = self._memory.last(tree.origin)
        try:
            _insist_continued(known, tree, submission)
        except (RootConflict, NotContinued) as refusal:
            self._memory.refuse(tree, submission.note, refusal.code, self._clock())
            raise
        at = self._memory.advance(known, tree, submission.note, self._clock())
        return self._signer.cosign(text, at)

    def _signed(self, note: str) -> tuple[str, SignedTree]:
        """The text and the tree of a checkpoint that a known log signed; unknown signatures do not matter."""
        try:
            text = parse_note(note).text
            tree = parse_checkpoint(text)
        except BadNote as error:
            raise BadSubmission(f"the checkpoint is malformed: {error}") from None
        keys = self._logs.get(tree.origin)
        if keys is None:
            raise UnknownLog("this witness does not follow that log")
        if not any(_has_signed(key, note) for key in keys):
            raise NotSigned("the checkpoint bears no good signature of a key that this log is known by")
        return text, tree


def _insist_continued(known: SignedTree, tree: SignedTree, submission: Submission) -> None:
    if submission.old != known.size:
        raise SizeConflict(known.size)
    if tree.size == known.size > 0 and tree.root != known.root:
        raise RootConflict(known.size)
    try:
        verify_consistency(known.size, tree.size, known.root, tree.root, submission.proof)
    except BadProof as error:
        raise NotContinued(str(error)) from None


def _has_signed(key: NoteVerifier, note: str) -> bool:
    try:
        key.verify(note)
    except BadSignature:
        return False
    return True


def _by_origin(logs: Sequence[NoteVerifier]) -> Mapping[str, tuple[NoteVerifier, ...]]:
    return {log.name: tuple(key for key in logs if key.name == log.name) for log in logs}
