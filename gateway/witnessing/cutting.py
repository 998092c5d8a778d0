"""An exchange that ends in time as a whole: httpx's own limits begin anew with each byte that comes."""

from __future__ import annotations

import socket
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from typing import Any


class Cutter:
    """Cuts the connection of an exchange that takes too long; for a client with one exchange at a time."""

    def __init__(self) -> None:
        self._socket: socket.socket | None = None
        self.is_late = False

    @contextmanager
    def within(self, time_s: float) -> Iterator[None]:
        """The exchange in this block has so long."""
        self.is_late = False
        timer = threading.Timer(time_s, self._cut)
        timer.daemon = True
        timer.start()
        try:
            yield
        finally:
            timer.cancel()

    def hear(self, event: str, info: Mapping[str, Any]) -> None:
        """Learn of connections (the request extension `trace` of httpx)."""
        if event == "connection.start_tls.started" and self._socket:
            self._socket = self._socket.dup()  # the handshake takes the other one away
        elif event in ("connection.connect_tcp.complete", "connection.start_tls.complete"):
            self._follow(info["return_value"].get_extra_info("socket"))
        elif event == "connection.start_tls.failed":
            self._follow(None)

    def _follow(self, connection: socket.socket | None) -> None:
        before, self._socket = self._socket, connection
        if before:
            before.close()
        if self.is_late:
            self._cut()

    def _cut(self) -> None:
        self.is_late = True
        if connection := self._socket:
            with suppress(OSError):  # it is closed already
                socket.socket.shutdown(connection, socket.SHUT_RDWR)  # below TLS, which another thread is in
