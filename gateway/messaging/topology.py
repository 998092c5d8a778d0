"""What stands on the broker: each queue, and where its dead letters go.

A queue is a quorum queue where the broker has them, else a durable classic one; a queue that exists in another form
is taken as it is. A refused form is not asked for again: asking costs a channel, on some brokers the connection.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping
from functools import partial
from typing import Any

from pika.channel import Channel
from pika.connection import Connection
from pika.exceptions import ChannelClosedByBroker, ConnectionClosedByBroker

from gateway.messaging.outbox import QueueName

log = logging.getLogger(__name__)
DELIVERY_LIMIT = 10
_DEAD_KEPT_MS = 7 * 86_400_000
_DEAD_MOST = 10_000
Form = Mapping[str, Any] | None
"""Arguments of a durable queue; None: as it exists."""


class Topology:
    """Declares the queues on each new connection; call it in the connection's thread."""

    def __init__(self) -> None:
        self._forms = _all_forms()
        self._left: list[str] = []

    def declare(
        self, connection: Connection, *, done: Callable[[], None], failed: Callable[[], None]
    ) -> None:
        """Declare everything, then call `done`; or `failed`, when a queue is to be had in no form."""
        self._connection, self._done, self._failed = connection, done, failed
        self._left = list(self._forms)
        self._begin()

    def _begin(self) -> None:
        self._connection.channel(on_open_callback=self._opened)

    def _opened(self, channel: Channel) -> None:
        channel.add_on_close_callback(self._closed)
        self._ask(channel)

    def _ask(self, channel: Channel) -> None:
        if not self._left:
            channel.close()
            self._done()
            return
        name = self._left[0]
        form = self._forms[name][0]
        channel.queue_declare(
            name,
            durable=True,
            passive=form is None,
            arguments=dict(form or {}),
            callback=partial(self._declared, channel),
        )

    def _declared(self, channel: Channel, _frame: object) -> None:
        self._left.pop(0)
        self._ask(channel)

    def _closed(self, _channel: Channel, reason: Exception) -> None:
        refused = isinstance(reason, ChannelClosedByBroker | ConnectionClosedByBroker)
        if not self._left or not refused:
            return
        name = self._left[0]
        log.info("RabbitMQ refuses a form of the queue %s (%s)", name, reason.args[0])
        self._forms[name].pop(0)
        if not self._forms[name]:
            self._forms = _all_forms()
            self._failed()
        elif isinstance(reason, ChannelClosedByBroker):
            self._begin()  # the connection stands: the next form at once


def _all_forms() -> dict[str, list[Form]]:
    """By queue, those of dead letters first, the forms to try one after the other."""
    dead: dict[str, list[Form]] = {
        queue.dead: [{"x-message-ttl": _DEAD_KEPT_MS, "x-max-length": _DEAD_MOST}, None]
        for queue in QueueName
    }
    return dead | {queue.value: _forms_of(queue) for queue in QueueName}


def _forms_of(queue: QueueName) -> list[Form]:
    dead = {"x-dead-letter-exchange": "", "x-dead-letter-routing-key": queue.dead}
    return [{"x-queue-type": "quorum", "x-delivery-limit": DELIVERY_LIMIT, **dead}, dead, None]
