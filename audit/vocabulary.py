"""The words of the event catalogue: event types, outcomes, severities, and the form of an event's declaration."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from enum import IntEnum, StrEnum
from types import MappingProxyType


class EventType(StrEnum):
    """The dotted names that stand in the log."""

    SERVER_STARTED = "server.started"
    SERVER_STOPPED = "server.stopped"
    CONFIG_CHANGED = "config.changed"
    CLIENT_ADDED = "client.added"
    CLIENT_REGISTERED = "client.registered"
    CLIENT_SUSPENDED = "client.suspended"
    CLIENT_RESUMED = "client.resumed"
    CLIENT_REVOKED = "client.revoked"
    CLIENT_CHANGED = "client.changed"
    USER_ADDED = "user.added"
    USER_CHANGED = "user.changed"
    USER_SIGNED_IN = "user.signed_in"
    USER_SIGNED_OUT = "user.signed_out"
    USER_REFUSED = "user.refused"
    ACCESS_GRANTED = "access.granted"
    TOKEN_ISSUED = "token.issued"  # noqa: S105 - an event's name
    TOKEN_REFUSED = "token.refused"  # noqa: S105
    TOKEN_REVOKED = "token.revoked"  # noqa: S105
    TOKEN_REUSED = "token.reused"  # noqa: S105
    ACCESS_REFUSED = "access.refused"
    MODEL_PUBLISHED = "model.published"
    MODEL_PROMOTED = "model.promoted"
    MODEL_DOWNLOADED = "model.downloaded"
    ROUND_CREATED = "round.created"
    ROUND_SELECTED = "round.selected"
    ROUND_PAUSED = "round.paused"
    ROUND_RESUMED = "round.resumed"
    ROUND_EXTENDED = "round.extended"
    ROUND_CLOSED = "round.closed"
    ROUND_FROZEN = "round.frozen"
    ROUND_COMPLETED = "round.completed"
    ROUND_FAILED = "round.failed"
    INTAKE_STOPPED = "intake.stopped"
    INTAKE_RESUMED = "intake.resumed"
    UPDATE_ACCEPTED = "update.accepted"
    UPDATE_REFUSED = "update.refused"
    PRIVACY_REQUESTED = "privacy.requested"
    PRIVACY_MOVED = "privacy.moved"
    PRIVACY_EXPORTED = "privacy.exported"
    PRIVACY_ERASED = "privacy.erased"
    PRIVACY_TOLD = "privacy.told"
    PRIVACY_KEY_GIVEN = "privacy.key_given"
    PRIVACY_REVEALED = "privacy.revealed"
    PRIVACY_LIFTED = "privacy.lifted"
    PRIVACY_SPENT = "privacy.spent"
    PRIVACY_ALARMED = "privacy.alarmed"
    PRIVACY_STATED = "privacy.stated"
    PRIVACY_LINKED = "privacy.linked"
    PRIVACY_FETCHED = "privacy.fetched"
    PRIVACY_EXPIRED = "privacy.expired"
    HOLD_PLACED = "hold.placed"
    HOLD_REVIEWED = "hold.reviewed"
    HOLD_OVERDUE = "hold.overdue"
    HOLD_RELEASE_ASKED = "hold.release_asked"
    HOLD_LIFTED = "hold.lifted"
    RETENTION_APPLIED = "retention.applied"
    AUDIT_EXPORTED = "audit.exported"
    AUDIT_REVEALED = "audit.revealed"
    AUDIT_REBUILT = "audit.rebuilt"
    AUDIT_TRIED = "audit.tried"
    KEYS_ROTATED = "keys.rotated"
    LOG_SUCCEEDED = "log.succeeded"
    BACKUP_CREATED = "backup.created"
    BACKUP_RESTORED = "backup.restored"
    CERTIFICATE_RENEWED = "certificate.renewed"
    CERTIFICATE_FAILED = "certificate.failed"
    SIEM_DOWN = "siem.down"
    SIEM_UP = "siem.up"
    SIEM_REFUSED = "siem.refused"
    SIEM_REPLAYED = "siem.replayed"
    NOTICE_FAILED = "notice.failed"
    WITNESS_REFUSED = "witness.refused"
    INTENT_ERASE = "intent.erase"
    INTENT_EXPORT = "intent.export"
    INTENT_CERTIFICATE = "intent.certificate"
    INTENT_MAIL = "intent.mail"

    @property
    def is_intent(self) -> bool:
        """Whether it announces or concludes an effect outside the database (RULES 2)."""
        return self.value.startswith("intent.")


class Retention(StrEnum):
    """The two retention classes of personal fields (RULES 15, 19)."""

    PARTICIPATION = "participation"
    ACCOUNTABILITY = "accountability"


class Outcome(StrEnum):
    """How the action ended."""

    SUCCESS = "success"
    DENIED = "denied"
    FAILURE = "failure"


class Phase(StrEnum):
    """Where an intent stands: its detail `phase` (RULES 2)."""

    INTENDED = "intended"
    DONE = "done"
    FAILED = "failed"


class Severity(IntEnum):
    """How soon somebody must look, as OCSF counts it (`severity_id`)."""

    INFORMATIONAL = 1
    LOW = 2
    MEDIUM = 3
    HIGH = 4
    CRITICAL = 5


@dataclass(frozen=True, slots=True)
class Ocsf:
    """The class and the activity of an event in the Open Cybersecurity Schema Framework (1.3 and later)."""

    class_uid: int
    activity_id: int


class Kind(StrEnum):
    """What a detail's value is; in JSON a time (RFC 3339) and a decimal are texts."""

    TEXT = "text"
    INTEGER = "integer"
    FLAG = "flag"
    TIME = "time"
    DECIMAL = "decimal"
    TEXTS = "texts"


@dataclass(frozen=True, slots=True)
class Field:
    """One detail of an event type."""

    kind: Kind
    is_clear: bool
    """Whether it names nobody and may stand in clear; else it is always sealed."""
    is_required: bool


@dataclass(frozen=True, slots=True)
class Event:
    """The declaration of one event type: what it says, how urgent it is, and each detail that it may have."""

    meaning: str
    severity: Severity
    ocsf: Ocsf
    retention: Retention
    fields: Mapping[str, Field]
    outcomes: tuple[Outcome, ...] = (Outcome.SUCCESS,)
    """How it can end; the first is the usual one."""
    is_reserved: bool = False
    """Whether no part of this version writes it yet."""

    @property
    def impersonal(self) -> frozenset[str]:
        """The details that may stand in clear."""
        return frozenset(name for name, field in self.fields.items() if field.is_clear)


def details(clear: str = "", sealed: str = "") -> Mapping[str, Field]:
    """The details of an event type, from words like `reason`, `status:integer`, `deadline?:time`.

    A `?` marks one that is not in every entry; without a kind it is a text.
    """
    in_clear = [_field(word, is_clear=True) for word in clear.split()]
    hidden = [_field(word, is_clear=False) for word in sealed.split()]
    return MappingProxyType(dict([*in_clear, *hidden]))


def _field(word: str, *, is_clear: bool) -> tuple[str, Field]:
    name, _, kind = word.partition(":")
    field = Field(Kind(kind or Kind.TEXT), is_clear=is_clear, is_required=not name.endswith("?"))
    return name.removesuffix("?"), field
