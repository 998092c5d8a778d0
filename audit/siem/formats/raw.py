"""Our own form: the log's entry as it is, with its place and the place that the sink was sent before."""

from __future__ import annotations

from audit.canonical import JsonValue
from audit.siem.event import SiemEvent


def raw(event: SiemEvent) -> dict[str, JsonValue]:
    """`{seq, prev_seq, entry}`."""
    return {"seq": event.seq, "prev_seq": event.prev_seq, "entry": event.entry}
