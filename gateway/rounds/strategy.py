"""How a round chooses its clients: the operator's wish as the round's row keeps it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from enum import StrEnum
from typing import Any

from gateway.rounds.record import Round

Scalar = str | bool | int | float


class Strategy(StrEnum):
    """The ways to choose. Poisson alone earns amplification, since each subject's part is a coin of its own."""

    ALL = "all"
    RANDOM = "random"
    FAIR = "fair"
    POISSON = "poisson"


@dataclass(frozen=True, slots=True)
class Selection:
    """Whom a round asks.

    `reserves` and `respond_within_s` belong to random and fair, `sampling_rate` to poisson. A client is
    eligible that was seen within `seen_within_s` and registered at least these `capabilities`.
    """

    strategy: Strategy = Strategy.ALL
    reserves: int = 0
    respond_within_s: int | None = None
    seen_within_s: int | None = None
    capabilities: Mapping[str, Scalar] = field(default_factory=dict)
    sampling_rate: float | None = None

    def stored(self) -> dict[str, Any] | None:
        """What the round's row keeps: None where every client may come; the rate is a text that reads back exactly."""
        if self.strategy is Strategy.ALL:
            return None
        return {
            "strategy": self.strategy.value,
            "reserves": self.reserves,
            "respond_within_s": self.respond_within_s,
            "seen_within_s": self.seen_within_s,
            "capabilities": dict(self.capabilities),
            "sampling_rate": None if self.sampling_rate is None else repr(self.sampling_rate),
        }

    def seen_since(self, now: datetime) -> datetime | None:
        """Since when a client must have been seen; None if that does not matter."""
        return None if self.seen_within_s is None else now - timedelta(seconds=self.seen_within_s)


def selection_of(found: Round) -> Selection:
    """The round's selection."""
    stored = found.selection
    if stored is None:
        return Selection()
    rate = stored["sampling_rate"]
    return Selection(
        strategy=Strategy(stored["strategy"]),
        reserves=stored["reserves"],
        respond_within_s=stored["respond_within_s"],
        seen_within_s=stored["seen_within_s"],
        capabilities=stored["capabilities"],
        sampling_rate=None if rate is None else float(rate),
    )


def is_poisson(found: Round) -> bool:
    """Whether the round's cohort is a Poisson sample: it runs to its deadline, and its size is told to nobody."""
    return found.selection is not None and found.selection["strategy"] == Strategy.POISSON.value
