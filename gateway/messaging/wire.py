"""A message as the broker carries it; what is malformed or another program's reads as nothing."""

from __future__ import annotations

import json
from collections.abc import Mapping
from uuid import UUID

from pika import BasicProperties, DeliveryMode

from gateway.messaging.outbox import Body, Posted, QueueName

_LARGEST_BYTES = 4096
_MEMBERS: Mapping[QueueName, str] = {
    QueueName.MODEL_UPDATES: "update_id",
    QueueName.TRAINING_INVITATIONS: "invitation_id",
}


def properties_of(posted: Posted) -> BasicProperties:
    """Persistent, and named after its row of the outbox, so that a double is known as one."""
    return BasicProperties(
        message_id=posted.message_id,
        type=posted.queue.value,
        app_id="fl-gateway",
        content_type="application/json",
        delivery_mode=DeliveryMode.Persistent.value,
        timestamp=int(posted.created_at.timestamp()),
    )


def payload_of(posted: Posted) -> bytes:
    """The body's bytes."""
    return json.dumps(posted.body, separators=(",", ":"), sort_keys=True).encode()


def read_message(queue: QueueName, properties: BasicProperties, payload: bytes) -> tuple[str, Body] | None:
    """The message's id and body; None when it is not one of ours."""
    member = _MEMBERS[queue]
    try:
        message_id = str(UUID(properties.message_id))
        if len(payload) > _LARGEST_BYTES:
            return None
        content = json.loads(payload)
        named, number = str(UUID(content[member])), content["round_number"]
    except (ValueError, TypeError, AttributeError, KeyError, RecursionError):
        return None
    if type(number) is not int or not 0 < number < 1 << 31:
        return None
    return message_id, {member: named, "round_number": number}
