"""Delivery to the SIEM: every event at least once, in order, however long a sink is down (promise 6)."""

from audit.siem.cursor import Cursor, lag_entries, read_cursor
from audit.siem.errors import BadSink, SiemError, SinkDown
from audit.siem.event import SiemEvent, render
from audit.siem.forwarder import Forwarder, SinkState, backoff_s
from audit.siem.sinks import NamedSink, Sink, parse_sinks

__all__ = [
    "BadSink",
    "Cursor",
    "Forwarder",
    "NamedSink",
    "SiemError",
    "SiemEvent",
    "Sink",
    "SinkDown",
    "SinkState",
    "backoff_s",
    "lag_entries",
    "parse_sinks",
    "read_cursor",
    "render",
]
