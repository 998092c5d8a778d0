"""Events of running the house: start and stop, settings, keys, the log itself, backups, certificates, SIEM."""

from __future__ import annotations

from collections.abc import Mapping

from audit.vocabulary import Event, EventType, Ocsf, Outcome, Retention, Severity, details

_START, _STOP, _RECONFIGURE, _OTHER = Ocsf(6002, 3), Ocsf(6002, 4), Ocsf(6002, 8), Ocsf(6002, 99)
_RENEW = Ocsf(3004, 3)
_SEND = Ocsf(6003, 1)
_READ, _WRITE, _CREATE, _DECRYPT = Ocsf(6005, 1), Ocsf(6005, 5), Ocsf(6005, 6), Ocsf(6005, 10)

_BACKUP = "tables:integer rows:integer blobs:integer checkpoint_size:integer"
_CERTIFICATE = "domains:texts serial? not_after?:time reason?"
_SINK = "sink reason? seq?:integer lag_entries?:integer"

# What went wrong is a failure; logs of the first versions say `success` there.
_MOSTLY_FAILURE = (Outcome.FAILURE, Outcome.SUCCESS)


def _house(
    meaning: str,
    severity: Severity,
    activity: Ocsf,
    clear: str,
    outcomes: tuple[Outcome, ...] = (Outcome.SUCCESS,),
    *,
    is_reserved: bool = False,
) -> Event:
    declared = details(clear=clear)
    return Event(
        meaning, severity, activity, Retention.ACCOUNTABILITY, declared, outcomes, is_reserved=is_reserved
    )


RUNNING: Mapping[EventType, Event] = {
    EventType.SERVER_STARTED: _house(
        "A server process began its work.", Severity.INFORMATIONAL, _START, "mode version?"
    ),
    EventType.SERVER_STOPPED: _house(
        "A server process ended in order.", Severity.INFORMATIONAL, _STOP, "mode uptime_s?:integer"
    ),
    EventType.CONFIG_CHANGED: _house(
        "These settings differ from those of the last start; their values are told nowhere.",
        Severity.LOW,
        _RECONFIGURE,
        "settings:texts mode?",
    ),
    EventType.AUDIT_EXPORTED: _house(
        "The log was exported as a bundle.", Severity.LOW, _READ, "entries:integer format"
    ),
    EventType.AUDIT_REVEALED: Event(
        "Sealed fields of an entry were decrypted for a reader, who gave a reason.",
        Severity.MEDIUM,
        _DECRYPT,
        Retention.ACCOUNTABILITY,
        details(clear="seq:integer fields:texts", sealed="reason"),
    ),
    EventType.AUDIT_REBUILT: _house(
        "The tree was made again from the entries and compared; what differed in the derived tables was mended.",
        Severity.MEDIUM,
        _WRITE,
        "entries:integer tiles:integer count:integer",
    ),
    EventType.AUDIT_TRIED: _house(
        "A trial wrote this entry while the proofs of the log were checked.",
        Severity.INFORMATIONAL,
        _CREATE,
        "count:integer",
    ),
    EventType.KEYS_ROTATED: _house(
        "A signing key or the master key was replaced; the log's new key is announced here.",
        Severity.MEDIUM,
        _RENEW,
        "use phase? old_kid? new_kid? old_vkey? new_vkey? both_until?:time statement? rewrapped?:integer reason?",
    ),
    EventType.LOG_SUCCEEDED: _house(
        "This log goes on from another one, which ended at this tree.",
        Severity.HIGH,
        _CREATE,
        "old_origin size:integer root origin",
    ),
    EventType.BACKUP_CREATED: _house(
        "A backup of database and blobs, or of the key store, was written.",
        Severity.INFORMATIONAL,
        _READ,
        _BACKUP,
    ),
    EventType.BACKUP_RESTORED: _house(
        "A backup was restored; what was erased or spent since then stays so.",
        Severity.HIGH,
        _WRITE,
        f"{_BACKUP} erased_keys:integer spends:integer replayed:integer",
    ),
    EventType.CERTIFICATE_RENEWED: _house(
        "A TLS certificate was issued or renewed.", Severity.INFORMATIONAL, _RENEW, _CERTIFICATE
    ),
    EventType.CERTIFICATE_FAILED: _house(
        "A TLS certificate could not be renewed.", Severity.HIGH, _RENEW, _CERTIFICATE, _MOSTLY_FAILURE
    ),
    EventType.SIEM_DOWN: _house(
        "A SIEM sink stopped taking events.", Severity.HIGH, _OTHER, _SINK, _MOSTLY_FAILURE
    ),
    EventType.SIEM_UP: _house("A SIEM sink takes events again.", Severity.INFORMATIONAL, _OTHER, _SINK),
    EventType.SIEM_REFUSED: _house(
        "A SIEM sink refused events for good: they are kept as dead letters.",
        Severity.HIGH,
        _OTHER,
        "sink count:integer seq:integer last_seq:integer reason",
        (Outcome.FAILURE,),
    ),
    EventType.SIEM_REPLAYED: _house(
        "An operator delivered entries to a SIEM sink once more.",
        Severity.LOW,
        _SEND,
        "sink count:integer refused:integer seq:integer last_seq:integer kind",
    ),
    EventType.NOTICE_FAILED: _house(
        "A notice was given up: its target never took it.",
        Severity.HIGH,
        _SEND,
        "notice_id kind target tries:integer reason",
        (Outcome.FAILURE,),
    ),
    EventType.WITNESS_REFUSED: _house(
        "A witness says that this log is no continuation of what it cosigned: it was cut, forked or restored.",
        Severity.CRITICAL,
        _OTHER,
        "witness reason size:integer known_size:integer",
        (Outcome.FAILURE,),
    ),
    EventType.INTENT_CERTIFICATE: _house(
        "A certificate is asked for.",
        Severity.INFORMATIONAL,
        _RENEW,
        "phase intent_id target",
        (Outcome.SUCCESS, Outcome.FAILURE),
    ),
    EventType.INTENT_MAIL: _house(
        "An e-mail is sent.",
        Severity.INFORMATIONAL,
        _SEND,
        "phase intent_id? template?",
        (Outcome.SUCCESS, Outcome.FAILURE),
        is_reserved=True,
    ),
}
