"""The worker: looks at every open round, asks the coordinator, carries its effects out, and tidies.

One of all workers leads. Should two ever work at once, each effect asks again under the round's lock, so that
nothing is done twice. Messages and bells are hints that say when to look (RULES 4); what counts is the rows.
"""

from __future__ import annotations

import logging
import threading
import time
import traceback
from datetime import datetime, timedelta
from typing import assert_never

from sqlalchemy.exc import SQLAlchemyError

from audit.reading import reading
from compliance.requests.desk import PrivacyDesk
from gateway.errors import StorageFull
from gateway.idempotency import purge
from gateway.messaging.outbox import QueueName
from gateway.messaging.queue import Message
from gateway.privacy import desk_parts
from gateway.retention import DailyRetention
from gateway.rounds.coordinator import (
    Begin,
    Begun,
    Draw,
    Drawn,
    Effect,
    Event,
    Extend,
    Extended,
    Fail,
    Failed,
    Freeze,
    Frozen,
    Looked,
    Release,
    ReplaceDropouts,
    State,
    decide,
    state_of,
)
from gateway.rounds.deadlines import extend
from gateway.rounds.filing import file_models
from gateway.rounds.freezing import begin, fail, fail_as_decided, freeze
from gateway.rounds.record import Round, RoundStatus, accepted_count, open_rounds, whole_round
from gateway.rounds.recovery import OrphanSeeds, destroy_settled_seeds, sweep_blobs
from gateway.rounds.release import release
from gateway.rounds.releases import Releases
from gateway.rounds.selection import draw, replace_dropouts
from gateway.services import Services
from gateway.storage.bell import Channel
from gateway.storage.database import is_outage, is_over_limit, kind_of
from gateway.storage.leadership import Leadership

log = logging.getLogger(__name__)
SWEEP_S = 1.0
TIDY_S = 60.0
LONGEST_REQUEST = timedelta(minutes=15)
_HINTS = 500
_MOST_FAILURES = 3
_AWAY_PAUSE_S = 1.0


class Worker:
    """Moves rounds on, a look at a time."""

    def __init__(self, services: Services, desk: PrivacyDesk) -> None:
        self._services = services
        self._desk = desk
        self._orphans = OrphanSeeds()
        self._failures: dict[int, int] = {}
        self._next_search: dict[int, float] = {}
        self._hints: list[Message] = []  # also of a look that failed: they do not come again by themselves
        self._next_sweep = self._next_tidy = 0.0
        self._releases = Releases(lambda found: release(services, found))
        self._retention = DailyRetention(services, desk_parts(services))

    def run_once(self) -> int:
        """One look at everything that is open, to the end of each release; returns how many rounds moved."""
        self._next_search.clear()
        return self._turn(is_patient=True)

    def tidy(self) -> None:
        """Ring alarms, which no disk may hold up; destroy what must not stay: seeds, expired keys, nameless blobs."""
        self._desk.raise_alarms()
        self._desk.holds.raise_alarms()
        destroy_settled_seeds(self._services, self._orphans)
        purge(self._services)
        sweep_blobs(self._services)
        file_models(self._services)  # after the sweep: what it unnames is there for one turn more
        self._desk.packages.expire()
        self._retention.run_pending()
        self._desk.sweep(self._services.clock() - LONGEST_REQUEST)

    def run(self, stop: threading.Event) -> None:
        """Look again and again while this worker leads, until told to stop; a database that is away is waited for."""
        leadership = Leadership(self._services.engine, "worker")
        try:
            while not stop.is_set():
                if leadership.leads():
                    self._lead(stop)
                else:
                    stop.wait(SWEEP_S)
        finally:
            self._releases.close()
            leadership.close()

    def _lead(self, stop: threading.Event) -> None:
        began_s = time.monotonic()
        try:
            self._turn()
        except SQLAlchemyError as error:
            if not is_outage(error):
                raise
            log.warning("the database is away (%s): waiting", kind_of(error))
            stop.wait(_AWAY_PAUSE_S)
        except (StorageFull, OSError) as error:
            log.warning("a blob cannot be read or written (%s): waiting", type(error).__name__)
            stop.wait(_AWAY_PAUSE_S)
        if self._services.bell.wait(Channel.ROUNDS, SWEEP_S):
            self._next_sweep = 0.0
        # Many rings in a row are one look: an update a millisecond must not keep the worker counting.
        stop.wait(max(0.0, began_s + self._services.config.worker_interval_s - time.monotonic()))

    def _turn(self, *, is_patient: bool = False) -> int:
        room = _HINTS - len(self._hints)
        self._hints += self._services.queue.receive(QueueName.MODEL_UPDATES, limit=room)
        now, moved = time.monotonic(), 0
        is_due = bool(self._hints) or now >= self._next_sweep
        if is_due:
            self._next_sweep = now + SWEEP_S
            moved = sum(self._try(found) for found in self._open_rounds())
            self._services.queue.ack(self._hints)
            self._hints.clear()
        if is_patient:
            self._releases.wait()
        self._collect()
        if is_due:
            self._desk.resume_open()  # erasures that waited for a frozen cohort
        if now >= self._next_tidy:
            self._next_tidy = now + TIDY_S
            self.tidy()
        return moved

    def _try(self, found: Round) -> bool:
        """Move a round on; what is wrong with it holds up no other round, no erasure and no tidying."""
        try:
            moved = self._look(found)
        except Exception as error:  # noqa: BLE001 - whatever it is, it is noted, and the third ends the round
            self._note(found, error)
            return False
        if found.status is not RoundStatus.AGGREGATING:  # there the release tells, once it has ended
            self._failures.pop(found.round_id, None)
        return moved

    def _collect(self) -> None:
        """Hear how the releases ended."""
        for found, error in self._releases.ended():
            if error is None:
                self._failures.pop(found.round_id, None)
            elif isinstance(error, Exception):
                self._note(found, error)
            else:
                raise error

    def _note(self, found: Round, error: Exception) -> None:
        if is_over_limit(error):
            log.warning("round %s waits for a row that somebody holds", found.round_number)
            return
        if isinstance(error, SQLAlchemyError) and is_outage(error):
            raise error  # the database is away for all of them
        if isinstance(error, StorageFull | OSError):
            log.warning("round %s waits for its blobs: %s", found.round_number, type(error).__name__)
        else:
            self._note_failure(found, error)

    def _note_failure(self, found: Round, error: Exception) -> None:
        """Log an unforeseen failure by kind and place alone (RULES 30); the third in a row ends the round."""
        self._failures[found.round_id] = count = self._failures.get(found.round_id, 0) + 1
        place = traceback.extract_tb(error.__traceback__)[-1]
        log.error(
            "round %s: unforeseen %s at %s:%s",
            found.round_number,
            type(error).__name__,
            place.filename,
            place.lineno,
        )
        if count >= _MOST_FAILURES:
            fail(self._services, self._reread(found), "UNFORESEEN_ERROR")

    def _open_rounds(self) -> list[Round]:
        with reading(self._services.engine) as conn:
            return open_rounds(conn)

    def _reread(self, found: Round) -> Round:
        with reading(self._services.engine) as conn:
            return whole_round(conn, found.round_id)

    def _look(self, found: Round) -> bool:
        with reading(self._services.engine) as conn:
            accepted = accepted_count(conn, found.round_id)
        now = self._services.clock()
        return self._follow(found, state_of(found), Looked(now, accepted), now)

    def _follow(self, found: Round, state: State, event: Event, now: datetime) -> bool:
        """Carry out what an event asks for, and what that asks for in turn; whether anything was done."""
        state, effects = decide(state, event)
        outcomes = [self._carry_out(found, effect, now) for effect in effects]
        for outcome in outcomes:
            if outcome is not None:
                self._follow(self._reread(found), state, outcome, now)
        return any(outcome is not None for outcome in outcomes)

    def _carry_out(self, found: Round, effect: Effect, now: datetime) -> Event | None:
        """Do it, unless the world moved on meanwhile; what happened, or None if nothing did or is not yet known."""
        services = self._services
        match effect:
            case Begin(to):
                return Begun() if begin(services, found, to) else None
            case Draw():
                return Drawn() if self._may_search(found) and draw(services, found) else None
            case ReplaceDropouts():
                if self._may_search(found):
                    replace_dropouts(services, found)
                return None
            case Extend(until):
                return Extended(until) if extend(services, found, effect, now) else None
            case Freeze():
                return Frozen() if freeze(services, found) else None
            case Release():
                self._releases.begin(found)
                return None  # it is seen in the rows
            case Fail():
                return Failed() if fail_as_decided(services, found, effect, now) else None
            case _:
                assert_never(effect)

    def _may_search(self, found: Round) -> bool:
        """Whether it is time to look for clients of a round again: many bells a second must not search many times."""
        now = time.monotonic()
        if now < self._next_search.get(found.round_id, 0.0):
            return False
        self._next_search[found.round_id] = now + SWEEP_S
        return True
