"""What the gateway refuses and why: one class a reason, each with a stable code that `problems.py` renders."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any


class GatewayError(Exception):
    """A refusal with an HTTP status, a stable upper-case code, a title, and what to do (`detail`).

    `detail` and `facts` are made from declared facts only: never a token, a key, a body or a name (RULES 30).
    """

    status = 500
    code = "INTERNAL_ERROR"
    title = "The gateway failed"
    is_about_credentials = False
    """Whether it tells how credentials came: then it is audited whatever its status is."""

    def __init__(self, detail: str = "", **facts: Any) -> None:
        super().__init__(detail or self.title)
        self.detail = detail or self.title
        self.facts = facts

    @property
    def headers(self) -> Mapping[str, str]:
        """Headers that the answer must carry beside the problem document."""
        return {}


class ConfigError(GatewayError):
    """A setting is missing or wrong."""

    code, title = "CONFIG_INVALID", "A setting is wrong"


class BadRequest(GatewayError):
    """The request cannot be read at all."""

    status, code, title = 400, "BAD_REQUEST", "The request cannot be read"


class ChecksumMissing(BadRequest):
    """An upload came without its checksum."""

    code, title = "CHECKSUM_MISSING", "The checksum header is missing"


class Unauthorized(GatewayError):
    """No token, or one that is not good (RFC 6750, section 3.1)."""

    status, code, title = 401, "UNAUTHORIZED", "A valid bearer token is needed"

    def __init__(self, detail: str = "", *, error: str | None = None, **facts: Any) -> None:
        super().__init__(detail, **facts)
        self.error = error

    @property
    def headers(self) -> Mapping[str, str]:
        """The challenge; without credentials it carries no error code."""
        said = f', error="{self.error}"' if self.error else ""
        return {"WWW-Authenticate": f'Bearer realm="fl-gateway"{said}'}


class ProcessingRestricted(GatewayError):
    """The person's data is kept and not used: Art. 18 or 21 forbids to take more."""

    status, code, title = 403, "PROCESSING_RESTRICTED", "The person's data may not be processed now"

    def __init__(self) -> None:
        super().__init__(
            "A restriction or an objection stands: nothing of this person is processed until it is lifted"
        )


class InsufficientScope(GatewayError):
    """The token is good, but not for this."""

    status, code, title = 403, "INSUFFICIENT_SCOPE", "The token lacks the scope for this"

    def __init__(self, detail: str = "", *, scope: str, **facts: Any) -> None:
        super().__init__(detail or f"A token with the scope {scope} is needed", **facts)
        self.scope = scope

    @property
    def headers(self) -> Mapping[str, str]:
        """The challenge with the scope needed (RFC 6750, section 3.1)."""
        return {
            "WWW-Authenticate": f'Bearer realm="fl-gateway", error="insufficient_scope", scope="{self.scope}"'
        }


class NotFound(GatewayError):
    """There is no such object, or it is another client's."""

    status, code, title = 404, "NOT_FOUND", "There is no such object"


class NoOpenRound(NotFound):
    """No round takes updates now."""

    code, title = "NO_OPEN_ROUND", "No round is open"


class Conflict(GatewayError):
    """The object is not in a state for this."""

    status, code, title = 409, "CONFLICT", "The object is not in a state for this"


class RoundExpired(Conflict):
    """The round takes no more updates."""

    code, title = "ROUND_EXPIRED", "The round takes no more updates"


class RoundPaused(Conflict):
    """The operator halted the round's intake for a while."""

    code, title = "ROUND_PAUSED", "The round is paused: send the update again later"


class NotInvited(Conflict):
    """The round chose its clients, and this one is not among them."""

    code, title = "NOT_INVITED", "The round did not choose this client"


class RoundOpen(Conflict):
    """The lineage has an open round already."""

    code, title = "ROUND_OPEN", "The lineage has an open round"


class DuplicateUpdate(Conflict):
    """The client has an update in this round already."""

    code, title = "DUPLICATE_UPDATE", "This client has sent its update for this round"


class BudgetExceeded(Conflict):
    """The lineage's privacy budget does not allow the release."""

    code, title = "PRIVACY_BUDGET_EXCEEDED", "The privacy budget does not allow this round"


class PayloadTooLarge(GatewayError):
    """The body is larger than allowed."""

    status, code, title = 413, "PAYLOAD_TOO_LARGE", "The body is too large"


class UnsupportedMediaType(GatewayError):
    """The body is not of a kind that the route takes."""

    status, code, title = 415, "UNSUPPORTED_MEDIA_TYPE", "The body is of the wrong media type"


class RangeNotSatisfiable(GatewayError):
    """The byte range lies outside the object."""

    status, code, title = 416, "RANGE_NOT_SATISFIABLE", "The byte range lies outside the object"


class ValidationFailed(GatewayError):
    """A member of the body or a parameter has a bad value."""

    status, code, title = 422, "VALIDATION_FAILED", "A value is wrong"

    def __init__(self, errors: Sequence[Mapping[str, str]], detail: str = "") -> None:
        said = detail or "; ".join(f"{e['pointer'] or '/'}: {e['detail']}" for e in errors[:3])
        super().__init__(said)
        self.errors = list(errors)


class ChecksumMismatch(GatewayError):
    """The body is not what its checksum says."""

    status, code, title = 422, "CHECKSUM_MISMATCH", "The body does not have the stated checksum"


class InvalidModelFormat(GatewayError):
    """The body is no update of the round's schema."""

    status, code, title = 422, "INVALID_MODEL_FORMAT", "The body is not in the model's format"


class SignatureInvalid(GatewayError):
    """The signature is missing or wrong."""

    status, code, title = 422, "SIGNATURE_INVALID", "The client's signature is missing or wrong"


class IdempotencyKeyReused(GatewayError):
    """The same key came with another body."""

    status, code, title = 422, "IDEMPOTENCY_KEY_REUSED", "The idempotency key was used with another body"


class RateLimited(GatewayError):
    """Too many requests in the window."""

    status, code, title = 429, "RATE_LIMITED", "Too many requests"

    def __init__(self, detail: str = "", *, retry_after_s: int, **facts: Any) -> None:
        super().__init__(detail, **facts)
        self.retry_after_s = retry_after_s

    @property
    def headers(self) -> Mapping[str, str]:
        """When to come again."""
        return {"Retry-After": str(self.retry_after_s)}


class Busy(GatewayError):
    """The gateway cannot take this now."""

    status, code, title = 503, "INSUFFICIENT_RESOURCES", "The gateway is busy: try again later"

    @property
    def headers(self) -> Mapping[str, str]:
        """When to come again."""
        return {"Retry-After": "2"}


class BlobsAway(Busy, OSError):
    """The blob store does not answer, or refuses the gateway: what needs it waits.

    `reason` says to the operator what to mend; the answer to a client does not repeat it. `is_lasting` tells a
    store that will never do what it was asked for, or not for this key.
    """

    title = "The blob store does not answer: try again later"

    def __init__(self, reason: str = "", *, is_lasting: bool = False) -> None:
        super().__init__()
        self.reason, self.is_lasting = reason, is_lasting

    def __str__(self) -> str:
        return self.reason or self.title

    @property
    def headers(self) -> Mapping[str, str]:
        """When to come again."""
        return {"Retry-After": "5"}


class IntakeStopped(Busy):
    """The operator stopped all intake."""

    code, title = "INTAKE_STOPPED", "The operator has stopped all intake"

    @property
    def headers(self) -> Mapping[str, str]:
        """When to come again: it takes a person to open it."""
        return {"Retry-After": "60"}


class LogBehind(Busy):
    """The audit log is too far behind to promise a place in it."""

    code, title = "LOG_BEHIND", "The audit log is behind: writes wait"


class StorageFull(GatewayError):
    """The disk is full."""

    status, code, title = 507, "INSUFFICIENT_STORAGE", "There is no room to keep the body"


class BlobCorrupt(GatewayError):
    """A blob is not what was written."""

    code, title = "BLOB_CORRUPT", "A stored blob is damaged"


class Unsupported(GatewayError):
    """A form that the wire allows and this version does not carry out yet."""

    status, code, title = 422, "UNSUPPORTED", "This form is not carried out by this version"
