"""One connection to RabbitMQ, from its opening to its end, all of it in the thread that runs it.

Publishing does not wait message by message: a batch goes out, and its confirms come back as the broker writes.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from functools import partial
from itertools import takewhile

import pika
from pika.adapters.select_connection import IOLoop, SelectConnection
from pika.channel import Channel
from pika.exceptions import ConnectionClosedByClient
from pika.frame import Method
from pika.spec import Basic, BasicProperties

from gateway.messaging.outbox import Posted, QueueName
from gateway.messaging.topology import Topology
from gateway.messaging.wire import payload_of, properties_of

PREFETCH = 500
Arrived = Callable[["Session", QueueName, Basic.Deliver, BasicProperties, bytes], None]


class Batch:
    """Messages on their way: `confirmed` is settled once the broker has answered for each, or the connection ended."""

    def __init__(self, posted: Sequence[Posted]) -> None:
        self.posted = posted
        self.confirmed: Future[list[str]] = Future()
        self._taken: list[str] = []
        self._open = {one.message_id for one in posted}

    def settle(self, message_id: str, *, taken: bool) -> None:
        """The broker took the message, or refused it; the first word counts."""
        if message_id not in self._open:
            return
        self._open.remove(message_id)
        if taken:
            self._taken.append(message_id)
        if not self._open:
            self.end()

    def end(self) -> None:
        """Nothing more will be heard: what was not confirmed stays in the outbox."""
        if not self.confirmed.done():
            self.confirmed.set_result(self._taken)


class Session:
    """A connection with its channels: one to publish with confirms, one to receive.

    Args:
        number: counts the connections of this process; a delivery's tag means something on its own alone.
        parameters: how to connect.
        topology: declares the queues.
        arrived: is given each delivery, in the session's thread.
        on_ready: called once queues and channels stand.
    """

    def __init__(
        self,
        number: int,
        parameters: pika.ConnectionParameters,
        topology: Topology,
        arrived: Arrived,
        on_ready: Callable[[Session], None],
    ) -> None:
        self.number = number
        self.is_ready = self.was_ready = self.is_blocked = False
        self.reason: BaseException | None = None
        self._parameters, self._topology = parameters, topology
        self._arrived, self._on_ready = arrived, on_ready
        self._loop = IOLoop()
        self._lock = threading.Lock()
        self._is_over = self._is_unwanted = False
        self._consumed: set[QueueName] = set()
        self._handed: list[Batch] = []
        self._batches: dict[int, tuple[str, Batch]] = {}
        self._by_message: dict[str, Batch] = {}
        self._tag = 0

    def run(self) -> None:
        """Connect, and serve the connection until it ends."""
        self._connection = SelectConnection(
            self._parameters,
            on_open_callback=self._opened,
            on_open_error_callback=self._ended,
            on_close_callback=self._ended,
            custom_ioloop=self._loop,
        )
        try:
            self._loop.start()
        finally:
            with self._lock:
                self._is_over = True
            self.is_ready = False
            for batch in self._handed:  # also one that this thread never came to publish
                batch.end()
            self._loop.close()

    def call(self, work: Callable[[], None]) -> bool:
        """Have the session's thread do this; False when the session is over. From any thread."""
        with self._lock:
            if not self._is_over:
                self._loop.add_callback_threadsafe(work)
            return not self._is_over

    def send(self, batch: Batch) -> bool:
        """Have a batch published; it is settled however that ends. False when the session is over. From any thread."""
        self._handed = [one for one in self._handed if not one.confirmed.done()] + [batch]
        return self.call(partial(self._publish, batch))

    def end(self) -> None:
        """Close in order; one that is still opening closes once it has. In the session's thread."""
        self.is_ready, self._is_unwanted = False, True
        if self._connection.is_open:
            self._connection.close()

    def consume(self, queue: QueueName) -> None:
        """Have the queue's messages delivered, at most `PREFETCH` unacknowledged. In the session's thread."""
        if queue not in self._consumed and self._taking.is_open:
            self._consumed.add(queue)
            self._taking.basic_consume(queue.value, partial(self._delivered, queue))

    def ack(self, tags: Sequence[int]) -> None:
        """Acknowledge deliveries. In the session's thread."""
        if self._taking.is_open:
            for tag in tags:
                self._taking.basic_ack(tag)

    def reject(self, tags: Sequence[int]) -> None:
        """Have deliveries set apart as dead letters. In the session's thread."""
        if self._taking.is_open:
            for tag in tags:
                self._taking.basic_reject(tag, requeue=False)

    def _publish(self, batch: Batch) -> None:
        if not (self.is_ready and self._giving.is_open):
            batch.end()
            return
        for posted in batch.posted:
            self._tag += 1
            self._batches[self._tag] = (posted.message_id, batch)
            self._by_message[posted.message_id] = batch
            self._giving.basic_publish(
                "", posted.queue.value, payload_of(posted), properties_of(posted), mandatory=True
            )

    def _opened(self, connection: SelectConnection) -> None:
        if self._is_unwanted:
            connection.close()
            return
        connection.add_on_connection_blocked_callback(partial(self._blocked, True))
        connection.add_on_connection_unblocked_callback(partial(self._blocked, False))
        self._topology.declare(connection, done=self._declared, failed=self.end)

    def _blocked(self, is_blocked: bool, _connection: object, _frame: object) -> None:
        self.is_blocked = is_blocked

    def _declared(self) -> None:
        self._connection.channel(on_open_callback=self._giving_opened)

    def _giving_opened(self, channel: Channel) -> None:
        self._giving = channel
        channel.add_on_close_callback(self._channel_lost)
        channel.add_on_return_callback(self._returned)
        channel.confirm_delivery(self._answered, callback=lambda _frame: self._open_taking())

    def _open_taking(self) -> None:
        self._connection.channel(on_open_callback=self._taking_opened)

    def _taking_opened(self, channel: Channel) -> None:
        self._taking = channel
        channel.add_on_close_callback(self._channel_lost)
        channel.add_on_cancel_callback(lambda _frame: self.end())  # its queue was deleted: declare it again
        channel.basic_qos(prefetch_count=PREFETCH, callback=lambda _frame: self._prepared())

    def _prepared(self) -> None:
        self.is_ready = self.was_ready = True
        self._on_ready(self)

    def _delivered(
        self,
        queue: QueueName,
        _channel: Channel,
        how: Basic.Deliver,
        properties: BasicProperties,
        body: bytes,
    ) -> None:
        self._arrived(self, queue, how, properties, body)

    def _answered(self, frame: Method[Basic.Ack | Basic.Nack]) -> None:
        """A confirm, which may answer for every message up to its tag."""
        tag, taken = frame.method.delivery_tag, isinstance(frame.method, Basic.Ack)
        tags = list(takewhile(lambda one: one <= tag, self._batches)) if frame.method.multiple else [tag]
        for one in tags:
            message_id, batch = self._batches.pop(one)
            self._by_message.pop(message_id, None)
            batch.settle(message_id, taken=taken)

    def _returned(self, _channel: Channel, _how: object, properties: BasicProperties, _body: bytes) -> None:
        """No queue took it; its confirm follows and says nothing. The queues are declared anew."""
        batch = self._by_message.get(str(properties.message_id))
        if batch:
            batch.settle(str(properties.message_id), taken=False)
        self._loop.add_callback_threadsafe(self.end)

    def _channel_lost(self, _channel: Channel, reason: Exception) -> None:
        self.reason = self.reason or reason
        self.end()

    def _ended(self, _connection: object, reason: BaseException) -> None:
        if not isinstance(reason, ConnectionClosedByClient):
            self.reason = reason
        self._loop.stop()
