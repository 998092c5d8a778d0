"""Where the gateway listens: an address, or a Unix socket; bound by the parent, so that a restart loses no request."""

from __future__ import annotations

import errno
import os
import socket
import stat
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from http import HTTPStatus
from http.client import HTTPConnection, HTTPException
from pathlib import Path

READY_PATIENCE_S = 60.0
BACKLOG = 512
SOCKET_MODE = 0o660  # the owner and the group, to which the front's user belongs; nobody else


def bind(host: str, port: int) -> socket.socket:
    """A listening socket that children inherit; port 0 takes a free one.

    Raises:
        OSError: the address is in use, or not of this machine.
    """
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    listening = socket.socket(family, socket.SOCK_STREAM)
    listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    listening.bind((host, port))
    return _opened(listening)


def bind_path(path: Path) -> socket.socket:
    """A listening Unix socket that children inherit; what a killed gateway left at the path is replaced.

    Raises:
        OSError: somebody listens there, it is another kind of file, or the folder cannot be written.
    """
    _clear(path)
    listening = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        listening.bind(str(path))
        path.chmod(SOCKET_MODE)  # before `listen`: until then nobody can connect, whatever the umask
        return _opened(listening)
    except OSError:
        listening.close()
        raise


@contextmanager
def named(listening: socket.socket) -> Iterator[socket.socket]:
    """The socket for as long as the block runs; then it is closed, and a Unix socket loses its name.

    A server's workers are forks that leave the block too: the name is the first process's to remove.
    """
    owner = os.getpid()
    path = listening.getsockname() if listening.family == socket.AF_UNIX else None
    try:
        yield listening
    finally:
        if os.getpid() == owner:
            if path:
                Path(path).unlink(missing_ok=True)
            listening.close()


def url_of(listening: socket.socket) -> str:
    """Where clients on this machine reach the socket: `http://HOST:PORT` or `unix:/PATH`."""
    if listening.family == socket.AF_UNIX:
        return f"unix:{listening.getsockname()}"
    host, port = listening.getsockname()[:2]
    shown = {"0.0.0.0": "127.0.0.1", "::": "[::1]"}.get(host, f"[{host}]" if ":" in host else host)  # noqa: S104
    return f"http://{shown}:{port}"


def wait_until_ready(url: str, stop: threading.Event) -> bool:
    """Whether `/health` answers 200 before patience ends."""
    deadline = time.monotonic() + READY_PATIENCE_S
    while time.monotonic() < deadline and not stop.is_set():
        if _is_healthy(url):
            return True
        stop.wait(0.05)
    return False


def _is_healthy(url: str) -> bool:
    connection = _connection(url)
    try:
        connection.request("GET", "/health")
        return connection.getresponse().status == HTTPStatus.OK
    except (OSError, HTTPException):
        return False
    finally:
        connection.close()


def _connection(url: str) -> HTTPConnection:
    if not url.startswith("unix:"):
        return HTTPConnection(url.removeprefix("http://"), timeout=5.0)
    connection = HTTPConnection("localhost")
    connection.sock = socket.socket(socket.AF_UNIX)
    connection.sock.settimeout(5.0)
    with suppress(OSError):  # then the request fails
        connection.sock.connect(url.removeprefix("unix:"))
    return connection


def _opened(listening: socket.socket) -> socket.socket:
    listening.listen(BACKLOG)
    listening.set_inheritable(True)
    return listening


def _clear(path: Path) -> None:
    """Remove a socket at which nobody listens any more."""
    try:
        if not stat.S_ISSOCK(path.lstat().st_mode):
            raise OSError(errno.EEXIST, "there is a file that is no socket")
        with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as probe:
            probe.settimeout(1.0)
            probe.connect(str(path))
    except ConnectionRefusedError:
        path.unlink(missing_ok=True)
    except FileNotFoundError:
        return
    else:
        raise OSError(errno.EADDRINUSE, os.strerror(errno.EADDRINUSE))
