"""A sink that is a Splunk HTTP Event Collector, with indexer acknowledgement where the server gives it.

Its 200 says that the events were well formed; that they are indexed only the acknowledgement says. Without one
within the time the batch is sent again: an id that expired and an event that was forgotten look the same.
"""

from __future__ import annotations

import json
import logging
import time
from collections.abc import Sequence
from enum import StrEnum

from audit.siem.errors import SinkDown
from audit.siem.event import SiemEvent
from audit.siem.formats import Format
from audit.siem.http import Answer, Endpoint
from audit.siem.sink import Delivery, Unfit, encode, piecewise

log = logging.getLogger(__name__)
_EVENTS, _ACKS, _HEALTH = (f"/services/collector/{name}" for name in ("event", "ack", "health"))
_JSON = "application/json"
_FIRST_LOOK_S, _LONGEST_LOOK_S = 0.05, 2.0
_SUCCESS, _ACK_IS_DISABLED = 0, 14
_OF_AN_EVENT = {
    5: "no data",
    6: "invalid data format",
    12: "no event",
    13: "blank event",
    15: "indexed fields",
}
"""The codes that blame an event; every other one blames the token, the channel, the index or the server."""

_MEANINGS = {
    1: "the token is disabled",
    2: "a token is required",
    3: "the authorization is invalid",
    4: "the token is invalid",
    7: "the token may not write to this index",
    8: "a fault of its own",
    9: "it is busy",
    10: "the channel is missing",
    11: "the channel is invalid",
    14: "acknowledgement is disabled",
    21: "the token is invalid",
    22: "the token is disabled",
    23: "it is shutting down",
    26: "its queue is full",
    27: "its acknowledgements are full",
}

ACKNOWLEDGED = "200, and the indexers acknowledged the events"
UNACKNOWLEDGED = "200 alone: this server gives no acknowledgement, so what it loses before indexing is lost"


class Ack(StrEnum):
    """Whether the server's 200 may do."""

    AUTO = "auto"  # where it gives no acknowledgement
    REQUIRED = "required"  # never


class HecSink:
    """Posts batches of events under one channel.

    Args:
        endpoint: the server and the token.
        form: what an event holds.
        channel: a GUID, ours alone.
        host: the event's host, as Splunk shows it.
        sourcetype: likewise.
        index: where to; empty: the token's own.
        ack: whether its 200 may do.
    """

    def __init__(
        self,
        endpoint: Endpoint,
        *,
        form: Format,
        channel: str,
        host: str,
        sourcetype: str,
        index: str = "",
        ack: Ack = Ack.AUTO,
    ) -> None:
        self._endpoint, self._form, self._channel, self._ack = endpoint, form, channel, ack
        self._about = {"host": host, "source": "fl-gateway", "sourcetype": sourcetype}
        if index:
            self._about["index"] = index
        self._has_told = False

    def deliver(self, events: Sequence[SiemEvent]) -> Delivery:
        """Post the batch, and wait for its acknowledgement; an event that Splunk cannot take is found and left out."""
        return piecewise(events, self._attempt)

    def probe(self) -> None:
        """Ask for its health."""
        self._endpoint.reach(_HEALTH)

    def close(self) -> None:
        """Close its connections."""
        self._endpoint.close()

    def _wrapped(self, event: SiemEvent) -> bytes:
        about = json.dumps({"time": event.time.timestamp(), **self._about}, separators=(",", ":"))
        return about[:-1].encode() + b',"event":' + encode(event, self._form) + b"}"

    def _post(self, path: str, body: bytes) -> Answer:
        return self._endpoint.post(path, body, _JSON, X_Splunk_Request_Channel=self._channel)

    def _attempt(self, events: Sequence[SiemEvent]) -> Delivery | Unfit:
        answer = self._post(_EVENTS, b"\n".join(map(self._wrapped, events)))
        code = answer.content.get("code")
        if answer.status == 200:
            if type(code) is not int or code != _SUCCESS:
                raise SinkDown(self._endpoint.name, "it answered 200 without the word of a collector")
            return Delivery(self._confirmed(answer))
        if answer.status == 413:
            return Unfit("413 too large")
        if answer.status == 400 and code in _OF_AN_EVENT:
            position = answer.content.get("invalid-event-number")
            return Unfit(f"400 {_OF_AN_EVENT[code]}", position if type(position) is int else None)
        raise self._down(answer)

    def _confirmed(self, answer: Answer) -> str:
        """What its 200 is worth, once its acknowledgement has come if there is one."""
        ack_id = answer.content.get("ackId")
        if type(ack_id) is int and self._is_acknowledged(ack_id):
            return ACKNOWLEDGED
        if self._ack is Ack.REQUIRED:
            why = (
                "it gives no indexer acknowledgement, which ack=required insists on: turn it on for the token"
            )
            raise SinkDown(self._endpoint.name, why)
        if not self._has_told:
            log.warning("the sink %s: %s", self._endpoint.name, UNACKNOWLEDGED)
            self._has_told = True
        return UNACKNOWLEDGED

    def _is_acknowledged(self, ack_id: int) -> bool:
        """Ask until it is; False where the server turns out to have no acknowledgements at all."""
        deadline, pause_s = time.monotonic() + self._endpoint.timeout_s, _FIRST_LOOK_S
        while True:
            answer = self._post(_ACKS, json.dumps({"acks": [ack_id]}).encode())
            if answer.status == 400 and answer.content.get("code") == _ACK_IS_DISABLED:
                return False
            if answer.status != 200:
                raise self._down(answer)
            acks = answer.content.get("acks")
            if isinstance(acks, dict) and acks.get(str(ack_id)) is True:
                return True
            if time.monotonic() + pause_s > deadline:
                raise SinkDown(self._endpoint.name, "its indexers did not acknowledge the batch in time")
            time.sleep(pause_s)
            pause_s = min(_LONGEST_LOOK_S, pause_s * 2)

    def _down(self, answer: Answer) -> SinkDown:
        code = answer.content.get("code")
        meaning = _MEANINGS.get(code, "") if type(code) is int else ""
        why = f"it answered {answer.status}{f' ({meaning})' if meaning else ''}"
        return SinkDown(self._endpoint.name, why, retry_after_s=answer.retry_after_s)
