"""Messages over RabbitMQ: the outbox is carried there under publisher confirms, and received with manual acks.

Every wait is bounded. A broker that is away, full or frozen leaves the rows in the outbox and gives no messages.
"""

from __future__ import annotations

import threading
from collections import OrderedDict, deque
from collections.abc import Sequence
from concurrent.futures import TimeoutError as StillWaiting
from functools import partial

from pika import ConnectionParameters
from pika.spec import Basic, BasicProperties
from sqlalchemy import Engine

from gateway.messaging.broker_url import parameters_of
from gateway.messaging.link import Link
from gateway.messaging.outbox import QueueName, forget, waiting
from gateway.messaging.queue import Message, QueueState
from gateway.messaging.session import Batch, Session
from gateway.messaging.topology import DELIVERY_LIMIT
from gateway.messaging.wire import read_message

BATCH = 500
CONFIRM_S = 5.0
_FIRST_LOOK_S = 1.0
_COUNTED_MESSAGES = 10_000


def open_rabbitmq(url: str, engine: Engine) -> RabbitQueue:
    """The queue behind an URL; nothing is connected before it is used.

    Raises:
        QueueUrlInvalid: it is no URL of a broker.
    """
    return RabbitQueue(parameters_of(url), engine)


class RabbitQueue:
    """One connection a process, in a thread of its own; callers speak to it through a queue and a condition.

    Args:
        parameters: how to connect.
        engine: the main database, for the outbox.
    """

    def __init__(self, parameters: ConnectionParameters, engine: Engine) -> None:
        self._engine = engine
        self._link = Link(parameters, self._arrived, self._ready, self._lost)
        self._started = False
        self._changed = threading.Condition()
        self._inboxes: dict[QueueName, deque[Message]] = {queue: deque() for queue in QueueName}
        self._wanted: set[QueueName] = set()
        self._counts: OrderedDict[str, int] = OrderedDict()
        self._relaying = threading.Lock()
        self._batch: Batch | None = None
        self._is_late = False

    def receive(self, queue: QueueName, *, limit: int, wait_s: float = 0.0) -> list[Message]:
        """Up to `limit` messages; waits for the first at most `wait_s`, and gets none while the broker is away."""
        self._start()
        self._want(queue)
        inbox = self._inboxes[queue]
        with self._changed:
            self._changed.wait_for(lambda: inbox, wait_s)
            return [inbox.popleft() for _ in range(min(limit, len(inbox)))]

    def ack(self, messages: Sequence[Message]) -> None:
        """Acknowledge; messages of a connection that is gone come again by themselves."""
        session = self._link.session
        if session and (tags := _tags_of(session, messages)):
            session.call(partial(session.ack, tags))

    def reject(self, messages: Sequence[Message]) -> None:
        """Have the broker set the messages apart as dead letters."""
        session = self._link.session
        if session and (tags := _tags_of(session, messages)):
            session.call(partial(session.reject, tags))

    def relay(self) -> int:
        """Publish a batch, and delete the rows that the broker has confirmed in time; returns how many.

        A batch without an answer is waited for again at the next call, and not sent twice meanwhile.
        """
        self._start()
        if not self._relaying.acquire(blocking=False):
            return 0  # another thread is at it
        try:
            batch = self._batch = self._batch or self._publish()
            if batch is None:
                return 0
            confirmed = batch.confirmed.result(CONFIRM_S)
            self._batch, self._is_late = None, False
            forget(self._engine, confirmed)
            return len(confirmed)
        except StillWaiting:
            self._is_late = True
            return 0
        finally:
            self._relaying.release()

    def state(self) -> QueueState:
        """Degraded while the broker is away, takes no messages, or leaves a batch unanswered."""
        self._start()
        session = self._link.session
        good = session is not None and not session.is_blocked and not self._is_late
        return QueueState.HEALTHY if good else QueueState.DEGRADED

    def close(self) -> None:
        """End the connection; what was not acknowledged goes back to its queue."""
        with self._changed:
            was_started, self._started = self._started, True
        if was_started:
            self._link.close()

    def _start(self) -> None:
        """Connect, at the first use; that one waits a moment, so that it does not find the broker away."""
        with self._changed:
            if self._started:
                return
            self._started = True
            self._link.start()
            self._changed.wait_for(lambda: self._link.session, _FIRST_LOOK_S)

    def _want(self, queue: QueueName) -> None:
        if queue not in self._wanted:
            self._wanted.add(queue)
            session = self._link.session
            if session:
                session.call(partial(session.consume, queue))

    def _publish(self) -> Batch | None:
        session = self._link.session
        if session is None or session.is_blocked:
            return None
        posted = [one for queue in QueueName for one in waiting(self._engine, queue, BATCH)]
        if not posted:
            return None
        batch = Batch(posted)
        return batch if session.send(batch) else None

    def _ready(self, session: Session) -> None:
        for queue in list(self._wanted):
            session.consume(queue)
        with self._changed:
            self._changed.notify_all()

    def _lost(self) -> None:
        """The broker will send again what lies here and was not acknowledged."""
        with self._changed:
            for inbox in self._inboxes.values():
                inbox.clear()

    def _arrived(
        self, session: Session, queue: QueueName, how: Basic.Deliver, properties: BasicProperties, body: bytes
    ) -> None:
        read, tag = read_message(queue, properties, body), how.delivery_tag or 0
        if read is None or (how.redelivered and self._comes_too_often(read[0])):
            session.reject([tag])
            return
        with self._changed:
            self._inboxes[queue].append(Message(read[0], queue, read[1], (session.number, tag)))
            self._changed.notify_all()

    def _comes_too_often(self, message_id: str) -> bool:
        """Quorum queues count by themselves; for others this process counts what comes back to it."""
        count = self._counts.pop(message_id, 0) + 1
        self._counts[message_id] = count
        if len(self._counts) > _COUNTED_MESSAGES:
            self._counts.popitem(last=False)
        return count > DELIVERY_LIMIT


def _tags_of(session: Session, messages: Sequence[Message]) -> list[int]:
    """The tags of the messages that this session delivered."""
    deliveries = [message.delivery for message in messages if message.delivery]
    return [tag for number, tag in deliveries if number == session.number]
