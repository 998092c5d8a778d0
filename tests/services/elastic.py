"""The `_bulk` of Elasticsearch as Elastic describes it: an action line and a document each, a verdict each."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass, field
from enum import StrEnum

from services.siem_http import Answered, Asked, Json

KEY = "Y2FuYXJ5OmFwaS1rZXk="


class Mood(StrEnum):
    """What the server does with a bulk, once each."""

    LIMITED = "limited"  # 429 for all of it, with Retry-After
    AWAY = "away"  # 503
    HALF = "half"  # takes the first half, and ends the connection without an answer
    SHORT = "short"  # takes all of it, and answers for the first half
    HANGS = "hangs"
    CUT = "cut"  # takes all of it, and ends the connection in the middle of the answer


@dataclass
class Elastic:
    """Keeps the documents by index and id, in the order of their creation."""

    moods: list[Mood | None] = field(default_factory=list)
    """For the next bulks, one each; then, and at None, all is well."""
    status_of: Callable[[Json], int] = lambda _document: 201
    """The verdict on a document that is not there yet."""
    longest_body: int = 100 << 20
    documents: dict[tuple[str, str], Json] = field(default_factory=dict)
    conflicts: int = 0
    bulks: int = 0

    def answer(self, asked: Asked) -> Answered:
        """The answer to one request."""
        if asked.headers.get("Authorization") != f"ApiKey {KEY}":
            return Answered(401, {"error": {"type": "security_exception", "reason": KEY}, "status": 401})
        if asked.path != "/_bulk":
            return Answered(200, {"tagline": "You Know, for Search"})
        self.bulks += 1
        mood = self.moods.pop(0) if self.moods else None
        if mood is Mood.LIMITED:
            return Answered(429, {"status": 429}, {"Retry-After": "7"})
        if mood is Mood.AWAY:
            return Answered(503, {"status": 503})
        if mood is Mood.HANGS:
            return Answered(hangs=True)
        if len(asked.body) > self.longest_body:
            return Answered(413, {"status": 413})
        return self._bulk(asked.body.splitlines(), mood)

    def _bulk(self, lines: list[bytes], mood: Mood | None) -> Answered:
        pairs = list(zip(lines[::2], lines[1::2], strict=True))
        half = len(pairs) // 2
        wanted = pairs[:half] if mood is Mood.HALF else pairs
        items = [self._create(json.loads(action)["create"], json.loads(line)) for action, line in wanted]
        if mood is Mood.HALF:
            return Answered()
        shown = items[:half] if mood is Mood.SHORT else items
        errors = any("error" in item["create"] for item in items)
        return Answered(200, {"took": 1, "errors": errors, "items": shown}, cut=mood is Mood.CUT)

    def _create(self, action: Json, document: Json) -> Json:
        place = (action["_index"], action["_id"])
        status, kind = 201, ""
        if place in self.documents:
            self.conflicts += 1
            status, kind = 409, "version_conflict_engine_exception"
        elif (status := self.status_of(document)) == 201:
            self.documents[place] = document
        else:
            kind = "document_parsing_exception" if status == 400 else "es_rejected_execution_exception"
        fault = {"error": {"type": kind, "reason": "canary"}} if kind else {}
        return {"create": {"_index": place[0], "_id": place[1], "status": status, **fault}}
