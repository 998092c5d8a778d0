"""How many times tokens were ended, counted where every process of the machine sees it at once.

A count a group of tokens, so that whoever ends tokens all day empties only a 256th of what others have looked up.
Nothing is fsynced: a count lost with the machine is lost together with every cache that it would have emptied.
"""

from __future__ import annotations

import fcntl
import mmap
from collections.abc import Iterable
from pathlib import Path

_GROUPS = 256
_EVERY, _ANY = _GROUPS, _GROUPS + 1
_BYTES = 8
_SIZE = (_GROUPS + 2) * _BYTES


class Endings:
    """Counts in a memory-mapped file; reading takes no lock and no system call."""

    def __init__(self, path: Path) -> None:
        self._path = path
        with path.open("ab") as file:
            if file.tell() < _SIZE:
                file.write(bytes(_SIZE - file.tell()))
        with path.open("r+b") as file:
            self._counts = memoryview(mmap.mmap(file.fileno(), _SIZE)).cast("Q")

    def of(self, key: str) -> int:
        """A number that moves when the thing under this key may have ended.

        Args:
            key: begins with two hex digits, such as a token's hash or a random id.
        """
        return self._counts[int(key[:2], 16)] + self._counts[_EVERY]

    def of_any(self) -> int:
        """A number that moves whenever anything has ended."""
        return self._counts[_ANY]

    def tell(self, keys: Iterable[str]) -> None:
        """These have ended; call it after the commit that says so."""
        self._count(_ANY, *{int(key[:2], 16) for key in keys})

    def tell_of_every(self) -> None:
        """Nobody knows which have ended: it may be any of them."""
        self._count(_ANY, _EVERY)

    def _count(self, *places: int) -> None:
        """In this order: a verdict on one token, found anew, must not rest on an older list of all."""
        with self._path.open("r+b") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            for place in places:
                self._counts[place] += 1
