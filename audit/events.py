"""The event catalogue: every event type of the log with its details, urgency and OCSF class, in one registry.

The page for auditors (docs/events.md), what a SIEM is told, and the verifier's check of each entry (`audit.schema`) are
made from it. A detail that is not declared in clear is sealed under the actor's key (`audit.draft`), so that a
forgotten declaration hides a fact and never publishes a person. A log is kept for ever: what an event type had once
stays declared, and what is added later is optional.
"""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType

from audit.catalogue.access import ACCESS
from audit.catalogue.people import PEOPLE
from audit.catalogue.running import RUNNING
from audit.catalogue.training import TRAINING
from audit.vocabulary import Event, EventType, Field, Kind, Ocsf, Outcome, Phase, Retention, Severity

__all__ = [
    "EVENTS",
    "Event",
    "EventType",
    "Field",
    "Kind",
    "Ocsf",
    "Outcome",
    "Phase",
    "Retention",
    "Severity",
]

_DECLARED = {**RUNNING, **ACCESS, **TRAINING, **PEOPLE}

EVENTS: Mapping[EventType, Event] = MappingProxyType({one: _DECLARED[one] for one in EventType})
