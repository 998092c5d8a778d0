"""The courier, beside the worker: carries the outbox to the broker, and invitations to the operator's webhook.

One of all couriers leads. Should two ever work at once, messages come twice, which changes nothing (RULES 4).
"""

from __future__ import annotations

import logging
import threading
import traceback
from collections.abc import Callable

from sqlalchemy.exc import SQLAlchemyError

from gateway.messaging.deliveries import Deliveries
from gateway.messaging.outbox import QueueName
from gateway.messaging.webhook import open_webhook
from gateway.services import Services
from gateway.storage.bell import Channel
from gateway.storage.database import is_outage, kind_of
from gateway.storage.leadership import Leadership

log = logging.getLogger(__name__)
_LOOK_S = 0.5
_STANDBY_S = 1.0
_AWAY_PAUSE_S = 1.0
_MOST = 500


class Courier:
    """Two loops, each in a thread of its own, so that a slow webhook holds up no message.

    Raises:
        WebhookInvalid: `FLG_WEBHOOK_URL` or `FLG_WEBHOOK_SECRET` cannot be used.
    """

    def __init__(self, services: Services) -> None:
        self._services = services
        self._webhook = open_webhook(services.config, services.clock)
        self._deliveries = Deliveries(services, self._webhook) if self._webhook else None
        self._leadership = Leadership(services.engine, "courier")

    def run(self, stop: threading.Event) -> None:
        """Carry until told to stop."""
        loops = [(self._deliver, "courier-invitations")]
        if self._services.config.queue_url:
            loops.append((self._relay, "courier-outbox"))
        threads = [
            threading.Thread(target=self._repeat, args=(look, stop), name=name) for look, name in loops
        ]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        self._leadership.close()
        if self._webhook:
            self._webhook.close()

    def run_once(self) -> int:
        """One look of each loop; returns how much was carried."""
        return self._services.queue.relay() + self._deliver()

    def _relay(self) -> int:
        carried = self._services.queue.relay()
        if not carried:
            self._services.bell.wait(Channel.ROUNDS, _LOOK_S)
        return carried

    def _deliver(self) -> int:
        if self._deliveries:
            return self._deliveries.look()
        queue = self._services.queue
        messages = queue.receive(QueueName.TRAINING_INVITATIONS, limit=_MOST, wait_s=_LOOK_S)
        if messages:
            self._services.bell.ring(Channel.INVITATIONS)  # clients that wait for theirs look
            queue.ack(messages)
        return len(messages)

    def _repeat(self, look: Callable[[], int], stop: threading.Event) -> None:
        while not stop.is_set():
            try:
                if self._leadership.leads():
                    look()
                else:
                    stop.wait(_STANDBY_S)
            except SQLAlchemyError as error:
                if not is_outage(error):
                    log.error("the courier failed: %s", kind_of(error))
                stop.wait(_AWAY_PAUSE_S)
            except Exception as error:  # noqa: BLE001 - whatever it is, it is noted, and the rows are still there
                place = traceback.extract_tb(error.__traceback__)[-1]
                log.error(
                    "courier: unforeseen %s at %s:%s", type(error).__name__, place.filename, place.lineno
                )
                stop.wait(_AWAY_PAUSE_S)
