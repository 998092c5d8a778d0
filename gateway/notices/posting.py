"""Notices to a webhook: signed JSON, as invitations are (`gateway.messaging.webhook`), under a secret of their own."""

from __future__ import annotations

from collections.abc import Callable
from datetime import datetime

from gateway.messaging.webhook import Purpose, Webhook
from gateway.notices.letter import Letter, Problem

_NOTICES = Purpose("notice", "FLG_NOTICES", "FLG_NOTICES_SECRET")


class WebhookTarget:
    """A webhook of `FLG_NOTICES`.

    Raises:
        WebhookInvalid: the URL or the secret cannot be used.
    """

    def __init__(self, url: str, secret: str, clock: Callable[[], datetime]) -> None:
        self._webhook = Webhook(url, secret, clock, _NOTICES)

    def deliver(self, letter: Letter) -> Problem | None:
        """Post it."""
        told = {
            "notice_id": letter.notice_id,
            "kind": letter.kind,
            "severity": letter.severity,
            "subject": letter.subject_line,
            "text": letter.text,
            "created_at": letter.created_at.isoformat().replace("+00:00", "Z"),
        }
        return None if self._webhook.post(told, key=letter.notice_id) else Problem.NOT_TAKEN

    def probe(self) -> Problem | None:
        """A webhook is asked nothing: it would take that for a notice."""
        return None

    def close(self) -> None:
        """Close its connections."""
        self._webhook.close()
