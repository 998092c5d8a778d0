"""Every event type of the log: what it means, how long it is kept, and which details may stand in clear.

A detail that is not declared impersonal here is sealed under the actor's key (`audit.draft`), so that a
forgotten declaration hides a fact and never publishes a person.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum
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
    USER_ADDED = "user.added"
    TOKEN_ISSUED = "token.issued"  # noqa: S105 - an event's name
    TOKEN_REFUSED = "token.refused"  # noqa: S105
    TOKEN_REVOKED = "token.revoked"  # noqa: S105
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
    PRIVACY_SPENT = "privacy.spent"
    HOLD_PLACED = "hold.placed"
    HOLD_LIFTED = "hold.lifted"
    AUDIT_EXPORTED = "audit.exported"
    AUDIT_REVEALED = "audit.revealed"
    KEYS_ROTATED = "keys.rotated"
    LOG_SUCCEEDED = "log.succeeded"
    BACKUP_CREATED = "backup.created"
    BACKUP_RESTORED = "backup.restored"
    CERTIFICATE_RENEWED = "certificate.renewed"
    CERTIFICATE_FAILED = "certificate.failed"
    SIEM_DOWN = "siem.down"
    SIEM_UP = "siem.up"
    INTENT_KEY = "intent.key"
    INTENT_BLOB = "intent.blob"
    INTENT_ERASE = "intent.erase"
    INTENT_EXPORT = "intent.export"
    INTENT_CERTIFICATE = "intent.certificate"
    INTENT_MESSAGE = "intent.message"
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


@dataclass(frozen=True, slots=True)
class Event:
    """What one event type says, how long its personal fields are kept, and its details that name nobody."""

    impersonal: frozenset[str]
    retention: Retention
    meaning: str


# Facts that name nobody in any event: codes, counts, positions, sizes, and random ids.
_ANYWHERE = (
    "reason status method route scope count counts window_s first_at last_at case_id round_number model_id "
    "model_version policy_hash size_bytes version duration_ms attempts grant role"
)
_BUDGET = "epsilon epsilon_spent epsilon_if_cohort_known epsilon_budget delta"
_POLICY = (
    f"{_BUDGET} planned_clients min_clients deadline selection rule weights server_lr mechanism unit "
    "clip_norm noise_multiplier sampling_rate planned_records silo_norm adjacency base_version privacy"
)
_RELEASE = (
    "cohort_size cohort_mac accepted dropped num_updates result_version checksum sum_q2_bound sensitivity sigma "
    "metric threshold base_metric model_metric "
    "gamma divisor coordinates distance accumulator sampler_version policy spend_stays"
)
_CERTIFICATE = "domains serial fingerprint issuer not_before not_after days_left key_type use"
_INTENT = "phase intent_id kind target blobs rows keys use update_id sink domains"


def _event(meaning: str, retention: Retention, impersonal: str = "") -> Event:
    return Event(frozenset(f"{_ANYWHERE} {impersonal}".split()), retention, meaning)


def _staff(meaning: str, impersonal: str = "") -> Event:
    """Staff, the system itself, or a refusal: kept for accountability (RULES 19)."""
    return _event(meaning, Retention.ACCOUNTABILITY, impersonal)


def _taking_part(meaning: str, impersonal: str = "") -> Event:
    """What a participant did: goes when the participant is erased."""
    return _event(meaning, Retention.PARTICIPATION, impersonal)


EVENTS: Mapping[EventType, Event] = MappingProxyType(
    {
        EventType.SERVER_STARTED: _staff(
            "A server process began to serve.", "mode processes recovered commit database python"
        ),
        EventType.SERVER_STOPPED: _staff("A server process ended in order.", "mode uptime_s"),
        EventType.CONFIG_CHANGED: _staff("The settings differ from those of the last start.", "settings"),
        EventType.CLIENT_ADDED: _staff("An operator added a client account.", "auth token_format"),
        EventType.CLIENT_REGISTERED: _taking_part("A participant registered a device or silo.", "auth signs"),
        EventType.CLIENT_SUSPENDED: _staff("An operator suspended a client."),
        EventType.CLIENT_RESUMED: _staff("An operator let a suspended client in again."),
        EventType.CLIENT_REVOKED: _staff("A client's access was ended for good."),
        EventType.USER_ADDED: _staff("An operator added a person of the staff."),
        EventType.TOKEN_ISSUED: _taking_part("An access token was issued.", "auth token_format lifetime_s"),
        EventType.TOKEN_REFUSED: _staff("An access token was asked for and refused.", "auth"),
        EventType.TOKEN_REVOKED: _taking_part("An access token was revoked before its time."),
        EventType.ACCESS_REFUSED: _staff("A request was refused: who asked may not do this, or not now."),
        EventType.MODEL_PUBLISHED: _staff(
            "A model was published as the start of a lineage.", f"checksum tensors elements {_BUDGET}"
        ),
        EventType.MODEL_PROMOTED: _staff("A model version was declared fit for use.", "checksum"),
        EventType.MODEL_DOWNLOADED: _taking_part("A client fetched a model version.", "checksum"),
        EventType.ROUND_CREATED: _staff("A training round was opened.", f"{_POLICY} policy"),
        EventType.ROUND_SELECTED: _staff(
            "A round drew its clients; under Poisson sampling their number is not told.",
            "strategy eligible chosen reserves",
        ),
        EventType.ROUND_PAUSED: _staff("A round takes no updates until it is resumed."),
        EventType.ROUND_RESUMED: _staff("A paused round takes updates again.", "deadline paused_s"),
        EventType.ROUND_EXTENDED: _staff(
            "A round's deadline was put off.", "deadline accepted min_clients extensions_left"
        ),
        EventType.ROUND_CLOSED: _staff("A round takes no more updates.", "accepted"),
        EventType.ROUND_FROZEN: _staff(
            "The cohort, the policy and the reserved spend of a round were fixed.", f"{_POLICY} {_RELEASE}"
        ),
        EventType.ROUND_COMPLETED: _staff(
            "A round's aggregate was released as a new model version.", f"{_POLICY} {_RELEASE}"
        ),
        EventType.ROUND_FAILED: _staff("A round ended without a release.", f"{_POLICY} {_RELEASE} spend"),
        EventType.INTAKE_STOPPED: _staff("The operator stopped the intake of every round."),
        EventType.INTAKE_RESUMED: _staff("The operator opened the intake again."),
        EventType.UPDATE_ACCEPTED: _taking_part(
            "A client's update was checked and kept.", "update_id update_mac signed weight"
        ),
        EventType.UPDATE_REFUSED: _staff("A client's update was refused.", "tensor limit_bytes"),
        EventType.PRIVACY_REQUESTED: _staff("A person used a right under the GDPR.", "type due_at"),
        EventType.PRIVACY_MOVED: _staff(
            "A privacy request went from one state to the next.",
            "type from_status to_status transition due_at",
        ),
        EventType.PRIVACY_EXPORTED: _staff(
            "A person's data was packed for them.", "type files rows blobs expires_at"
        ),
        EventType.PRIVACY_ERASED: _staff(
            "A person's data was erased; what a hold kept is counted.",
            "places rows blobs keys held left sinks classes kept",
        ),
        EventType.PRIVACY_SPENT: _staff(
            "Privacy budget was reserved, spent or released.",
            f"{_BUDGET} state mechanism noise_multiplier sampling_rate unit ledger_version line_id",
        ),
        EventType.HOLD_PLACED: _staff(
            "A legal hold forbids the erasure of some data.", "hold_id basis until"
        ),
        EventType.HOLD_LIFTED: _staff("A legal hold ended.", "hold_id basis"),
        EventType.AUDIT_EXPORTED: _staff(
            "The log was exported as a bundle.", "entries checkpoint_size format"
        ),
        EventType.AUDIT_REVEALED: _staff(
            "Sealed fields of the log were decrypted for a reader.", "seq seqs fields"
        ),
        EventType.KEYS_ROTATED: _staff(
            "A signing key or the master key was replaced.", "use old_kid new_kid"
        ),
        EventType.LOG_SUCCEEDED: _staff(
            "This log goes on from another one, which ended at this tree.", "old_origin size root origin"
        ),
        EventType.BACKUP_CREATED: _staff(
            "A backup of database and blobs was written.", "tables rows blobs checkpoint_size"
        ),
        EventType.BACKUP_RESTORED: _staff(
            "A backup was restored; what was erased or spent since then stays so.",
            "tables rows blobs erased_keys spends replayed checkpoint_size",
        ),
        EventType.CERTIFICATE_RENEWED: _staff("A TLS certificate was renewed.", _CERTIFICATE),
        EventType.CERTIFICATE_FAILED: _staff("A TLS certificate could not be renewed.", _CERTIFICATE),
        EventType.SIEM_DOWN: _staff(
            "A SIEM sink stopped taking events.", "sink format lag_entries seq since"
        ),
        EventType.SIEM_UP: _staff("A SIEM sink takes events again.", "sink format lag_entries seq since"),
        EventType.INTENT_KEY: _staff("A key is made or destroyed in the key store.", _INTENT),
        EventType.INTENT_BLOB: _staff("A blob is written or removed in the blob store.", _INTENT),
        EventType.INTENT_ERASE: _staff("A person is erased in every place.", f"{_INTENT} places"),
        EventType.INTENT_EXPORT: _staff("A person's data is packed.", f"{_INTENT} places"),
        EventType.INTENT_CERTIFICATE: _staff("A certificate is asked for.", f"{_INTENT} {_CERTIFICATE}"),
        EventType.INTENT_MESSAGE: _staff("A message is sent through the broker.", f"{_INTENT} queue"),
        EventType.INTENT_MAIL: _staff("An e-mail is sent.", f"{_INTENT} template"),
    }
)
