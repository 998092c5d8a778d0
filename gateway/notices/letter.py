"""A notice on its way to one target, and why a target did not take it."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum
from typing import Protocol


class Problem(StrEnum):
    """Why a target did not take a notice."""

    AWAY = "away"
    REFUSED = "refused"
    NOT_TAKEN = "not_taken"
    NO_TLS = "no_tls"
    LOGIN = "login"
    GONE = "no_such_target"


@dataclass(frozen=True, slots=True)
class Letter:
    """What a target is handed; `notice_id` stays the same when it comes again."""

    notice_id: str
    kind: str
    severity: str
    subject_line: str
    text: str
    created_at: datetime


class Target(Protocol):
    """Where notices go."""

    def deliver(self, letter: Letter) -> Problem | None:
        """Hand the letter over; None once it was taken."""

    def probe(self) -> Problem | None:
        """Whether it would take one, as far as that can be told without sending."""

    def close(self) -> None:
        """Close its connections."""
