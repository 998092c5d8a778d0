"""What a sink is, and what it says of a batch: taken, refused for good, or (by raising) not yet."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Protocol

from audit.siem.event import SiemEvent
from audit.siem.formats import Format


@dataclass(frozen=True, slots=True)
class Refusal:
    """An event that the SIEM will never take, and its verdict in our words: no content of the event."""

    event: SiemEvent
    reason: str


@dataclass(frozen=True, slots=True)
class Delivery:
    """What became of a batch whose every event was taken or refused for good.

    Args:
        answer: what the sink's word is worth: on what it rests that the events were taken; empty if none was.
        refused: those that were not, in order.
    """

    answer: str
    refused: tuple[Refusal, ...] = ()


class Sink(Protocol):
    """Where events go. What it has taken when `deliver` returns, it keeps."""

    def deliver(self, events: Sequence[SiemEvent]) -> Delivery:
        """Hand over a batch, in order; raises SinkDown when any of it may be missing."""

    def probe(self) -> None:
        """See that it can be reached, without an event; raises SinkDown."""

    def close(self) -> None:
        """Let go of what it holds open; a later `deliver` opens it again."""


def encode(event: SiemEvent, form: Format) -> bytes:
    """The event in a form, as JSON on one line."""
    return json.dumps(form(event), ensure_ascii=False, separators=(",", ":")).encode()


@dataclass(frozen=True, slots=True)
class Unfit:
    """A batch was refused as a whole because of one of its events; `position` is that one's, if it was told."""

    reason: str
    position: int | None = None


def piecewise(
    events: Sequence[SiemEvent], attempt: Callable[[Sequence[SiemEvent]], Delivery | Unfit]
) -> Delivery:
    """Deliver a batch in order; what is unfit goes in ever smaller pieces, until one event is alone and refused."""
    pieces, refused, answer = [events], list[Refusal](), ""
    while pieces:
        piece = pieces.pop(0)
        said = attempt(piece)
        if isinstance(said, Delivery):
            answer = said.answer
            refused += said.refused
        elif len(piece) == 1:
            refused.append(Refusal(piece[0], said.reason))
        else:
            pieces[:0] = _apart(piece, said.position)
    return Delivery(answer, tuple(refused))


def _apart(events: Sequence[SiemEvent], position: int | None) -> list[Sequence[SiemEvent]]:
    """Before the named one, itself, and behind it; in the middle if none is named."""
    if position is None or not 0 <= position < len(events):
        middle = len(events) // 2
        return [events[:middle], events[middle:]]
    pieces = (events[:position], events[position : position + 1], events[position + 1 :])
    return [piece for piece in pieces if piece]
