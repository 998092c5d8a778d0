"""A sink that is Elasticsearch (or what speaks its `_bulk`): each entry is created once, under its own id.

The verdict is an item's: created (201) or there already (409) is done, 429 and 5xx come again, another 4xx is for good.
The whole batch comes again if any of it must: what is there already answers 409.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from typing import Any

from audit.siem.errors import SinkDown
from audit.siem.event import SiemEvent
from audit.siem.formats import Format
from audit.siem.http import Answer, Endpoint
from audit.siem.sink import Delivery, Refusal, Unfit, encode, piecewise

_NDJSON = "application/x-ndjson"
_DONE = (200, 201, 409)
_OF_THE_SINK = (401, 403, 404)
"""Verdicts on the key, its rights or the index: where nothing of a batch is taken, no event is to blame."""

ANSWER = "201 or 409 for each event: it is in the index under its id"


class ElasticSink:
    """Creates one document an event.

    Args:
        endpoint: the server and the API key.
        form: what a document holds.
        index: the data stream, index or alias.
    """

    def __init__(self, endpoint: Endpoint, *, form: Format, index: str) -> None:
        self._endpoint, self._form, self._index = endpoint, form, index

    def deliver(self, events: Sequence[SiemEvent]) -> Delivery:
        """Send the batch as one bulk, and read the verdict on each event."""
        return piecewise(events, self._attempt)

    def probe(self) -> None:
        """Ask who it is."""
        self._endpoint.reach("/")

    def close(self) -> None:
        """Close its connections."""
        self._endpoint.close()

    def _attempt(self, events: Sequence[SiemEvent]) -> Delivery | Unfit:
        body = b"".join(map(self._action, events))
        answer = self._endpoint.post("/_bulk", body, _NDJSON)
        if answer.status == 413:
            return Unfit("413 too large")
        if answer.status != 200:
            raise self._down(f"it answered {answer.status}", answer)
        verdicts = self._verdicts(events, answer)
        again = [status for status, _ in verdicts if status == 429 or not 200 <= status < 500]
        if again:
            raise self._down(f"it put off {len(again)} of {len(events)} events ({again[0]})", answer)
        told = zip(events, verdicts, strict=True)
        refused = [(event, verdict) for event, verdict in told if verdict[0] not in _DONE]
        of_the_sink = [verdict for verdict in verdicts if verdict[0] in _OF_THE_SINK]
        if of_the_sink and len(refused) == len(events):
            raise self._down(f"it refused every event ({_told(of_the_sink[0])})", answer)
        return Delivery(ANSWER, tuple(Refusal(event, _told(verdict)) for event, verdict in refused))

    def _action(self, event: SiemEvent) -> bytes:
        head = {"create": {"_index": self._index, "_id": document_id(event)}}
        return json.dumps(head, separators=(",", ":")).encode() + b"\n" + encode(event, self._form) + b"\n"

    def _verdicts(self, events: Sequence[SiemEvent], answer: Answer) -> list[tuple[int, str]]:
        """Status and kind of error of each event; a half or a foreign answer is none."""
        items = answer.content.get("items")
        if not isinstance(items, list) or len(items) != len(events):
            raise self._down("it did not answer for each event", answer)
        results = [item.get("create") if isinstance(item, dict) else None for item in items]
        for event, result in zip(events, results, strict=True):
            if isinstance(result, dict) and result.get("_id", document_id(event)) != document_id(event):
                raise self._down("it answered for other events than were sent", answer)
        return [_verdict(result) if isinstance(result, dict) else (0, "") for result in results]

    def _down(self, why: str, answer: Answer) -> SinkDown:
        return SinkDown(self._endpoint.name, why, retry_after_s=answer.retry_after_s)


def document_id(event: SiemEvent) -> str:
    """The entry's id; an entry that cannot be read is known by its place."""
    entry_id = event.entry.get("id")
    return entry_id if isinstance(entry_id, str) else f"unreadable-{event.seq}"


def _verdict(result: Mapping[str, Any]) -> tuple[int, str]:
    status, error = result.get("status"), result.get("error")
    kind = error.get("type") if isinstance(error, dict) else None
    known = kind if isinstance(kind, str) and re.fullmatch(r"[a-z_]{1,80}", kind) else ""
    return (status if type(status) is int else 0), known


def _told(verdict: tuple[int, str]) -> str:
    return " ".join(map(str, filter(None, verdict)))
