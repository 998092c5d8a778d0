"""A peer that sends a few bytes now and then, until it is told that it is too slow."""

from __future__ import annotations

import socket

PAUSE_S = 0.05
_AT_ONCE = 4
_PATIENCE_S = 20.0


def trickle(peer: socket.socket, rest: bytes) -> bytes:
    """Send all but the last byte slowly until the server answers; what it answers."""
    peer.settimeout(PAUSE_S)
    for start in range(0, len(rest) - 1, _AT_ONCE):
        peer.sendall(rest[start : start + _AT_ONCE])
        try:
            answer = peer.recv(65_536)
        except TimeoutError:
            continue
        peer.settimeout(_PATIENCE_S)
        while b"UPLOAD_TOO_SLOW" not in answer and (more := peer.recv(65_536)):
            answer += more
        return answer
    raise AssertionError("the whole body was taken")
