"""What an entry has against the declaration of its event type (`audit.events`); part of the verifier's own files.

The verifier asks this of every entry, so that what can be prepared is prepared once for each event type.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from audit.canonical import JsonValue
from audit.entry import Entry, is_sealed
from audit.events import EVENTS, Event, Kind

_LONGEST_ACTION = 64
_CUT = frozenset({"cut", "size_bytes", "sha256"})
_HEX_CHARACTERS = 64
_PLAIN_TYPES: Mapping[Kind, type] = {
    Kind.TEXT: str,
    Kind.TIME: str,
    Kind.DECIMAL: str,
    Kind.INTEGER: int,
    Kind.FLAG: bool,
    Kind.TEXTS: list,
}


@dataclass(frozen=True, slots=True)
class _Schema:
    """One event type's declaration, prepared for look-ups."""

    in_clear: dict[str, type]
    required: frozenset[str]
    outcomes: frozenset[str]


def problems(entry: Entry) -> list[str]:
    """What is wrong with the details, the outcome and the action of an entry; empty if nothing is.

    An entry of a type that is not in the catalogue, as a later version may write, has no problems here: whoever
    wants to remark on it looks whether its type is in `EVENTS`. A sealed detail is never a problem, and neither is
    one that was cut to fit.
    """
    schema = _SCHEMAS.get(entry.event_type)
    if schema is None:
        return []
    details, found = entry.details, list[str]()
    if not schema.required <= details.keys():
        found += [f"the detail {name!r} is missing" for name in sorted(schema.required - details.keys())]
    for name, value in details.items():
        expected = schema.in_clear.get(name)
        if type(value) is expected and (expected is not list or _is_texts(value)):
            continue
        if not is_sealed(value) and not (expected is not None and _is_cut(value)):
            found.append(_misfit(name, expected))
    outcome, action = entry.members["outcome"], entry.members["action"]
    if outcome not in schema.outcomes:
        found.append(f"the outcome {outcome!r} is none that its event type has")
    if not is_action(action):
        found.append("the action is not a word")
    return found


def fits(kind: Kind, value: JsonValue) -> bool:
    """Whether a value about to be written is of its declared kind."""
    if kind is Kind.TEXTS:
        return isinstance(value, list | tuple) and _is_texts(value)
    if kind is Kind.INTEGER:
        return isinstance(value, int) and not isinstance(value, bool)
    return isinstance(value, _PLAIN_TYPES[kind])


def is_action(action: JsonValue) -> bool:
    """Whether it is a word, as actions are."""
    return isinstance(action, str) and action.isidentifier() and len(action) <= _LONGEST_ACTION


def _prepared(event: Event) -> _Schema:
    return _Schema(
        {name: _PLAIN_TYPES[field.kind] for name, field in event.fields.items() if field.is_clear},
        frozenset(name for name, field in event.fields.items() if field.is_required),
        frozenset(outcome.value for outcome in event.outcomes),
    )


def _misfit(name: str, expected: type | None) -> str:
    if expected is None:
        return f"the detail {name!r} stands in clear, and its event type does not allow that"
    return f"the detail {name!r} has another type than its event type declares"


def _is_texts(value: object) -> bool:
    return isinstance(value, list | tuple) and all(isinstance(one, str) for one in value)


def _is_cut(value: JsonValue) -> bool:
    if not isinstance(value, Mapping) or value.keys() != _CUT:
        return False
    size, digest = value["size_bytes"], value["sha256"]
    is_hash = isinstance(digest, str) and len(digest) == _HEX_CHARACTERS
    return isinstance(value["cut"], str) and type(size) is int and is_hash


_SCHEMAS: dict[str, _Schema] = {event_type.value: _prepared(event) for event_type, event in EVENTS.items()}
