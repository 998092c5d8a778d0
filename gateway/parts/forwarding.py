"""The part that delivers the log to every SIEM sink."""

from __future__ import annotations

import socket
import threading
import time
from collections.abc import Callable

from audit.siem.forwarder import Forwarder
from audit.siem.sinks import NamedSink, parse_sinks
from compliance.keyring.epoch_cache import EpochCache
from gateway.services import Services
from gateway.storage.bell import Channel

_LONGEST_WAIT_S = 1.0  # a bell may be missed
_LEAVE_S = 3.0


def run_forwarder(services: Services, stop: threading.Event) -> None:
    """Deliver the log to every sink, each at its own pace; one that hangs is not waited for at the end."""
    threads = [
        threading.Thread(
            target=forwarder_of(services, sink).run, args=(stop,), name=f"sink-{sink.name}", daemon=True
        )
        for sink in parse_sinks(services.config.siem_sinks, hostname=socket.gethostname())
    ]
    for thread in threads:
        thread.start()
    stop.wait()
    end = time.monotonic() + _LEAVE_S
    for thread in threads:
        thread.join(max(0.0, end - time.monotonic()))  # a batch that is not noted comes again


def forwarder_of(services: Services, sink: NamedSink) -> Forwarder:
    """The forwarder to one sink; an outage is an entry, once when it begins and once when it ends."""
    return Forwarder(
        services.engine,
        sink.sink,
        sink.name,
        pseudonyms(services),
        services.clock,
        wait=lambda: services.bell.wait(Channel.LOG, _LONGEST_WAIT_S),
        draft=lambda event, facts: services.trail.draft(event, details=facts),
        crash=services.crash,
    )


def pseudonyms(services: Services) -> Callable[[str], str | None]:
    """The pseudonym behind a key id; who is being erased keeps it until all were told, and gets no new one."""
    keystore = services.keystore
    known: EpochCache[str, str | None] = EpochCache(services.state.epoch)

    def look(key_id: str) -> str | None:
        subject = keystore.subject_of(key_id)
        if subject is None:
            return None
        is_going = keystore.is_forbidden(subject)
        return keystore.known_pseudonym(subject) if is_going else keystore.pseudonym(subject)

    return lambda key_id: known.get(key_id, lambda: look(key_id))
