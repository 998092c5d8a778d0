"""Passwords: what may be one (NIST SP 800-63B-4), and how one is kept: argon2id, of which few run at a time (RFC 9106).

Nothing is asked of its composition: only a length, and that it is not among what is tried first.
"""

from __future__ import annotations

import threading
import unicodedata
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from functools import cache, cached_property
from importlib.resources import files
from typing import TYPE_CHECKING

from gateway.errors import Busy

if TYPE_CHECKING:
    from argon2 import PasswordHasher

SHORTEST, LONGEST = 12, 128
_LONGEST_TYPED = 4 * LONGEST  # before accents are composed
_WAITING = 4


class BadPassword(ValueError):
    """What was given may not be a password; the text says why and never what."""


@dataclass(frozen=True, slots=True)
class Cost:
    """What one argon2id hash costs."""

    time: int
    memory_kib: int
    lanes: int


STRONG = Cost(time=3, memory_kib=65_536, lanes=4)  # RFC 9106, section 4: the second recommended option


class Passwords:
    """Hashes and checks passwords, within a bound of processor and memory; one a process.

    Args:
        cost: of a hash that is made now; older ones keep theirs until their person signs in.
        waiting: how many may be at work or wait in each lane; more are refused.
    """

    def __init__(self, cost: Cost = STRONG, *, waiting: int = _WAITING) -> None:
        self._cost = cost
        self._lanes = {is_known: _Lane(waiting) for is_known in (True, False)}

    def hash(self, password: str) -> str:
        """The form that is kept, with its own salt and costs."""
        return self._hasher.hash(prepared(password))

    def is_right(self, password: str, stored: str | None, *, is_known: bool) -> bool:
        """Whether it is the password that was kept so; takes the same time where none was.

        Args:
            password: as it was typed.
            stored: what `hash` made.
            is_known: whether a browser asks that signed in before.
        """
        from argon2.exceptions import InvalidHashError, VerificationError

        if not 0 < len(password) <= _LONGEST_TYPED:
            return False  # whether it is so long depends on who asks alone, and tells nothing
        with self._lanes[is_known].work:
            try:
                self._hasher.verify(stored or self._nobodys, prepared(password))
            except (VerificationError, InvalidHashError):
                return False
        return stored is not None

    def place(self, *, is_known: bool) -> AbstractContextManager[None]:
        """A place among those who sign in at this moment; strangers cannot take the places of known browsers.

        Raises:
            Busy: there is none left.
        """
        return self._lanes[is_known].place()

    def is_outdated(self, stored: str) -> bool:
        """Whether it was made at another cost than hashes are made now."""
        return self._hasher.check_needs_rehash(stored)

    @cached_property
    def _hasher(self) -> PasswordHasher:
        from argon2 import PasswordHasher  # a start needs it not

        return PasswordHasher(self._cost.time, self._cost.memory_kib, self._cost.lanes)

    @cached_property
    def _nobodys(self) -> str:
        return self._hasher.hash("nobody has this password")


class _Lane:
    """One hash at a time, a few that wait, and no more."""

    def __init__(self, waiting: int) -> None:
        self._places = threading.BoundedSemaphore(waiting)
        self.work = threading.Lock()

    @contextmanager
    def place(self) -> Iterator[None]:
        if not self._places.acquire(blocking=False):
            raise Busy("Too many sign in at this moment: try again in some seconds")
        try:
            yield
        finally:
            self._places.release()


def prepared(password: str) -> str:
    """The password as it is hashed: every keyboard's blanks and accents give the same (RFC 8265, OpaqueString)."""
    blanks = "".join(" " if unicodedata.category(char) == "Zs" else char for char in password)
    return unicodedata.normalize("NFC", blanks)


def check_password(password: str, name: str) -> None:
    """Refuse what may not become a password.

    Raises:
        BadPassword: it is too short or too long, has control characters, or is tried first by everybody.
    """
    plain = prepared(password)
    if not SHORTEST <= len(plain) <= LONGEST:
        raise BadPassword(f"a password must have {SHORTEST} to {LONGEST} characters")
    if any(unicodedata.category(char) in ("Cc", "Cs", "Cn") for char in plain):
        raise BadPassword("a password must not have control characters")
    folded = plain.casefold()
    if folded in _tried_first() or len(set(folded)) < 4:
        raise BadPassword("this password is among those that are tried first: choose another")
    if _is_mostly(folded, name.casefold()):
        raise BadPassword("a password must not be made of the name it belongs to: choose another")


@cache
def _tried_first() -> frozenset[str]:
    return frozenset((files("gateway.auth.people") / "tried_first.txt").read_text("utf-8").splitlines())


def _is_mostly(password: str, name: str) -> bool:
    """Whether little is left of it without the name."""
    return bool(name) and len(password.replace(name, "")) < SHORTEST // 2 and name in password
