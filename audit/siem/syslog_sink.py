"""A sink that speaks syslog over TCP: RFC 5424 messages in RFC 6587 octet-counting frames.

TCP says what the other machine got, never what the other program read. So a batch is a connection of its own:
we end our half, and only the receiver's own end, which it sends after it read ours, counts as its word.
"""

from __future__ import annotations

import re
import socket
from collections.abc import Sequence
from enum import StrEnum

from audit.siem.errors import SinkDown
from audit.siem.event import SiemEvent

_FACILITY = 13  # log audit
_SEVERITIES = {"success": 6, "denied": 4, "failure": 3}  # informational, warning, error
_APP_NAME = "fl-gateway"
_STRUCTURED_ID = "flg@32473"
_BOM = b"\xef\xbb\xbf"


class Confirmation(StrEnum):
    """What counts as taken."""

    CLOSE = "close"  # the receiver read to our end, and closed
    SENT = "sent"  # the bytes left us; for receivers that never close. An outage may cost what was unread


class SyslogSink:
    """Sends each batch over a connection of its own; after a failure the whole batch is sent again."""

    def __init__(
        self,
        host: str,
        port: int,
        *,
        hostname: str = "-",
        confirmation: Confirmation = Confirmation.CLOSE,
        timeout_s: float = 30.0,
    ) -> None:
        self._address = (host, port)
        self._hostname = _printable(hostname, 255)
        self._confirmation = confirmation
        self._timeout_s = timeout_s

    def deliver(self, events: Sequence[SiemEvent]) -> None:
        """Send the batch and wait until the receiver has read it."""
        frames = b"".join(frame(event, self._hostname) for event in events)
        try:
            with socket.create_connection(self._address, self._timeout_s) as connection:
                connection.sendall(frames)
                connection.shutdown(socket.SHUT_WR)
                if self._confirmation is Confirmation.CLOSE:
                    _await_end(connection)
        except TimeoutError as error:
            raise self._down("it did not answer, or not read the batch to its end, in time") from error
        except OSError as error:
            raise self._down(error.strerror or "it cannot be reached") from error

    def _down(self, why: str) -> SinkDown:
        return SinkDown(f"syslog+tcp://{self._address[0]}:{self._address[1]}", why)


def frame(event: SiemEvent, hostname: str) -> bytes:
    """One RFC 5424 message behind its length in bytes (RFC 6587, 3.4.1)."""
    priority = _FACILITY * 8 + _SEVERITIES[event.text("outcome")]
    kind = _printable(event.text("event_type"), 32)
    data = f'[{_STRUCTURED_ID} seq="{event.seq}" prevSeq="{event.prev_seq}"]'
    header = f"<{priority}>1 {event.text('time')} {hostname} {_APP_NAME} - {kind} {data} "
    message = header.encode("ascii") + _BOM + event.json()
    return str(len(message)).encode("ascii") + b" " + message


def _await_end(connection: socket.socket) -> None:
    """Read until the receiver ends its half; what it says meanwhile means nothing in syslog."""
    while connection.recv(4096):
        pass


def _printable(text: str, length: int) -> str:
    """The text as RFC 5424 wants a header field: printable ASCII without spaces, or a dash for nothing."""
    return re.sub(r"[^\x21-\x7e]", "_", text)[:length] or "-"
