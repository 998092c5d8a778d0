"""Ports of the loopback for throwaway servers, and waiting until one listens.

Not the kernel's own choice: that is of the range in which every client's end of a connection lies, too, so that
a client could sit on a server's port between the search and the start, or while a test has the server down.
"""

from __future__ import annotations

import random
import socket
import subprocess
import time
from contextlib import closing, suppress
from itertools import cycle

_START_TIMEOUT_S = 20.0
_BELOW_CLIENTS = range(20_000, 32_000)  # Linux gives clients ports from 32,768 (ip_local_port_range)
# Of this process's own order, whatever seed a test has set: two processes seldom look at one port at once.
_CANDIDATES = cycle(random.SystemRandom().sample(_BELOW_CLIENTS, len(_BELOW_CLIENTS)))


def free_port() -> int:
    """A TCP port of the loopback that nobody listens on now, and that no client is given."""
    while True:
        port = next(_CANDIDATES)
        with closing(socket.socket()) as probe, suppress(OSError):
            probe.bind(("127.0.0.1", port))
            return port


def await_port(port: int, process: subprocess.Popen[bytes] | None = None) -> None:
    """Wait until the port answers; fail at once if the process that should answer has ended."""
    deadline = time.monotonic() + _START_TIMEOUT_S
    while time.monotonic() < deadline:
        if process is not None and process.poll() is not None:
            raise RuntimeError(f"the service ended with exit code {process.returncode} before it was ready")
        with closing(socket.socket()) as probe:
            probe.settimeout(1)
            if probe.connect_ex(("127.0.0.1", port)) == 0:
                return
        time.sleep(0.02)
    raise RuntimeError(f"nothing answered on port {port} within {_START_TIMEOUT_S:g} s")
