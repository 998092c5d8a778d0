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


class ReasonMissing(ComplianceError):
    """Personal fields of the log are revealed to who says why, in a few words."""

    code = "REASON_MISSING"

    def __init__(self, longest: int) -> None:
        super().__init__(f"say why you must know: 1 to {longest} characters")
        self.longest = longest


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


class BadHold(ComplianceError):
    """A legal hold needs a matter, places that there are, and a review that lies ahead."""

    code = "BAD_HOLD"

    def __init__(self, field: str, problem: str) -> None:
        super().__init__(f"{field}: {problem}")
        self.field = field
        self.problem = problem


class HoldEnded(ComplianceError):
    """The hold was lifted: place a new one if its grounds stand again."""

    code = "HOLD_ENDED"

    def __init__(self, hold_id: str) -> None:
        super().__init__("the hold was lifted: place a new one if its grounds stand again")
        self.hold_id = hold_id


class HoldChanged(ComplianceError):
    """Somebody else changed the hold in the meantime: read it again."""

    code = "HOLD_CHANGED"

    def __init__(self, hold_id: str, version: int) -> None:
        super().__init__("the hold was changed by somebody else: read it again, then repeat")
        self.hold_id = hold_id
        self.version = version


class ReleaseNotAsked(ComplianceError):
    """A hold ends by two people: one asks for it first, another agrees."""

    code = "RELEASE_NOT_ASKED"

    def __init__(self, hold_id: str) -> None:
        super().__init__("nobody has asked to end this hold: ask first, then let a second person agree")
        self.hold_id = hold_id


class BadSchedule(ComplianceError):
    """The schedule of retention contradicts itself, or what must be kept."""

    code = "BAD_SCHEDULE"

    def __init__(self, category: str, problem: str) -> None:
        super().__init__(f"{category or 'an empty name'} {problem}")
        self.category = category
        self.problem = problem


class NothingToLift(ComplianceError):
    """The request restricts nothing: it is none that does, was not carried out, or was lifted before."""

    code = "NOTHING_TO_LIFT"


class BadCorrection(ComplianceError):
    """A rectification names what cannot be put right, or what is not the person's."""

    code = "BAD_CORRECTION"


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


class BadRefusal(ComplianceError):
    """A refusal whose ground is not whole."""

    code = "BAD_REFUSAL"


class BadReceiptDay(ComplianceError):
    """A request cannot have come in at that time."""

    code = "BAD_RECEIPT_DAY"


class BadCalendar(ComplianceError):
    """The time zone or the holidays that the clock of requests counts by cannot be read."""

    code = "BAD_CALENDAR"


class CorrectionNeeded(ComplianceError):
    """A rectification says what is to be put right, and no other request does."""

    code = "CORRECTION_NEEDED"


class NoStatement(ComplianceError):
    """The request has no signed statement: it names a client or a subject, or was not carried out yet."""

    code = "NO_STATEMENT"


class NoCommitmentKey(ComplianceError):
    """There is no key to a receipt: the request is no erasure that has ended, or the key was handed over before."""

    code = "NO_COMMITMENT_KEY"

    def __init__(self, request_id: str) -> None:
        super().__init__(
            "there is no key to hand over: the erasure has not ended, or the key was given before"
        )
        self.request_id = request_id


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


class RecipientsNotTold(NotNow):
    """A SIEM that has copies does not know of the erasure yet (Art. 19): its receipt waits, for a day at most."""

    code = "RECIPIENTS_NOT_TOLD"

    def __init__(self) -> None:
        super().__init__(
            "a SIEM was not told of the erasure yet: the receipt waits for it, for a day at most"
        )


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
