"""The worker: looks at every open round, moves it on, and tidies; any number may run, and any may be killed.

Messages of the outbox are hints that say where to look first (RULES 4); what counts is the rows.
"""

from __future__ import annotations

import logging
import threading
import time
import traceback
from datetime import timedelta

from sqlalchemy import delete, select
from sqlalchemy.exc import SQLAlchemyError

from compliance.desk import PrivacyDesk
from gateway.auth.tokens import purge_expired
from gateway.errors import StorageFull
from gateway.idempotency import purge
from gateway.rounds.freezing import fail, freeze
from gateway.rounds.intake import QUEUE
from gateway.rounds.record import Round, RoundStatus, open_rounds
from gateway.rounds.recovery import OrphanSeeds, destroy_settled_seeds, sweep_blobs
from gateway.rounds.release import release
from gateway.services import Services
from gateway.storage.database import reading
from gateway.tables import outbox

log = logging.getLogger(__name__)
SWEEP_S = 1.0
TIDY_S = 60.0
LONGEST_REQUEST = timedelta(minutes=15)
_HINTS = 500
_MOST_FAILURES = 3


class Worker:
    """Moves rounds on, a look at a time."""

    def __init__(self, services: Services, desk: PrivacyDesk) -> None:
        self._services = services
        self._desk = desk
        self._orphans = OrphanSeeds()
        self._failures: dict[int, int] = {}
        self._next_sweep = self._next_tidy = 0.0

    def run_once(self) -> int:
        """One look at everything that is open; returns how many rounds moved."""
        hints = self._hints()
        now = time.monotonic()
        moved = 0
        if hints or now >= self._next_sweep:
            self._next_sweep = now + SWEEP_S
            moved = sum(self._try(found) for found in self._open_rounds())
            self._forget(hints)
            self._desk.resume_open()  # erasures that waited for a frozen cohort
        if now >= self._next_tidy:
            self._next_tidy = now + TIDY_S
            self.tidy()
        return moved

    def tidy(self) -> None:
        """Destroy what must not stay: seeds of ended rounds, expired tokens and keys, blobs that no row names."""
        destroy_settled_seeds(self._services, self._orphans)
        purge_expired(self._services)
        purge(self._services)
        sweep_blobs(self._services)
        self._desk.expire_packages()
        self._desk.sweep(self._services.clock() - LONGEST_REQUEST)

    def run(self, stop: threading.Event) -> None:
        """Look again and again until told to stop; a database that is away is waited for."""
        pause = self._services.config.worker_interval_s
        while not stop.is_set():
            try:
                self.run_once()
            except SQLAlchemyError as error:
                log.warning("the database is away (%s): waiting", type(error).__name__)
                stop.wait(1.0)
            except (StorageFull, OSError) as error:
                log.warning("a blob cannot be read or written (%s): waiting", type(error).__name__)
                stop.wait(1.0)
            stop.wait(pause)

    def _try(self, found: Round) -> bool:
        """Move a round on; what is wrong with it holds up no other round, no erasure and no tidying."""
        try:
            moved = self._move(found)
        except SQLAlchemyError:
            raise  # the database is away for all of them
        except (StorageFull, OSError) as error:
            log.warning("round %s waits for its blobs: %s", found.round_number, type(error).__name__)
        except Exception as error:  # noqa: BLE001 - whatever it is, it is noted, and the third ends the round
            self._note_failure(found, error)
        else:
            self._failures.pop(found.round_id, None)
            return moved
        return False

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
            now = next((one for one in self._open_rounds() if one.round_id == found.round_id), found)
            fail(self._services, now, "UNFORESEEN_ERROR")

    def _open_rounds(self) -> list[Round]:
        with reading(self._services.engine) as conn:
            return open_rounds(conn)

    def _move(self, found: Round) -> bool:
        if found.status is RoundStatus.ACTIVE and freeze(self._services, found):
            found = next((r for r in self._open_rounds() if r.round_id == found.round_id), found)
        if found.status is RoundStatus.AGGREGATING:
            release(self._services, found)
            return True
        return False

    def _hints(self) -> list[str]:
        with reading(self._services.engine) as conn:
            query = select(outbox.c.message_id).where(outbox.c.queue == QUEUE)
            return list(conn.execute(query.order_by(outbox.c.created_at).limit(_HINTS)).scalars())

    def _forget(self, hints: list[str]) -> None:
        if hints:
            with self._services.engine.begin() as conn:
                conn.execute(delete(outbox).where(outbox.c.message_id.in_(hints)))
