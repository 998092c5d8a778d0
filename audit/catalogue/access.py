"""Events of identity and access: accounts, tokens, and requests that were refused."""

from __future__ import annotations

from collections.abc import Mapping

from audit.vocabulary import Event, EventType, Ocsf, Outcome, Retention, Severity, details

_LOGON, _LOGOFF = Ocsf(3002, 1), Ocsf(3002, 2)
_PRIVILEGES = Ocsf(3003, 1)
_CREATE, _CHANGE, _DISABLE = Ocsf(3004, 1), Ocsf(3004, 3), Ocsf(3004, 9)
_SUSPEND, _RESUME = Ocsf(3004, 12), Ocsf(3004, 13)
_WRITE = Ocsf(6005, 5)

# A single refusal says what was asked and what the caller claimed; a counted one, how many there were and since when.
_REFUSAL = details(
    clear="reason status:integer method? route? count?:integer first_at?:time last_at?:time",
    sealed="path? claimed_client_id? claimed_user_id? user_agent? client_request_id? client_trace? network?",
)
_MOVED_CLIENT = details(clear="role", sealed="client_id")


def _moved(meaning: str, activity: Ocsf) -> Event:
    return Event(meaning, Severity.LOW, activity, Retention.ACCOUNTABILITY, _MOVED_CLIENT)


def _refused(meaning: str, activity: Ocsf) -> Event:
    return Event(
        meaning, Severity.LOW, activity, Retention.ACCOUNTABILITY, _REFUSAL, outcomes=(Outcome.DENIED,)
    )


ACCESS: Mapping[EventType, Event] = {
    EventType.CLIENT_ADDED: Event(
        "An operator added a client account.",
        Severity.LOW,
        _CREATE,
        Retention.ACCOUNTABILITY,
        details(clear="role auth extra_scopes?:texts", sealed="client_id"),
    ),
    EventType.CLIENT_REGISTERED: Event(
        "A participant registered a device or silo, or came with an outside issuer's token for the first time.",
        Severity.INFORMATIONAL,
        _CREATE,
        Retention.PARTICIPATION,
        details(clear="role signs:flag auth?", sealed="client_id"),
    ),
    EventType.CLIENT_SUSPENDED: _moved("An operator suspended a client.", _SUSPEND),
    EventType.CLIENT_RESUMED: _moved("An operator let a suspended client in again.", _RESUME),
    EventType.CLIENT_REVOKED: _moved("A client's access was ended for good.", _DISABLE),
    EventType.CLIENT_CHANGED: Event(
        "It was changed how a client proves itself, or what it may ask for: by an operator, or by its outside issuer.",
        Severity.LOW,
        _CHANGE,
        Retention.ACCOUNTABILITY,
        details(clear="role changed:texts", sealed="client_id"),
    ),
    EventType.USER_ADDED: Event(
        "An operator added a person of the staff.",
        Severity.LOW,
        _CREATE,
        Retention.ACCOUNTABILITY,
        details(clear="role auth? extra_scopes?:texts", sealed="user_id"),
    ),
    EventType.USER_CHANGED: Event(
        "A person's password, second factor, role, scopes or status was changed.",
        Severity.LOW,
        _CHANGE,
        Retention.ACCOUNTABILITY,
        details(clear="role changed:texts status? extra_scopes?:texts", sealed="user_id"),
    ),
    EventType.USER_SIGNED_IN: Event(
        "A person signed in.",
        Severity.INFORMATIONAL,
        _LOGON,
        Retention.ACCOUNTABILITY,
        details(clear="auth"),
    ),
    EventType.USER_SIGNED_OUT: Event(
        "A person signed out.",
        Severity.INFORMATIONAL,
        _LOGOFF,
        Retention.ACCOUNTABILITY,
        details(),
    ),
    EventType.USER_REFUSED: _refused("A person tried to sign in and was refused.", _LOGON),
    EventType.ACCESS_GRANTED: Event(
        "A person allowed a client to act for them.",
        Severity.INFORMATIONAL,
        _PRIVILEGES,
        Retention.ACCOUNTABILITY,
        details(clear="scope", sealed="client_id"),
    ),
    EventType.TOKEN_ISSUED: Event(
        "An access token was issued: a client proved who it is.",
        Severity.INFORMATIONAL,
        _LOGON,
        Retention.PARTICIPATION,
        details(clear="scope auth lifetime_s:integer grant? format? bound?:flag", sealed="user_id?"),
    ),
    EventType.TOKEN_REFUSED: _refused("An access token was asked for and refused.", _LOGON),
    EventType.TOKEN_REVOKED: Event(
        "An access token was revoked before its time.",
        Severity.INFORMATIONAL,
        _LOGOFF,
        Retention.PARTICIPATION,
        details(clear="scope"),
    ),
    EventType.TOKEN_REUSED: Event(
        "A code or refresh token was shown a second time: all that followed from the same consent was ended.",
        Severity.HIGH,
        _LOGOFF,
        Retention.ACCOUNTABILITY,
        details(clear="kind", sealed="client_id user_id?"),
        outcomes=(Outcome.DENIED,),
    ),
    EventType.ACCESS_REFUSED: _refused(
        "A request was refused: who asked may not do this, or not now.", _PRIVILEGES
    ),
    EventType.UPDATE_REFUSED: _refused("A client's update was refused.", _WRITE),
}
