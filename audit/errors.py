"""Everything that can be wrong with the log, each with a stable code and a sentence that says what to do."""

from __future__ import annotations


class AuditError(Exception):
    """What this package raises; `code` is stable, the message is for people and names no person."""

    code = "AUDIT_ERROR"


class NotCanonical(AuditError):
    """A value or text that is not the restricted canonical JSON of the log (RFC 8785)."""

    code = "NOT_CANONICAL"


class BadEntry(AuditError):
    """Canonical JSON that is not an audit entry."""

    code = "BAD_ENTRY"


class BadDraft(AuditError):
    """An entry that must not be written: its event type forbids what it says."""

    code = "BAD_DRAFT"


class EntryTooLong(BadDraft):
    """An entry that stays above 65,535 bytes after every detail was cut."""

    code = "ENTRY_TOO_LONG"


class KeyDestroyed(AuditError):
    """A sealed value whose key is gone: the person was erased, and nobody can read it any more."""

    code = "KEY_DESTROYED"


class BadNote(AuditError):
    """A text that is not a C2SP signed note, or a note that is not a checkpoint of this log."""

    code = "BAD_NOTE"


class BadSignature(BadNote):
    """A note that the trusted key did not sign."""

    code = "BAD_SIGNATURE"


class BadKey(AuditError):
    """A text that is not a note verifier key (`name+hash+base64`)."""

    code = "BAD_KEY"


class BadProof(AuditError):
    """A Merkle proof that is malformed or does not lead to the signed root."""

    code = "BAD_PROOF"


class BadReceipt(AuditError):
    """A receipt that is malformed or that the gateway did not sign."""

    code = "BAD_RECEIPT"


class BadBundle(AuditError):
    """A file that is not an audit bundle."""

    code = "BAD_BUNDLE"


class Refuted(AuditError):
    """A bundle does not verify; `seq` is the first bad place, if one can be named."""

    code = "REFUTED"

    def __init__(self, problem: str, seq: int | None = None) -> None:
        super().__init__(problem)
        self.problem = problem
        self.seq = seq


class NoCheckpoint(AuditError):
    """The log has no signed checkpoint yet: run the sequencer first."""

    code = "NO_CHECKPOINT"


class StateConflict(AuditError):
    """The signer's memory is not what its caller thought: another sequencer was faster."""

    code = "STATE_CONFLICT"


class LogShrunk(AuditError):
    """The log holds fewer entries than were signed: it was cut or restored from an old backup."""

    code = "LOG_SHRUNK"

    def __init__(self, size: int, signed_size: int) -> None:
        super().__init__(
            f"the log holds {size} entries, but a tree of {signed_size} was signed: nothing is signed "
            "any more. Restore the missing entries from a bundle, or let the log end (docs/backup.md)."
        )
        self.size = size
        self.signed_size = signed_size


class LogForked(AuditError):
    """The log's first entries are not those that were signed: it was rewritten."""

    code = "LOG_FORKED"

    def __init__(self, signed_size: int) -> None:
        super().__init__(
            f"the first {signed_size} entries do not give the root that was signed for them: nothing is "
            "signed any more. Verify a bundle against the last good checkpoint to find the first bad entry."
        )
        self.signed_size = signed_size


class NotSucceeded(AuditError):
    """The signer's memory says that this log succeeds another one, and its first entry does not say so."""

    code = "LOG_NOT_SUCCEEDED"

    def __init__(self, old_origin: str) -> None:
        super().__init__(
            f"the state says that this log succeeds the log {old_origin!r}, but its first entry is no "
            "log.succeeded of that: nothing is signed. Restore the backup again (docs/backup.md)."
        )
        self.old_origin = old_origin


class OriginChanged(AuditError):
    """The signer's memory belongs to a log of another name."""

    code = "ORIGIN_CHANGED"

    def __init__(self, remembered: str, configured: str) -> None:
        super().__init__(
            f"the state remembers the log {remembered!r}, the configuration names {configured!r}: set the "
            "old name again, or open a new origin (docs/audit-log.md)."
        )
        self.remembered = remembered
        self.configured = configured


class BadPending(AuditError):
    """A staged entry that cannot be sequenced as it is."""

    code = "BAD_PENDING"

    def __init__(self, entry_id: str, why: str) -> None:
        super().__init__(f"the staged entry {entry_id} cannot join the log: {why}")
        self.entry_id = entry_id


class TilesDamaged(AuditError):
    """The stored tree hashes are incomplete; the leaves may well be right."""

    code = "TILES_DAMAGED"

    def __init__(self, level: int, tile: int) -> None:
        super().__init__(
            f"the stored tree hashes (level {level}, tile {tile}) are incomplete: run `fl-gateway audit rebuild`, "
            "which makes them again from the entries and changes none."
        )
        self.level = level
        self.tile = tile
