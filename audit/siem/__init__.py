"""Delivery to the SIEM: every event at least once, in order, however long a sink is down (promise 6)."""

from audit.siem.breaker import backoff_s
from audit.siem.cursor import Cursor, Standing, lag_entries, read_cursor, read_standing
from audit.siem.dead_letters import DeadLetter, count_dead_letters, read_dead_letters
from audit.siem.errors import BadSink, SiemError, SinkDown
from audit.siem.event import SiemEvent, render
from audit.siem.forwarder import Forwarder
from audit.siem.sink import Delivery, Refusal, Sink
from audit.siem.sinks import NamedSink, parse_sinks

__all__ = [
    "BadSink",
    "Cursor",
    "DeadLetter",
    "Delivery",
    "Forwarder",
    "NamedSink",
    "Refusal",
    "SiemError",
    "SiemEvent",
    "Sink",
    "SinkDown",
    "Standing",
    "backoff_s",
    "count_dead_letters",
    "lag_entries",
    "parse_sinks",
    "read_cursor",
    "read_dead_letters",
    "read_standing",
    "render",
]
