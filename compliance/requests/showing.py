"""What a request keeps sealed, opened for somebody who decides on it; each time is an entry, committed first."""

from __future__ import annotations

from collections.abc import Mapping

from audit.canonical import JsonValue
from audit.draft import Personal
from audit.errors import KeyDestroyed
from audit.events import EventType
from audit.reading import reading
from compliance.parts import DeskParts
from compliance.requests.cases import Case, read_case

SEALED = ("reference", "correction", "extension_reason", "reason")


def sealed_of(case: Case) -> tuple[str, ...]:
    """The sealed fields that a request has."""
    return tuple(name for name in SEALED if getattr(case, name) is not None)


def show_sealed(parts: DeskParts, case_id: str, *, by: Personal) -> Mapping[str, JsonValue]:
    """The sealed fields of a request; None for one whose key is gone.

    Args:
        parts: the desk's means.
        case_id: the request.
        by: who wants to see them.

    Raises:
        UnknownRequest: there is no such request.
    """
    with reading(parts.engine) as conn:
        case = read_case(conn, case_id)
    fields = sealed_of(case)
    if not fields:
        return {}
    details: dict[str, JsonValue] = {"case_id": case.id, "fields": [*fields]}
    entry = parts.journal.draft(EventType.PRIVACY_REVEALED, details=details, actor=by)
    with parts.engine.begin() as conn:
        parts.journal.write(conn, entry)
    return {name: _opened(parts, case, name) for name in fields}


def _opened(parts: DeskParts, case: Case, name: str) -> JsonValue:
    try:
        return parts.sealer.open_column(getattr(case, name), "privacy_requests", name, case.id)
    except KeyDestroyed:  # the person was erased
        return None
