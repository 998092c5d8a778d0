"""What messaging refuses."""

from __future__ import annotations

from gateway.errors import ConfigError


class QueueUrlInvalid(ConfigError):
    """`FLG_QUEUE_URL` cannot be used; its text never repeats the URL, which holds a password (RULES 30)."""

    def __init__(self, what: str) -> None:
        super().__init__(f"FLG_QUEUE_URL {what}; it is amqp://USER:PASSWORD@HOST:PORT/VHOST or amqps://…")


class WebhookInvalid(ConfigError):
    """`FLG_WEBHOOK_URL` or `FLG_WEBHOOK_SECRET` cannot be used."""
