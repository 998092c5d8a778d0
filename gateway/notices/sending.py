"""The sender: hands filed notices to their targets until they are taken, or gives them up and tells the log.

One of all senders leads. A notice that was taken just before a crash comes again, under the same id.
"""

from __future__ import annotations

import logging
import random
import threading
import time
import traceback
from datetime import datetime, timedelta
from typing import Any

from sqlalchemy import Row, delete, select, update
from sqlalchemy.exc import SQLAlchemyError

from audit.events import EventType, Severity
from audit.reading import reading
from gateway.notices.filing import NoticeStatus
from gateway.notices.letter import Letter, Problem
from gateway.notices.targets import parse_targets
from gateway.notices.watching import Watch
from gateway.services import Services
from gateway.storage.database import is_outage, kind_of
from gateway.storage.leadership import Leadership
from gateway.tables import notices

log = logging.getLogger(__name__)
MOST_TRIES = 12
KEPT_FOR = timedelta(days=90)
_FIRST_PAUSE_S, _LONGEST_PAUSE_S = 30.0, 3600.0
_LOOK_S, _WATCH_S, _AWAY_PAUSE_S = 2.0, 60.0, 5.0
_AT_ONCE, _FORGOTTEN_AT_ONCE = 50, 500


class Sender:
    """Sends what is due, a look at a time.

    Raises:
        ConfigError: a target cannot be used.
    """

    def __init__(self, services: Services) -> None:
        self._services = services
        self._targets = {named.name: named.target for named in parse_targets(services.config, services.clock)}

    def look(self) -> int:
        """Try every notice that is due, of a target that is away only one; says how many were taken."""
        due = select(notices).where(
            notices.c.status == NoticeStatus.WAITING.value, notices.c.due_at <= self._services.clock()
        )
        with reading(self._services.engine) as conn:
            rows = conn.execute(due.order_by(notices.c.due_at).limit(_AT_ONCE)).all()
        taken, away = 0, set[str]()
        for row in rows:
            if row.target not in away:
                problem = self._try(row)
                taken += problem is None
                if problem in (Problem.AWAY, Problem.NOT_TAKEN):
                    away.add(row.target)
        return taken

    def forget(self) -> int:
        """Remove what was sent or given up long ago, with the memory that its cause was told."""
        old = select(notices.c.notice_id).where(
            notices.c.created_at < self._services.clock() - KEPT_FOR,
            notices.c.status != NoticeStatus.WAITING.value,
        )
        few = old.order_by(notices.c.created_at).limit(_FORGOTTEN_AT_ONCE)
        with reading(self._services.engine) as conn:
            ids = conn.execute(few).scalars().all()
        if ids:
            with self._services.engine.begin() as conn:
                conn.execute(delete(notices).where(notices.c.notice_id.in_(ids)))
        return len(ids)

    def close(self) -> None:
        """Close every target."""
        for target in self._targets.values():
            target.close()

    def _try(self, row: Row[Any]) -> Problem | None:
        target = self._targets.get(row.target)
        letter = Letter(
            notice_id=row.notice_id,
            kind=row.kind,
            severity=Severity(row.severity).name.lower(),
            subject_line=row.subject_line,
            text=row.text,
            created_at=row.created_at,
        )
        problem = target.deliver(letter) if target else Problem.GONE
        if problem is None:
            self._note(row, status=NoticeStatus.SENT.value, sent_at=self._services.clock(), problem=None)
            return None
        log.warning("the notice target %s did not take a notice (%s)", row.target, problem.value)
        if problem is Problem.GONE or row.tries + 1 >= MOST_TRIES:
            self._give_up(row, problem)
        else:
            self._note(row, tries=row.tries + 1, problem=problem.value, due_at=self._next(row.tries + 1))
        return problem

    def _note(self, row: Row[Any], **changes: Any) -> None:
        with self._services.engine.begin() as conn:
            conn.execute(_still_waiting(row).values(**changes))

    def _give_up(self, row: Row[Any], problem: Problem) -> None:
        """Leave it, and tell the log in the same transaction: the only outcome that nobody else would see."""
        facts = {
            "notice_id": row.notice_id,
            "kind": row.kind,
            "target": row.target,
            "tries": row.tries + 1,
            "reason": problem.value,
        }
        entry = self._services.trail.draft(EventType.NOTICE_FAILED, details=facts)
        changes = {"status": NoticeStatus.GIVEN_UP.value, "tries": row.tries + 1, "problem": problem.value}
        with self._services.engine.begin() as conn:
            if conn.execute(_still_waiting(row).values(**changes)).rowcount:
                self._services.trail.write(conn, entry)

    def _next(self, tries: int) -> datetime:
        longest: float = min(_LONGEST_PAUSE_S, _FIRST_PAUSE_S * 2 ** min(tries - 1, 10))
        pause_s = longest * random.uniform(0.75, 1.0)  # noqa: S311 - spreads load, keeps no secret
        return self._services.clock() + timedelta(seconds=pause_s)


def run_notices(services: Services, stop: threading.Event) -> None:
    """Watch for causes and send notices until told to stop; does nothing where nobody is to be told."""
    if not services.config.notices.strip():
        return
    sender, watch = Sender(services), Watch(services)
    leadership, next_watch_s = Leadership(services.engine, "notices"), 0.0
    while not stop.is_set():
        try:
            if leadership.leads():
                if time.monotonic() >= next_watch_s:
                    next_watch_s = time.monotonic() + _WATCH_S
                    watch.look()
                    sender.forget()
                sender.look()
            stop.wait(_LOOK_S)
        except SQLAlchemyError as error:
            if not is_outage(error):
                log.error("notices wait: %s", kind_of(error))
            stop.wait(_AWAY_PAUSE_S)
        except Exception as error:  # noqa: BLE001 - whatever it is, it is noted, and the rows are still there
            place = traceback.extract_tb(error.__traceback__)[-1]
            log.error("notices: unforeseen %s at %s:%s", type(error).__name__, place.filename, place.lineno)
            stop.wait(_AWAY_PAUSE_S)
    leadership.close()
    sender.close()


def _still_waiting(row: Row[Any]) -> Any:
    return update(notices).where(
        notices.c.notice_id == row.notice_id,
        notices.c.status == NoticeStatus.WAITING.value,
        notices.c.tries == row.tries,
    )
