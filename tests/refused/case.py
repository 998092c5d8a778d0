"""What a row of the table in docs/oauth-refusals.md is to a test: a request, its answer, and what may be left of it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from refused.scene import Scene

TOKEN_REFUSED = "token.refused"
ACCESS_REFUSED = "access.refused"
BASIC = 'Basic realm="fl-gateway", charset="UTF-8"'


@dataclass(frozen=True, slots=True)
class Ask:
    """One request of a test client, ready to be sent."""

    method: str
    path: str
    sent: dict[str, Any] = field(repr=False)
    has_session: bool = False
    """Whether the browser sends it in which a person has signed in."""


@dataclass(frozen=True, slots=True)
class Case:
    """A row of the table.

    Args:
        section: the RFC and section that say so.
        status, error: of the answer; no error where the RFC wants none.
        of: prepares the request: everything that is good and right happens in here.
        challenge: `WWW-Authenticate`, or None where none is due.
        entry: the event type of the one entry; None: there is none.
        alarm: the event type of an entry before it, of what was found out by the refusal.
        reason: what the entry says; by default the error in capitals.
        changes: the tables whose rows may, and must, differ afterwards.
        body: the whole answer, where the RFC fixes it.
    """

    section: str
    status: int
    error: str | None
    of: Callable[[Scene], Ask]
    challenge: str | None = None
    entry: str | None = TOKEN_REFUSED
    reason: str | None = None
    changes: frozenset[str] = frozenset()
    body: dict[str, Any] | None = None
    alarm: str | None = None

    @property
    def answer(self) -> str:
        """The answer as the page writes it."""
        return f"{self.status} `{self.error}`" if self.error else f"{self.status}"

    @property
    def entries(self) -> list[str]:
        return [event_type for event_type in (self.alarm, self.entry) if event_type]

    @property
    def reason_said(self) -> str:
        return self.reason or (self.error or "").upper()


def bearer_challenge(error: str | None, **more: str) -> str:
    """The challenge of RFC 6750, section 3."""
    metadata = "https://fl.example.com/.well-known/oauth-protected-resource"  # RFC 9728, section 5.1
    said = (
        {"realm": "fl-gateway"} | ({"error": error} if error else {}) | more | {"resource_metadata": metadata}
    )
    return "Bearer " + ", ".join(f'{name}="{value}"' for name, value in said.items())
