"""A Splunk HTTP Event Collector as Splunk describes it: tokens, channels, error codes, acknowledgements by channel.

An acknowledgement that was told once is forgotten, and one that nobody knows is false for ever.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass, field
from enum import StrEnum
from uuid import UUID

from services.siem_http import Answered, Asked, Json

TOKEN = "11111111-2222-3333-4444-canary-token"


class Mood(StrEnum):
    """What the server does with a post of events, once each."""

    BUSY = "busy"  # 503, code 9
    LIMITED = "limited"  # 429 with Retry-After
    HANGS = "hangs"
    CUT = "cut"  # keeps them, and ends the connection in the middle of the answer
    FORGETS = "forgets"  # 200 and an id, and nothing else
    EXPIRES = "expires"  # keeps them, and forgets the id


@dataclass
class Splunk:
    """Keeps the events that were indexed, in the order of their indexing."""

    has_acks: bool = True
    moods: list[Mood | None] = field(default_factory=list)
    """For the next posts, one each; then, and at None, all is well."""
    code_of: Callable[[Json], int] = lambda _event: 0
    """The error code for an event: 0 takes it."""
    longest_body: int = 1 << 20
    late_polls: int = 0
    """How often a poll says false before the truth."""
    indexed: list[Json] = field(default_factory=list)
    channels: set[str] = field(default_factory=set)
    posts: int = 0
    _acks: dict[tuple[str, int], int] = field(default_factory=dict)
    _next: dict[str, int] = field(default_factory=dict)

    def answer(self, asked: Asked) -> Answered:
        """The answer to one request."""
        if asked.path == "/services/collector/health":
            return Answered(200, {"text": "HEC is healthy", "code": 17})
        if refused := _token_fault(asked):
            return refused
        channel = asked.headers.get("X-Splunk-Request-Channel", "")
        if self.has_acks and (refused := _channel_fault(channel)):
            return refused
        self.channels.add(channel)
        if asked.path == "/services/collector/ack":
            return self._told(channel, json.loads(asked.body)["acks"])
        if asked.path != "/services/collector/event":
            return Answered(404, {"text": "The requested URL was not found on this server.", "code": 404})
        return self._posted(channel, asked.body)

    def _posted(self, channel: str, body: bytes) -> Answered:
        self.posts += 1
        mood = self.moods.pop(0) if self.moods else None
        if mood is Mood.BUSY:
            return Answered(503, {"text": "Server is busy", "code": 9})
        if mood is Mood.LIMITED:
            return Answered(429, {"text": "Server is busy", "code": 26}, {"Retry-After": "7"})
        if mood is Mood.HANGS:
            return Answered(hangs=True)
        if len(body) > self.longest_body:
            return Answered(413, {"text": "Request entity too large", "code": 27})
        if mood is not Mood.FORGETS and (fault := self._index(body)):
            return fault
        return self._accepted(channel, mood)

    def _accepted(self, channel: str, mood: Mood | None) -> Answered:
        success = {"text": "Success", "code": 0}
        if not self.has_acks:
            return Answered(200, success, cut=mood is Mood.CUT)
        number = self._next.get(channel, 0)
        self._next[channel] = number + 1
        if mood not in (Mood.FORGETS, Mood.EXPIRES):
            self._acks[channel, number] = self.late_polls
        return Answered(200, {**success, "ackId": number}, cut=mood is Mood.CUT)

    def _index(self, body: bytes) -> Answered | None:
        """Index up to the first fault, and tell where it is."""
        for number, event in enumerate(_events(body)):
            if code := self.code_of(event):
                return Answered(400, {"text": "a fault", "code": code, "invalid-event-number": number})
            self.indexed.append(event)
        return None

    def _told(self, channel: str, wanted: list[int]) -> Answered:
        if not self.has_acks:
            return Answered(400, {"text": "ACK is disabled", "code": 14})
        return Answered(200, {"acks": {str(number): self._tell(channel, number) for number in wanted}})

    def _tell(self, channel: str, number: int) -> bool:
        left = self._acks.pop((channel, number), -1)
        if left > 0:
            self._acks[channel, number] = left - 1
        return left == 0


def _events(body: bytes) -> list[Json]:
    """JSON objects one behind the other."""
    decoder, text, found = json.JSONDecoder(), body.decode(), []
    while text := text.lstrip():
        event, end = decoder.raw_decode(text)
        found.append(event)
        text = text[end:]
    return found


def _token_fault(asked: Asked) -> Answered | None:
    said = asked.headers.get("Authorization")
    if said is None:
        return Answered(401, {"text": "Token is required", "code": 2})
    scheme, _, token = said.partition(" ")
    if scheme != "Splunk":
        return Answered(401, {"text": "Invalid authorization", "code": 3})
    return None if token == TOKEN else Answered(403, {"text": "Invalid token", "code": 4})


def _channel_fault(channel: str) -> Answered | None:
    if not channel:
        return Answered(400, {"text": "Data channel is missing", "code": 10})
    try:
        UUID(channel)
    except ValueError:
        return Answered(400, {"text": "Invalid data channel", "code": 11})
    return None
