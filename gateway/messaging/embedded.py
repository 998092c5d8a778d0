"""The embedded queue: the outbox table is the queue, and an acknowledged message is a deleted row."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Sequence
from datetime import datetime, timedelta
from itertools import groupby

from sqlalchemy import Engine

from gateway.messaging.outbox import QueueName, bury, forget, purge_dead, waiting
from gateway.messaging.queue import Message, QueueState

LEASE_S = 60.0
DEAD_KEPT = timedelta(days=7)
_POLL_S = 0.25


class EmbeddedQueue:
    """Messages of the outbox, each lent to one receiver of this process at a time.

    Another process may be given the same message meanwhile: messages are hints, and their receivers idempotent.

    Args:
        engine: the main database.
        clock: the time, for the age of dead letters.
    """

    def __init__(self, engine: Engine, clock: Callable[[], datetime]) -> None:
        self._engine = engine
        self._clock = clock
        self._lock = threading.Lock()
        self._lent: dict[str, float] = {}

    def receive(self, queue: QueueName, *, limit: int, wait_s: float = 0.0) -> list[Message]:
        """Up to `limit` messages that are not lent to somebody; waits for the first at most `wait_s`."""
        until = time.monotonic() + wait_s
        while not (found := self._take(queue, limit)) and time.monotonic() < until:
            time.sleep(min(_POLL_S, max(0.0, until - time.monotonic())))
        return found

    def ack(self, messages: Sequence[Message]) -> None:
        """Delete the messages."""
        forget(self._engine, [message.message_id for message in messages])
        self._return(messages)

    def reject(self, messages: Sequence[Message]) -> None:
        """Keep the messages as dead letters for a week."""
        for queue, group in groupby(messages, key=lambda message: message.queue):
            bury(self._engine, queue, [message.message_id for message in group])
        self._return(messages)
        purge_dead(self._engine, self._clock() - DEAD_KEPT)

    def relay(self) -> int:
        """Nothing to carry: the messages are where they are received from."""
        return 0

    def state(self) -> QueueState:
        """As healthy as the database that holds it, which is looked at by itself."""
        return QueueState.HEALTHY

    def close(self) -> None:
        """End every loan."""
        with self._lock:
            self._lent.clear()

    def _take(self, queue: QueueName, limit: int) -> list[Message]:
        now = time.monotonic()
        with self._lock:
            self._lent = {lent: until for lent, until in self._lent.items() if until > now}
            most = limit + len(self._lent)
        posted = waiting(self._engine, queue, most)
        with self._lock:
            free = [one for one in posted if one.message_id not in self._lent][:limit]
            self._lent.update({one.message_id: now + LEASE_S for one in free})
        return [Message(one.message_id, one.queue, one.body) for one in free]

    def _return(self, messages: Sequence[Message]) -> None:
        with self._lock:
            for message in messages:
                self._lent.pop(message.message_id, None)
