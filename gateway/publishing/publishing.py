"""The publisher's loop, beside the sequencer, which never waits for it; what a target missed is made up for."""

from __future__ import annotations

import logging
import threading
import traceback

from sqlalchemy.exc import SQLAlchemyError

from audit.errors import AuditError
from audit.tiles.publish import Publisher
from gateway.errors import BlobsAway, StorageFull
from gateway.publishing.targets import OpenTarget, open_target
from gateway.services import Services
from gateway.storage.database import is_outage, kind_of
from gateway.storage.leadership import Leadership

log = logging.getLogger(__name__)
PAUSE_S = 5.0  # each checkpoint costs some partial tiles, which stay
_FIRST_PAUSE_S, _LONGEST_PAUSE_S = 0.5, 60.0


class Publishing:
    """Publishes to one target for as long as this process leads; tells each trouble once.

    Args:
        services: the stores.
        target: where to.
        pause_s: how long two checkpoints are apart.
    """

    def __init__(self, services: Services, target: OpenTarget, *, pause_s: float = PAUSE_S) -> None:
        self._target, self._usual_pause_s, self._pause_s = target, pause_s, pause_s
        quorum = services.config.quorum_shown
        signed = services.state.last_checkpoint
        self._publisher = Publisher(services.engine, target, services.origin, signed, quorum=quorum)
        self._lead = Leadership(services.engine, "publisher")
        self._is_ready = False
        self._trouble = ""

    def run(self, stop: threading.Event) -> None:
        """Publish until told to stop."""
        try:
            while not stop.is_set():
                if not self._step(stop):
                    stop.wait(self._pause_s)
        finally:
            self._lead.close()
            self._target.close()

    def _step(self, stop: threading.Event) -> bool:
        """Publish one checkpoint, and say whether more is waiting to be made up for."""
        try:
            if not self._lead.leads():
                self._is_ready = False
                return False
            added = self._publish(stop)
        except AuditError as error:
            self._stumble(logging.CRITICAL, f"the log is not published: {error}", _LONGEST_PAUSE_S)
        except BlobsAway as error:
            self._stumble(logging.WARNING, f"the log is not published: {error}")
        except SQLAlchemyError as error:
            level = logging.WARNING if is_outage(error) else logging.CRITICAL
            self._stumble(level, f"the log is not published: the database fails ({kind_of(error)})")
        except (OSError, StorageFull) as error:
            said = getattr(error, "strerror", None) or str(error)
            self._stumble(logging.WARNING, f"the log is not published: {said}")
        except Exception as error:  # noqa: BLE001 - whatever it is, the thread must not end unheard
            place = traceback.extract_tb(error.__traceback__)[-1]
            said = f"unforeseen {type(error).__name__} at {place.filename}:{place.lineno}"
            self._stumble(logging.ERROR, f"the log is not published: {said}")
        else:
            self._recover()
            return added > 0 and self._publisher.is_behind
        return False

    def _publish(self, stop: threading.Event) -> int:
        if not self._is_ready:
            self._publisher.forget()
            self._target.prepare()
            self._is_ready = True
        return self._publisher.run_once(is_over=lambda: stop.is_set() or not self._lead.leads())

    def _stumble(self, level: int, said: str, pause_s: float | None = None) -> None:
        self._is_ready = False
        doubled_s = self._pause_s * 2 if self._trouble else _FIRST_PAUSE_S
        self._pause_s = pause_s or min(doubled_s, _LONGEST_PAUSE_S)
        if said != self._trouble or level >= logging.CRITICAL:
            log.log(level, "%s", said)
        self._trouble = said

    def _recover(self) -> None:
        if self._trouble:
            log.warning("the log is published again")
        self._trouble, self._pause_s = "", self._usual_pause_s


def run_publisher(services: Services, stop: threading.Event) -> None:
    """Publish the log as tiles, if `FLG_TLOG_PUBLISH` names a place."""
    target = open_target(services.config)
    if target is not None:
        Publishing(services, target).run(stop)
