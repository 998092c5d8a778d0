"""The tamper-evident log: entries, chain, Merkle tree, checkpoints, proofs, bundles, and their verifier.

Importing this package stays light, so that an auditor needs only the standard library and `cryptography`;
what needs a database loads on first use.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from audit.draft import Personal, Sealer, draft
from audit.entry import Draft, Outcome, Sealed
from audit.errors import AuditError
from audit.events import EVENTS, Event, EventType, Retention

if TYPE_CHECKING:
    from audit.logger import AuditLogger

__all__ = [
    "EVENTS",
    "AuditError",
    "AuditLogger",
    "Draft",
    "Event",
    "EventType",
    "Outcome",
    "Personal",
    "Retention",
    "Sealed",
    "Sealer",
    "draft",
]


def __getattr__(name: str) -> object:
    if name == "AuditLogger":
        from audit.logger import AuditLogger

        return AuditLogger
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
