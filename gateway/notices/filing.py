"""A notice is filed in the transaction of its cause: neither is there without the other; each cause is told once."""

from __future__ import annotations

from enum import StrEnum
from typing import Any
from uuid import uuid4

from sqlalchemy import Connection
from sqlalchemy.dialects import postgresql, sqlite

from gateway.notices.notice import LONGEST_KEY, LONGEST_SUBJECT, Notice
from gateway.notices.targets import target_names
from gateway.services import Services
from gateway.tables import notices


class NoticeStatus(StrEnum):
    """How a notice stands with one target."""

    WAITING = "waiting"
    SENT = "sent"
    GIVEN_UP = "given_up"


def file_notice(conn: Connection, services: Services, notice: Notice) -> int:
    """Let the notice be sent to every target; says to how many it was new.

    Args:
        conn: the transaction of its cause.
        services: names the targets; without any, nothing is filed.
        notice: what is told.
    """
    now = services.clock()
    rows = [
        {
            "notice_id": str(uuid4()),
            "target": target,
            "dedupe_key": notice.dedupe_key[:LONGEST_KEY],
            "kind": notice.kind.value,
            "severity": int(notice.severity),
            "subject_line": notice.subject_line[:LONGEST_SUBJECT],
            "text": notice.text,
            "status": NoticeStatus.WAITING.value,
            "tries": 0,
            "created_at": now,
            "due_at": now,
        }
        for target in target_names(services.config)
    ]
    return sum(_insert_new(conn, row) for row in rows)


def _insert_new(conn: Connection, row: dict[str, Any]) -> int:
    dialect = postgresql if conn.dialect.name == "postgresql" else sqlite
    new = dialect.insert(notices).values(**row).on_conflict_do_nothing().returning(notices.c.notice_id)
    return len(conn.execute(new).all())
