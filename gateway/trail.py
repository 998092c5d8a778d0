"""Where effects and their audit entries meet: drafts are sealed before a transaction, and staged inside it."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import datetime

from sqlalchemy import Connection, Engine

from audit.canonical import JsonValue
from audit.draft import Personal, Sealer
from audit.draft import draft as make_draft
from audit.entry import Draft
from audit.events import EventType, Outcome
from audit.store import stage
from compliance.subjects import hold

SYSTEM = "system"
UNPROVEN = "unproven"


@dataclass(frozen=True, slots=True)
class Origin:
    """Who acts, from where, in which request."""

    actor: Personal
    ip_address: Personal | None = None
    request_id: str = ""
    trace_id: str = ""


def system_origin(part: str) -> Origin:
    """The gateway itself, or somebody at its console, as the actor."""
    return Origin(Personal(SYSTEM, part))


class Trail:
    """Makes entries for what the current actor does, and stages them in the effect's own transaction.

    Args:
        engine: the main database.
        sealer: encrypts personal fields under their subject's key.
        clock: the time of an entry.
        origin: tells the actor of this moment, outside of requests.
    """

    def __init__(
        self,
        engine: Engine,
        sealer: Sealer,
        clock: Callable[[], datetime],
        origin: Callable[[], Origin],
    ) -> None:
        self._engine = engine
        self._sealer = sealer
        self._clock = clock
        self._origin = origin
        self._of_request: Callable[[], Origin | None] = lambda: None
        self._wrote: Callable[[str], None] = lambda _entry_id: None

    def follow_requests(self, of_request: Callable[[], Origin | None], wrote: Callable[[str], None]) -> None:
        """Learn of requests, in a process that answers them.

        Args:
            of_request: tells the actor of the request that this thread answers, if it answers one.
            wrote: is told the id of each entry that was staged, before the transaction commits.
        """
        self._of_request, self._wrote = of_request, wrote

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
        """An entry, sealed and ready; nothing is written. Call it outside of transactions (RULES 3).

        Without an `outcome` it ended as its event type usually does.
        """
        origin = self._of_request() or self._origin()
        return make_draft(
            event_type,
            sealer=self._sealer,
            now=self._clock(),
            actor=actor or origin.actor,
            action=action or event_type.value.rpartition(".")[2],
            resource=resource,
            outcome=outcome,
            request_id=origin.request_id,
            trace_id=origin.trace_id,
            ip_address=origin.ip_address,
            details=details or {},
        )

    def write(self, conn: Connection, *drafts: Draft) -> None:
        """Stage the entries in the caller's transaction, which fails if a subject is being erased (RULES 18).

        Raises:
            compliance.errors.SubjectErasing: an entry is sealed under a person who is being erased.
        """
        for draft in drafts:
            hold(conn, draft.subjects)
            stage(conn, draft)
            self._wrote(draft.id)

    def note(self, event_type: EventType, **facts: JsonValue | Personal) -> None:
        """Write an entry that stands alone, in a transaction of its own."""
        draft = self.draft(event_type, details=facts)
        with self._engine.begin() as conn:
            self.write(conn, draft)
