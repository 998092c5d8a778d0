"""The gateway's background parts, each a loop that stops when told: worker, sequencer, forwarder."""

from __future__ import annotations

import logging
import socket
import threading
from collections.abc import Callable

from sqlalchemy.exc import OperationalError

from audit.checkpoint import NoteSigner
from audit.errors import AuditError
from audit.events import EventType
from audit.sequencer import Sequencer
from audit.siem.forwarder import Forwarder, SinkState
from audit.siem.sinks import NamedSink, parse_sinks
from compliance.epoch_cache import EpochCache
from compliance.keys import SigningUse
from gateway.privacy import privacy_desk
from gateway.rounds.recovery import unite_spends
from gateway.rounds.worker import Worker
from gateway.services import Services

log = logging.getLogger(__name__)
_AWAY_PAUSE_S = 1.0


def recover(services: Services) -> None:
    """What every start does before it takes work: state, key store and database agree again (RULES 1, 2)."""
    parse_sinks(services.config.siem_sinks)  # a wrong sink is told at start, not by a silent SIEM
    services.keystore.apply_state()
    unite_spends(services)
    for use in SigningUse:
        services.keystore.signing_key(use)  # made now, so that jwks.json is whole from the first answer on


def run_worker(services: Services, stop: threading.Event) -> None:
    """Move rounds on, and see privacy requests through."""
    Worker(services, privacy_desk(services)).run(stop)


def run_sequencer(services: Services, stop: threading.Event) -> None:
    """Order pending entries into the log and sign; a log that shrank or forked is never signed."""
    sequencer = sequencer_of(services)
    while not stop.is_set():
        try:
            sequenced = sequencer.run_once()
        except OperationalError as error:
            log.warning("the database is away (%s): waiting", type(error.orig).__name__)
            stop.wait(_AWAY_PAUSE_S)
        except AuditError as error:
            log.critical("the log is not signed: %s", error)
            stop.wait(_AWAY_PAUSE_S)
        else:
            if not sequenced:
                stop.wait(services.config.sequencer_interval_s)


def sequencer_of(services: Services) -> Sequencer:
    """The sequencer on these services."""
    key = services.keystore.signing_key(SigningUse.LOG)
    return Sequencer(
        services.engine,
        signer=NoteSigner(services.origin, key.private),
        state=services.state,
        clock=services.clock,
        crash=services.crash,
    )


def run_forwarder(services: Services, stop: threading.Event) -> None:
    """Deliver the log to every sink, each at its own pace."""
    threads = [
        threading.Thread(target=forwarder_of(services, sink).run, args=(stop,), name=f"sink-{sink.name}")
        for sink in parse_sinks(services.config.siem_sinks, hostname=socket.gethostname())
    ]
    for thread in threads:
        thread.start()
    stop.wait()
    for thread in threads:
        thread.join()


def forwarder_of(services: Services, sink: NamedSink) -> Forwarder:
    """The forwarder to one sink; an outage is an entry, once when it begins and once when it ends."""
    return Forwarder(
        services.engine,
        sink.sink,
        sink.name,
        _pseudonyms(services),
        services.clock,
        report=lambda state: _note_sink(services, sink.name, state),
        crash=services.crash,
    )


def _note_sink(services: Services, name: str, state: SinkState) -> None:
    event = EventType.SIEM_DOWN if state is SinkState.DOWN else EventType.SIEM_UP
    services.trail.note(event, sink=name)


def _pseudonyms(services: Services) -> Callable[[str], str | None]:
    """The pseudonym behind a key id; an erased person has none and is given no new one (RULES 18, 28)."""
    keystore = services.keystore
    known: EpochCache[str, str | None] = EpochCache(services.state.epoch)

    def look(key_id: str) -> str | None:
        subject = keystore.subject_of(key_id)
        if subject is None or keystore.is_forbidden(subject):
            return None
        return keystore.pseudonym(subject)

    return lambda key_id: known.get(key_id, lambda: look(key_id))
