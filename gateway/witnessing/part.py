"""The part that asks the witnesses: a thread for each, beside the sequencer, which never waits for one of them."""

from __future__ import annotations

import logging
import random
import threading
import time
import traceback

from sqlalchemy import Engine
from sqlalchemy.exc import SQLAlchemyError

from audit.canonical import JsonValue
from audit.draft import Personal
from audit.errors import AuditError
from audit.events import EventType, Outcome
from gateway.services import Services
from gateway.storage.database import is_outage, kind_of
from gateway.witnessing.addresses import WitnessAddress, witnesses_of
from gateway.witnessing.asking import Asker, Finding, Standing

log = logging.getLogger(__name__)
_LONGEST_PAUSE_S = 60.0
_LEAVE_S = 3.0


class Companion:
    """Stays with one witness: asks it in turn, backs off while it does not cosign, tells each change once."""

    def __init__(self, services: Services, writer: Engine, witness: WitnessAddress) -> None:
        self._services = services
        self._witness = witness
        self._asker = Asker(services.engine, writer, witness, services.clock)
        self._interval_s = self.pause_s = services.config.witness_interval_s
        self._last = Finding(Standing.COSIGNED)

    def run(self, stop: threading.Event) -> None:
        """Ask until told to stop."""
        try:
            while not stop.wait(self.pause_s):
                self.look()
        finally:
            self.close()

    def look(self) -> None:
        """Ask once; `pause_s` is how long to wait for the next time."""
        try:
            found = self._asker.ask()
            self._tell(found)
        except SQLAlchemyError as error:
            if not is_outage(error):
                log.error("the witness %s is not asked: %s", self._witness.name, kind_of(error))
            self._back_off()
        except AuditError as error:
            log.error("the witness %s is not asked: %s", self._witness.name, error)
            self._back_off()
        except Exception as error:  # noqa: BLE001 - whatever it is, the log goes on, and so do the other witnesses
            place = traceback.extract_tb(error.__traceback__)[-1]
            kind = type(error).__name__
            log.error("witnesses: unforeseen %s at %s:%s", kind, place.filename, place.lineno)
            self._back_off()
        else:
            if found.standing is Standing.COSIGNED:
                self.pause_s = self._interval_s
            else:
                self._back_off()

    def close(self) -> None:
        """Close its connections."""
        self._asker.close()

    def _back_off(self) -> None:
        """Twice as long as the last pause; at random, so that gateways do not come back all at once."""
        doubled = min(max(self.pause_s, self._interval_s) * 2, _LONGEST_PAUSE_S)
        self.pause_s = doubled * random.uniform(0.5, 1.0)  # noqa: S311 - no secret

    def _tell(self, found: Finding) -> None:
        before, name = self._last, self._witness.name
        if found.standing is Standing.REFUSED:
            log.critical(
                "the witness %s REFUSES this log: %s (we have %s entries, it knows %s)",
                name,
                found.reason,
                found.size,
                found.known_size,
            )
            if before.standing is not Standing.REFUSED:
                self._note(found)
        elif (found.standing, found.reason) == (before.standing, before.reason):
            return
        elif found.standing is Standing.COSIGNED:
            log.warning("the witness %s cosigns again", name)
        else:
            log.warning("the witness %s does not cosign: %s", name, found.reason)
        self._last = found  # an entry that could not be written is written the next time

    def _note(self, found: Finding) -> None:
        trail = self._services.trail
        facts: dict[str, JsonValue | Personal] = {
            "witness": self._witness.name,
            "reason": found.reason,
            "size": found.size,
            "known_size": found.known_size or 0,
        }
        draft = trail.draft(EventType.WITNESS_REFUSED, details=facts, outcome=Outcome.FAILURE)
        with self._services.engine.begin() as conn:
            trail.write(conn, draft)


def run_witnesses(services: Services, writer: Engine, stop: threading.Event) -> None:
    """Ask every witness of the settings until told to stop.

    Args:
        services: the stores.
        writer: the database as a role that may write cosignatures (RULES 24).
        stop: set it to end.
    """
    threads = [
        threading.Thread(
            target=Companion(services, writer, witness).run,
            args=(stop,),
            name=f"witness-{witness.verifier.name}",
            daemon=True,
        )
        for witness in witnesses_of(services.config)
    ]
    for thread in threads:
        thread.start()
    stop.wait()
    until_s = time.monotonic() + _LEAVE_S
    for thread in threads:
        thread.join(max(0.0, until_s - time.monotonic()))  # one that hangs goes with the process
