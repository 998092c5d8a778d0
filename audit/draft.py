"""From an effect to the entry that records it: personal values are sealed before anything is stored.

A detail stands in clear only if its event type declares it impersonal (`audit.events`) and the caller did
not mark it `Personal`. What is too long for an entry is cut, and the cut carries the hash of the whole.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from datetime import datetime
from hashlib import sha256
from types import MappingProxyType
from typing import Protocol

from audit.canonical import JsonValue, canonical
from audit.entry import MAX_ENTRY_BYTES, Draft, Outcome, Sealed
from audit.errors import BadDraft, EntryTooLong
from audit.events import EVENTS, Event, EventType, Phase, Retention
from audit.ids import new_id
from audit.schema import fits, is_action

SYSTEM = "system"
UNPROVEN = "unproven"
NOBODY = frozenset({SYSTEM, UNPROVEN})
"""Subjects that are no person: no erasure reaches them, so that no writer needs to lock them."""

_ROOM_FOR_PLACE = len('"prev":"","seq":,') + 64 + 16
_MAX_BODY_BYTES = MAX_ENTRY_BYTES - _ROOM_FOR_PLACE
_KEPT_CHARACTERS = 512


@dataclass(frozen=True, slots=True)
class Personal:
    """A value that belongs to a person: sealed under that subject's key."""

    subject: str
    """A subject id, or `system` (the gateway itself), or `unproven` (nobody showed who they are)."""
    value: JsonValue


class Sealer(Protocol):
    """Encrypts personal fields under subject keys; `compliance.keyring.sealing` is the real one."""

    def seal(
        self, subject: str, retention: Retention, context: str, value: JsonValue, at: datetime
    ) -> Sealed:
        """Encrypt a value; `context` is bound to it, so that no ciphertext can be moved to another field."""

    def open(self, sealed: Sealed, context: str) -> JsonValue:
        """Decrypt a value; raises KeyDestroyed once the subject was erased."""


def draft(
    event_type: EventType,
    *,
    sealer: Sealer,
    now: datetime,
    actor: Personal,
    action: str,
    resource: str = "",
    outcome: Outcome | None = None,
    request_id: str = "",
    trace_id: str = "",
    ip_address: Personal | None = None,
    details: Mapping[str, JsonValue | Personal] = MappingProxyType({}),
    make_id: Callable[[datetime], str] = new_id,
) -> Draft:
    """Seal and assemble an entry. `resource` and the ids must name nobody: they stand in clear.

    Without an `outcome` it ended as its event type usually does.

    Raises:
        BadDraft: it is not what its event type declares: nobody could mend the entry later.
    """
    event = EVENTS[event_type]
    ended = outcome or _usual_outcome(event, details)
    _check(event_type, event, action, ended, details)
    seal = _Sealing(sealer, event, make_id(now), now)
    owned = {name: _owned(event, actor, name, value) for name, value in details.items()}
    made = Draft(
        id=seal.entry_id,
        time=now,
        event_type=event_type,
        actor=seal.field("actor", actor),
        action=action,
        resource=resource,
        outcome=ended,
        request_id=request_id,
        trace_id=trace_id,
        ip_address=seal.field("ip_address", ip_address) if ip_address else None,
        details=MappingProxyType({name: seal.detail(name, value) for name, value in owned.items()}),
        subjects=_subjects(actor, ip_address, owned),
    )
    return _cut_to_fit(made, owned, seal)


@dataclass(frozen=True, slots=True)
class _Sealing:
    """Seals the fields of one entry."""

    sealer: Sealer
    event: Event
    entry_id: str
    now: datetime

    def field(self, name: str, personal: Personal) -> Sealed:
        return self.sealer.seal(
            personal.subject, self.event.retention, f"{self.entry_id}.{name}", personal.value, self.now
        )

    def detail(self, name: str, value: JsonValue | Personal) -> JsonValue | Sealed:
        return self.field(f"details.{name}", value) if isinstance(value, Personal) else value


def _usual_outcome(event: Event, details: Mapping[str, JsonValue | Personal]) -> Outcome:
    has_failed = details.get("phase") == Phase.FAILED and Outcome.FAILURE in event.outcomes
    return Outcome.FAILURE if has_failed else event.outcomes[0]


def _check(
    event_type: EventType,
    event: Event,
    action: str,
    outcome: Outcome,
    details: Mapping[str, JsonValue | Personal],
) -> None:
    """Refuse what the verifier would find fault with for ever."""
    if event_type.is_intent and details.get("phase") not in tuple(Phase):
        raise BadDraft(f"{event_type} needs the detail 'phase': intended, done or failed")
    if not is_action(action):
        raise BadDraft(f"the action of {event_type} must be a word")
    if outcome not in event.outcomes:
        raise BadDraft(f"{event_type} cannot have the outcome {outcome}")
    for name, field in event.fields.items():
        if field.is_required and name not in details:
            raise BadDraft(f"{event_type} needs the detail {name!r}")
    for name, value in details.items():
        if isinstance(value, Personal):
            continue
        if Sealed.read(value):
            raise BadDraft(f"the detail {name!r} looks like a sealed field: pass the plain value")
        declared = event.fields.get(name)
        if declared and declared.is_clear and not fits(declared.kind, value):
            raise BadDraft(f"the detail {name!r} of {event_type} must be of the kind {declared.kind}")


def _owned(event: Event, actor: Personal, name: str, value: JsonValue | Personal) -> JsonValue | Personal:
    """The detail with its owner: what is not declared impersonal is the actor's."""
    declared = event.fields.get(name)
    if isinstance(value, Personal) or (declared is not None and declared.is_clear):
        return value
    return Personal(actor.subject, value)


def _subjects(
    actor: Personal, ip_address: Personal | None, owned: Mapping[str, JsonValue | Personal]
) -> frozenset[str]:
    fields = (actor, ip_address, *owned.values())
    return frozenset(field.subject for field in fields if isinstance(field, Personal)) - NOBODY


def _cut_to_fit(made: Draft, owned: Mapping[str, JsonValue | Personal], seal: _Sealing) -> Draft:
    """Cut the longest details, one after the other, until the entry fits into a tile's bundle."""
    if _fits(made):
        return made
    for name in sorted(owned, key=lambda name: _length(made.details[name]), reverse=True):
        cut = seal.detail(name, _cut(owned[name]))
        made = replace(made, details=MappingProxyType({**made.details, name: cut}))
        if _fits(made):
            return made
    raise EntryTooLong(f"the entry is longer than {MAX_ENTRY_BYTES} bytes though every detail was cut")


def _fits(made: Draft) -> bool:
    return len(made.body()) <= _MAX_BODY_BYTES


def _length(value: JsonValue | Sealed) -> int:
    return len(canonical(value.public() if isinstance(value, Sealed) else value))


def _cut(value: JsonValue | Personal) -> JsonValue | Personal:
    """The beginning of a value's JSON, with the length and the SHA-256 of the whole."""
    if isinstance(value, Personal):
        return Personal(value.subject, _cut_value(value.value))
    return _cut_value(value)


def _cut_value(value: JsonValue) -> JsonValue:
    whole = canonical(value)
    beginning = whole.decode("utf-8")[:_KEPT_CHARACTERS]
    return {"cut": beginning, "size_bytes": len(whole), "sha256": sha256(whole).hexdigest()}
