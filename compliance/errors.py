"""What can go wrong in compliance: every error has a stable code, its facts, and says what to do."""

from __future__ import annotations


class ComplianceError(Exception):
    """The base of every error of this package."""

    code = "COMPLIANCE_ERROR"


class BadMasterKey(ComplianceError):
    """The master key does not fit the key store: another one wrapped its rows, or it has a wrong length."""

    code = "BAD_MASTER_KEY"


class KeyMissing(ComplianceError):
    """No such key is in the key store, and none may be made in its place."""

    code = "KEY_MISSING"


class SubjectErased(ComplianceError):
    """The subject was erased, or is being erased: no key is ever made for it again (RULES 18)."""

    code = "SUBJECT_ERASED"

    def __init__(self, subject: str) -> None:
        super().__init__("the subject was erased: nothing more can be sealed for it")
        self.subject = subject


class SubjectErasing(ComplianceError):
    """A transaction would seal data under subjects that an erasure has marked; it must not commit."""

    code = "SUBJECT_ERASING"

    def __init__(self, subjects: tuple[str, ...]) -> None:
        super().__init__("an erasure of the subject has begun: nothing may be written for it")
        self.subjects = subjects


class UnknownSubject(ComplianceError):
    """No subject has this id."""

    code = "UNKNOWN_SUBJECT"

    def __init__(self, subjects: tuple[str, ...]) -> None:
        super().__init__("no such subject: register it first, or check the id")
        self.subjects = subjects


class NeverErasable(ComplianceError):
    """`system` and `unproven` are no persons and cannot be erased."""

    code = "NEVER_ERASABLE"


class CannotOpen(ComplianceError):
    """A sealed value does not open with its own key: wrong place, or changed since it was sealed."""

    code = "CANNOT_OPEN"


class SeedGone(ComplianceError):
    """The noise seed of a round is not in the key store any more: the round fails, its spend stays."""

    code = "SEED_GONE"

    def __init__(self, round_id: str) -> None:
        super().__init__("the round's noise seed is gone: the round has to fail")
        self.round_id = round_id


class UnknownRequest(ComplianceError):
    """No privacy request has this id."""

    code = "UNKNOWN_REQUEST"

    def __init__(self, request_id: str) -> None:
        super().__init__("no privacy request has this id")
        self.request_id = request_id


class UnknownHold(ComplianceError):
    """No legal hold has this id."""

    code = "UNKNOWN_HOLD"

    def __init__(self, hold_id: str) -> None:
        super().__init__("no legal hold has this id")
        self.hold_id = hold_id


class UnknownClient(ComplianceError):
    """No client has this id, or its person was erased."""

    code = "UNKNOWN_CLIENT"

    def __init__(self, client_id: str) -> None:
        super().__init__("no client has this id")
        self.client_id = client_id


class ApprovalNeedsAnother(ComplianceError):
    """Who asked for this may not approve it: a second person has to."""

    code = "APPROVAL_NEEDS_ANOTHER"


class NoPackage(ComplianceError):
    """The request has no export package: it is not written yet, it expired, or an erasure removed it."""

    code = "NO_PACKAGE"


class UnsupportedRequest(ComplianceError):
    """A kind of privacy request that this version does not carry out."""

    code = "REQUEST_TYPE_UNSUPPORTED"

    def __init__(self, wanted: str, supported: tuple[str, ...]) -> None:
        super().__init__(
            f"this version carries out {' and '.join(supported)} requests; answer others by hand"
        )
        self.wanted = wanted
        self.supported = supported


class MoveNotAllowed(ComplianceError):
    """A privacy request cannot go from its state to the wanted one."""

    code = "MOVE_NOT_ALLOWED"

    def __init__(self, move: str, status: str) -> None:
        super().__init__(f"a request that is {status} cannot {move}")
        self.move = move
        self.status = status


class CaseChanged(ComplianceError):
    """Somebody else moved the request in the meantime: read it again."""

    code = "CASE_CHANGED"

    def __init__(self, request_id: str, version: int) -> None:
        super().__init__("the request was moved by somebody else: read it again, then repeat")
        self.request_id = request_id
        self.version = version


class NotNow(ComplianceError):
    """A place cannot erase yet, because an update is in a frozen cohort (RULES 5): the erasure is tried again."""

    code = "NOT_NOW"

    def __init__(self, reason: str = "an update is in a frozen cohort: its round must end first") -> None:
        super().__init__(reason)


class BadPackage(ComplianceError):
    """An export package does not hold what its signed manifest says."""

    code = "BAD_PACKAGE"

    def __init__(self, path: str, problem: str) -> None:
        super().__init__(f"{path}: {problem}")
        self.path = path
        self.problem = problem


class BadReceipt(ComplianceError):
    """An erasure receipt is not signed by the key it should be, or is none."""

    code = "BAD_RECEIPT"
