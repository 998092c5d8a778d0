"""How compliance writes audit entries: sealed before the transaction, staged inside it (promise 1)."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Protocol

from sqlalchemy import Connection

from audit.canonical import JsonValue
from audit.draft import SYSTEM, Personal
from audit.entry import Draft
from audit.events import EventType, Outcome

DESK = Personal(SYSTEM, "privacy desk")  # the actor of what the gateway does by itself


class Journal(Protocol):
    """Makes entries and stages them; the gateway's `Trail` is one."""

    def draft(
        self,
        event_type: EventType,
        *,
        details: Mapping[str, JsonValue | Personal] | None = None,
        resource: str = "",
        action: str | None = None,
        outcome: Outcome | None = None,
        actor: Personal | None = None,
    ) -> Draft:
        """An entry, sealed and ready; called outside of transactions. No outcome: the usual one of its type."""

    def write(self, conn: Connection, *drafts: Draft) -> None:
        """Stage entries in the caller's transaction; fails if a subject is being erased."""
