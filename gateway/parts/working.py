"""The part that moves rounds and privacy requests on, and carries messages."""

from __future__ import annotations

import threading

from gateway.auth.tokens import run_purger
from gateway.messaging.courier import Courier
from gateway.notices.sending import run_notices
from gateway.privacy import privacy_desk
from gateway.rounds.worker import Worker
from gateway.services import Services


def run_worker(services: Services, stop: threading.Event) -> None:
    """Move rounds on, see privacy requests through, carry messages and invitations, and remove what is over."""
    courier = threading.Thread(target=Courier(services).run, args=(stop,), name="courier")
    purger = threading.Thread(target=run_purger, args=(services, stop), name="purger")
    notices = threading.Thread(target=run_notices, args=(services, stop), name="notices")
    courier.start()
    purger.start()
    notices.start()
    try:
        Worker(services, privacy_desk(services)).run(stop)
    finally:
        stop.set()
        courier.join()
        purger.join()
        notices.join()
