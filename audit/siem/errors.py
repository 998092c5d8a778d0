"""What can go wrong on the way to a SIEM."""

from __future__ import annotations

from audit.errors import AuditError


class SiemError(AuditError):
    """Something about a sink."""

    code = "SIEM_ERROR"


class BadSink(SiemError):
    """A sink in `FLG_SIEM_SINKS` that cannot be understood; the message says what to write instead."""

    code = "SIEM_SINK_INVALID"


class SinkDown(SiemError):
    """A sink that did not take a batch, or did not confirm it: the batch is sent again later.

    Args:
        sink: its name.
        why: what it did, in our words; nothing of an event and no secret.
        retry_after_s: how long it asked to be left alone.
    """

    code = "SIEM_SINK_DOWN"

    def __init__(self, sink: str, why: str, *, retry_after_s: float | None = None) -> None:
        super().__init__(f"the sink {sink} took no events: {why}. They stay in the log and are sent again.")
        self.sink = sink
        self.why = why
        self.retry_after_s = retry_after_s
