"""What a TCP connection can tell about bytes that were sent over it: received, read to the end, or perhaps lost."""

from __future__ import annotations

import errno
import fcntl
import os
import socket
import ssl
import struct
import termios
import time
from contextlib import suppress

_LOOK_S = 0.005
_BLOCK = 65_536
_CLOSED, _TIME_WAIT = 7, 6  # tcpi_state of Linux


def send_all(connection: socket.socket, frames: bytes, timeout_s: float) -> None:
    """Send everything within the time, however slowly it is taken."""
    deadline, rest = time.monotonic() + timeout_s, memoryview(frames)
    while rest:
        _allow_until(connection, deadline)
        rest = rest[connection.send(rest[:_BLOCK]) :]


def end_and_await_end(connection: socket.socket, timeout_s: float) -> None:
    """End our half and wait for the receiver's end, which it sends once it read ours.

    An end that comes before the receiver's machine has all of our bytes is a program that went away early: its
    machine then answers what arrives late with a reset, and that is waited for.

    Raises:
        OSError: the receiver may not have read everything.
    """
    deadline = time.monotonic() + timeout_s
    with _without_tls(connection, deadline) as plain:
        plain.shutdown(socket.SHUT_WR)
        _allow_until(plain, deadline)
        while plain.recv(4096):  # what it says meanwhile means nothing in syslog
            _allow_until(plain, deadline)
        while _state(plain) not in (_CLOSED, _TIME_WAIT):
            _pause_until(deadline)
        _raise_if_reset(plain)


def await_receipt(connection: socket.socket, timeout_s: float) -> None:
    """Wait until the receiver's machine has acknowledged every byte."""
    deadline = time.monotonic() + timeout_s
    while _unacknowledged(connection):
        _raise_if_reset(connection)
        _pause_until(deadline)


def live_on(connection: socket.socket, time_s: float) -> None:
    """See that the connection lives through this time.

    Raises:
        OSError: it was ended or reset.
    """
    deadline = time.monotonic() + time_s
    try:
        while True:
            _allow_until(connection, deadline)
            if not connection.recv(4096):
                raise ConnectionResetError(errno.ECONNRESET, os.strerror(errno.ECONNRESET))
    except TimeoutError:
        return


def _without_tls(connection: socket.socket, deadline: float) -> socket.socket:
    """The TCP connection below, after our close_notify; some receivers end TCP without one of their own."""
    _allow_until(connection, deadline)
    if isinstance(connection, ssl.SSLSocket):
        with suppress(ssl.SSLEOFError):
            connection.unwrap()
    return socket.socket(fileno=connection.detach())


def _allow_until(connection: socket.socket, deadline: float) -> None:
    left_s = deadline - time.monotonic()
    if left_s <= 0:
        raise TimeoutError
    connection.settimeout(left_s)


def _pause_until(deadline: float) -> None:
    if time.monotonic() > deadline:
        raise TimeoutError
    time.sleep(_LOOK_S)


def _state(connection: socket.socket) -> int:
    return connection.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, 1)[0]


def _raise_if_reset(connection: socket.socket) -> None:
    if number := connection.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR):
        raise OSError(number, os.strerror(number))


def _unacknowledged(connection: socket.socket) -> int:
    answer = fcntl.ioctl(connection.fileno(), termios.TIOCOUTQ, struct.pack("i", 0))
    return int(struct.unpack("i", answer)[0])
