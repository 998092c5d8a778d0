"""A sink that speaks syslog over TCP or TLS: RFC 5424 messages in octet-counting frames (RFC 6587, RFC 5425).

The protocol has no answer. So a batch is a connection of its own: we end our half, and only the receiver's own end,
which it sends after it read ours, counts as its word (`confirm=close`). For a receiver that never closes, one
connection stays, and a batch counts once it has lived on for a while with every byte received (`confirm=sent`).
"""

from __future__ import annotations

import re
import socket
import ssl
from collections.abc import Sequence
from enum import StrEnum

from audit.siem import connection as wire
from audit.siem.errors import SinkDown
from audit.siem.event import SiemEvent
from audit.siem.formats import FORMATS, Format
from audit.siem.sink import Delivery, encode
from audit.siem.tls import TlsFiles, words_of

_FACILITY = 13  # log audit
_SEVERITIES = {"success": 6, "denied": 4, "failure": 3}  # informational, warning, error
_APP_NAME = "fl-gateway"
_STRUCTURED_ID = "flg@32473"
_BOM = b"\xef\xbb\xbf"


class Confirmation(StrEnum):
    """What counts as taken."""

    CLOSE = "close"  # the receiver read to our end, and closed
    SENT = "sent"  # its kernel has it all and the connection lives on; an outage may cost what was unread


_ANSWERS = {
    Confirmation.CLOSE: "the receiver read the batch to its end and closed",
    Confirmation.SENT: "the receiver's machine has the batch and the connection lives on: weaker than its close",
}


class SyslogSink:
    """Sends batches to one receiver; after a failure the whole batch is sent again.

    Args:
        host: where it listens; with TLS also the name that its certificate must bear.
        port: likewise.
        form: what a message holds.
        hostname: what messages say about their origin.
        confirmation: what counts as taken.
        tls: for syslog over TLS (RFC 5425).
        timeout_s: for connecting, for sending, and for the receiver's end, each.
        settle_s: how long a standing connection must live on after a batch.
    """

    def __init__(
        self,
        host: str,
        port: int,
        *,
        form: Format = FORMATS["raw"],
        hostname: str = "-",
        confirmation: Confirmation = Confirmation.CLOSE,
        tls: TlsFiles | None = None,
        timeout_s: float = 30.0,
        settle_s: float = 1.0,
    ) -> None:
        self._address, self._tls, self._form = (host, port), tls, form
        self._hostname = _printable(hostname, 255)
        self._confirmation = confirmation
        self._timeout_s, self._settle_s = timeout_s, settle_s
        self._standing: socket.socket | None = None
        self._name = f"syslog+{'tls' if tls else 'tcp'}://{host}:{port}"

    def deliver(self, events: Sequence[SiemEvent]) -> Delivery:
        """Send the batch and wait until it counts as taken."""
        frames = b"".join(frame(event, self._hostname, self._form) for event in events)
        try:
            if self._confirmation is Confirmation.CLOSE:
                self._send_and_end(frames)
            else:
                self._send_and_settle(frames)
        except OSError as error:
            raise SinkDown(self._name, words_of(error)) from error
        return Delivery(_ANSWERS[self._confirmation])

    def probe(self) -> None:
        """Connect, shake hands, and go."""
        try:
            self._connect().close()
        except OSError as error:
            raise SinkDown(self._name, words_of(error)) from error

    def close(self) -> None:
        """Close the standing connection, if there is one."""
        if self._standing:
            self._standing.close()
            self._standing = None

    def _send_and_end(self, frames: bytes) -> None:
        with self._connect() as connection:
            wire.send_all(connection, frames, self._timeout_s)
            wire.end_and_await_end(connection, self._timeout_s)

    def _send_and_settle(self, frames: bytes) -> None:
        self._standing = self._standing or self._connect()
        try:
            wire.send_all(self._standing, frames, self._timeout_s)
            wire.await_receipt(self._standing, self._timeout_s)
            wire.live_on(self._standing, self._settle_s)
        except OSError:
            self.close()
            raise

    def _connect(self) -> socket.socket:
        context = self._tls.context(self._name) if self._tls else None
        made = socket.create_connection(self._address, self._timeout_s)
        if context is None:
            return made
        try:
            return context.wrap_socket(made, server_hostname=self._address[0])
        except (OSError, ssl.CertificateError):
            made.close()
            raise


def frame(event: SiemEvent, hostname: str, form: Format = FORMATS["raw"]) -> bytes:
    """One RFC 5424 message behind its length in bytes (RFC 6587, 3.4.1; RFC 5425, 4.3)."""
    priority = _FACILITY * 8 + _SEVERITIES[event.text("outcome")]
    kind = _printable(event.text("event_type"), 32)
    data = f'[{_STRUCTURED_ID} seq="{event.seq}" prevSeq="{event.prev_seq}"]'
    header = f"<{priority}>1 {event.text('time')} {hostname} {_APP_NAME} - {kind} {data} "
    message = header.encode("ascii") + _BOM + encode(event, form)
    return str(len(message)).encode("ascii") + b" " + message


def _printable(text: str, length: int) -> str:
    """The text as RFC 5424 wants a header field: printable ASCII without spaces, or a dash for nothing."""
    return re.sub(r"[^\x21-\x7e]", "_", text)[:length] or "-"
