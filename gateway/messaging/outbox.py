"""The transactional outbox: a message is a row of its effect's own transaction, so that neither exists alone."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum
from uuid import uuid4

from sqlalchemy import Connection, Engine, delete, insert, select, update

from audit.reading import reading
from gateway.tables import outbox

Body = Mapping[str, str | int]


class QueueName(StrEnum):
    """The queues of the specification."""

    MODEL_UPDATES = "model_updates"
    TRAINING_INVITATIONS = "training_invitations"

    @property
    def dead(self) -> str:
        """Where messages go that nobody could use."""
        return f"{self.value}.dead"


@dataclass(frozen=True, slots=True)
class Posted:
    """A message that waits in the outbox."""

    message_id: str
    queue: QueueName
    body: Body
    created_at: datetime


def post(conn: Connection, queue: QueueName, body: Body, now: datetime) -> None:
    """Put a message into the outbox, in the caller's transaction.

    Args:
        conn: the transaction of the effect that the message tells of.
        queue: where it goes.
        body: random ids and round numbers alone: what names a person must not reach a broker's disk.
        now: the time of the effect.
    """
    post_all(conn, queue, [body], now)


def post_all(conn: Connection, queue: QueueName, bodies: Sequence[Body], now: datetime) -> None:
    """Put many messages of one moment into the outbox, in the caller's transaction; see `post`."""
    rows = [
        {
            "message_id": str(uuid4()),
            "queue": queue.value,
            "body": dict(body),
            "created_at": now,
            "about": body.get("update_id") or body.get("invitation_id"),
        }
        for body in bodies
    ]
    if rows:
        conn.execute(insert(outbox), rows)


def waiting(engine: Engine, queue: QueueName, limit: int) -> list[Posted]:
    """The oldest messages of a queue."""
    query = select(outbox).where(outbox.c.queue == queue.value).order_by(outbox.c.created_at).limit(limit)
    with reading(engine) as conn:
        rows = conn.execute(query).all()
    return [Posted(row.message_id, QueueName(row.queue), row.body, row.created_at) for row in rows]


def forget(engine: Engine, message_ids: Sequence[str]) -> None:
    """Delete messages that have arrived."""
    if message_ids:
        with engine.begin() as conn:
            conn.execute(delete(outbox).where(outbox.c.message_id.in_(message_ids)))


def bury(engine: Engine, queue: QueueName, message_ids: Sequence[str]) -> None:
    """Set messages apart as dead letters."""
    if message_ids:
        with engine.begin() as conn:
            chosen = outbox.c.message_id.in_(message_ids)
            conn.execute(update(outbox).where(chosen).values(queue=queue.dead))


def purge_dead(engine: Engine, before: datetime) -> int:
    """Delete dead letters posted before this time; returns how many."""
    dead = outbox.c.queue.in_([queue.dead for queue in QueueName])
    with engine.begin() as conn:
        return conn.execute(delete(outbox).where(dead, outbox.c.created_at < before)).rowcount
