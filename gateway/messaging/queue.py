"""The one interface to messages: the outbox table itself when embedded, RabbitMQ where `FLG_QUEUE_URL` names one."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from enum import StrEnum
from typing import Protocol

from sqlalchemy import Engine

from gateway.config import Config
from gateway.messaging.outbox import Body, QueueName


class QueueState(StrEnum):
    """How the queue is; `degraded` delays hints and loses nothing."""

    HEALTHY = "healthy"
    DEGRADED = "degraded"


@dataclass(frozen=True, slots=True)
class Message:
    """A hint that was received, and that its receiver acknowledges or rejects."""

    message_id: str
    queue: QueueName
    body: Body
    delivery: tuple[int, int] | None = field(default=None, compare=False, repr=False)
    """Where the broker has it: number of the connection, delivery tag."""


class MessageQueue(Protocol):
    """Receives, acknowledges and relays messages; every call may come from any thread and waits a bounded time."""

    def receive(self, queue: QueueName, *, limit: int, wait_s: float = 0.0) -> list[Message]:
        """Up to `limit` messages, each given to one receiver; waits for the first at most `wait_s`.

        A broker that is away gives none. What is neither acknowledged nor rejected comes again later.
        """

    def ack(self, messages: Sequence[Message]) -> None:
        """Say that the messages are done with; a broker that does not hear it sends them again."""

    def reject(self, messages: Sequence[Message]) -> None:
        """Set the messages apart as dead letters."""

    def relay(self) -> int:
        """Carry a batch from the outbox to the broker; returns how many it confirmed (0 when embedded).

        Rows are deleted once the broker has confirmed them, so a broker that is away loses nothing.
        """

    def state(self) -> QueueState:
        """How the queue is, as far as this process knows; never waits."""

    def close(self) -> None:
        """Give up the connection; what was received and not acknowledged comes again."""


def open_queue(config: Config, engine: Engine, clock: Callable[[], datetime]) -> MessageQueue:
    """The queue that the settings ask for; nothing is connected before it is used.

    Raises:
        ConfigError: `FLG_QUEUE_URL` is no URL of a broker.
    """
    # Only the queue in use is loaded: commands that touch no message need not import a broker's client.
    if not config.queue_url:
        from gateway.messaging.embedded import EmbeddedQueue

        return EmbeddedQueue(engine, clock)
    from gateway.messaging.rabbitmq import open_rabbitmq

    return open_rabbitmq(config.queue_url, engine)
