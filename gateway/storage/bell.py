"""Bells wake who waits for new rows, across threads and, on PostgreSQL, across processes.

A bell is a hint (RULES 4): it may ring for nothing and may be missed, so that every waiter looks at the rows again
and looks now and then without a bell.
"""

from __future__ import annotations

import threading
from collections.abc import Mapping
from enum import StrEnum
from typing import Protocol

from sqlalchemy import Engine

POLL_S = 0.05


class Channel(StrEnum):
    """What a bell says; on PostgreSQL the name follows `flg_`."""

    PENDING = "pending"
    """Entries wait for their place."""
    LOG = "log"
    """The log grew."""
    ROUNDS = "rounds"
    """A round, its updates or the messages about them changed."""
    INVITATIONS = "invitations"
    """Clients were invited."""


class Bell(Protocol):
    """Rings and waits; safe for threads."""

    def ring(self, channel: Channel) -> None:
        """Wake the waiters; to be called after the commit. It never fails and never waits."""

    def wait(self, channel: Channel, timeout_s: float) -> bool:
        """Wait for a ring, also one since this thread's last wait; says whether there was one."""

    def close(self) -> None:
        """End the threads, and every wait."""


class Rings:
    """Counts the rings of this process; each waiting thread knows how many it has heard."""

    def __init__(self) -> None:
        self._changed = threading.Condition()
        self._counts = dict.fromkeys(Channel, 0)
        self._heard = threading.local()
        self._is_closed = False

    def add(self, *channels: Channel) -> None:
        with self._changed:
            for channel in channels:
                self._counts[channel] += 1
            self._changed.notify_all()

    def wait(self, channel: Channel, timeout_s: float) -> bool:
        heard = self._heard.__dict__
        known: int = heard.get(channel, 0)
        with self._changed:
            self._changed.wait_for(lambda: self._is_closed or self._counts[channel] != known, timeout_s)
            heard[channel] = now = self._counts[channel]
        return now != known

    def close(self) -> None:
        with self._changed:
            self._is_closed = True
            self._changed.notify_all()


class LocalBell:
    """The bell of an embedded gateway: other processes cannot ring it, so that no wait is longer than a poll.

    Args:
        polls_s: by channel, the longest wait.
    """

    def __init__(self, polls_s: Mapping[Channel, float] | None = None) -> None:
        self._rings = Rings()
        self._polls_s = dict(polls_s or {})

    def ring(self, channel: Channel) -> None:
        """Wake the waiters of this process."""
        self._rings.add(channel)

    def wait(self, channel: Channel, timeout_s: float) -> bool:
        """Wait for a ring, at most one poll long."""
        return self._rings.wait(channel, min(timeout_s, self._polls_s.get(channel, POLL_S)))

    def close(self) -> None:
        """End every wait."""
        self._rings.close()


def open_bell(engine: Engine, polls_s: Mapping[Channel, float] | None = None) -> Bell:
    """The bell of a database.

    Args:
        engine: the main database.
        polls_s: by channel, the longest wait where no other process can ring.
    """
    if engine.dialect.name != "postgresql":
        return LocalBell(polls_s)
    from gateway.storage.postgres_bell import PostgresBell  # an embedded gateway need not load psycopg

    return PostgresBell(engine)
