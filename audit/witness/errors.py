"""Why a witness does not cosign, each reason with its HTTP status (C2SP tlog-witness); and why it does not start."""

from __future__ import annotations

from audit.errors import AuditError


class WitnessError(AuditError):
    """What this package raises; the text goes to whoever asked, and names nothing that they did not send."""

    code = "WITNESS_ERROR"
    status = 500


class BadSubmission(WitnessError):
    """The request is none that a witness takes."""

    code, status = "BAD_SUBMISSION", 400


class NotSigned(WitnessError):
    """The checkpoint bears no good signature of a key that this log is known by."""

    code, status = "NOT_SIGNED", 403


class UnknownLog(WitnessError):
    """The checkpoint is of a log that this witness was not told to follow (`--log`)."""

    code, status = "UNKNOWN_LOG", 404


class SizeConflict(WitnessError):
    """The request does not begin at the tree that was cosigned last; the answer's body is that tree's size."""

    code, status = "SIZE_CONFLICT", 409

    def __init__(self, size: int) -> None:
        super().__init__(f"the last tree that was cosigned has {size} entries")
        self.size = size


class RootConflict(SizeConflict):
    """The log signed two trees of one size: a fork, and the two notes prove it."""

    code = "ROOT_CONFLICT"


class NotContinued(WitnessError):
    """The proof does not show that the new tree continues the one that was cosigned last."""

    code, status = "NOT_CONTINUED", 422


class MemoryUnusable(WitnessError):
    """The memory cannot be read or written now: nothing is cosigned, ask again later."""

    code, status = "MEMORY_UNUSABLE", 503


class MemoryLost(WitnessError):
    """There is a key, and not the memory of what it cosigned: it might cosign a fork of that."""

    code = "MEMORY_LOST"

    def __init__(self) -> None:
        super().__init__(
            "the state has a key but no memory (witness.db) of what it cosigned: put that file back as it was, "
            "or begin anew with another folder and tell everybody the new key"
        )


class WrongIdentity(WitnessError):
    """The name or the key file is not what it should be."""

    code = "WRONG_IDENTITY"
