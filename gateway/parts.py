"""The gateway's background parts, each a loop that stops when told: worker, sequencer, forwarder."""

from __future__ import annotations

import logging
import socket
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from sqlalchemy import Engine
from sqlalchemy.exc import SQLAlchemyError

from audit.errors import AuditError
from audit.sequencer import Sequencer
from audit.siem.forwarder import Forwarder
from audit.siem.sinks import NamedSink, parse_sinks
from compliance.epoch_cache import EpochCache
from compliance.keys import SigningUse
from gateway.errors import GatewayError
from gateway.key_rotation import begin_announced
from gateway.log_key import log_keys
from gateway.messaging.courier import Courier
from gateway.messaging.webhook import check_webhook
from gateway.privacy import privacy_desk
from gateway.publishing import check_target, run_publisher
from gateway.rounds.recovery import unite_spends
from gateway.rounds.worker import Worker
from gateway.services import BELLS, Services
from gateway.storage.bell import Channel
from gateway.storage.database import is_outage, kind_of, open_engine
from gateway.storage.ringing import ring_after_commits
from gateway.witnessing import run_witnesses, witnesses_of

log = logging.getLogger(__name__)
_AWAY_PAUSE_S = 1.0
_LONGEST_WAIT_S = 1.0  # a bell may be missed
_LEAVE_S = 3.0


def recover(services: Services) -> None:
    """What every start does before it takes work: state, key store and database agree again (RULES 1, 2)."""
    parse_sinks(services.config.siem_sinks)  # a wrong sink is told at start, not by a silent SIEM
    check_webhook(services.config)
    check_target(services.config)
    witnesses_of(services.config)
    services.keystore.apply_state()
    unite_spends(services)
    for use in SigningUse:
        if use is not SigningUse.LOG:
            services.keystore.signing_key(use)  # made now: jwks.json is whole from the first answer on
    if not services.config.log_key:
        log_keys(services).first()
    begin_announced(services)


def run_worker(services: Services, stop: threading.Event) -> None:
    """Move rounds on, see privacy requests through, and carry messages and invitations."""
    courier = threading.Thread(target=Courier(services).run, args=(stop,), name="courier")
    courier.start()
    try:
        Worker(services, privacy_desk(services)).run(stop)
    finally:
        stop.set()
        courier.join()


def run_sequencer(services: Services, stop: threading.Event) -> None:
    """Order pending entries into the log and sign; a log that shrank or forked is never signed.

    Threads beside it, for which it never waits, publish the log's tiles and ask its witnesses.
    """
    publisher = threading.Thread(target=run_publisher, args=(services, stop), name="publisher", daemon=True)
    with log_writer(services) as engine:
        witnesses = threading.Thread(target=run_witnesses, args=(services, engine, stop), daemon=True)
        publisher.start()
        witnesses.start()
        try:
            _sequence(services, sequencer_of(services, engine), stop)
        finally:
            stop.set()
            publisher.join(_LEAVE_S)  # one that hangs goes with the process: what it wrote is whole
            witnesses.join(_LEAVE_S)


def _sequence(services: Services, sequencer: Sequencer, stop: threading.Event) -> None:
    while not stop.is_set():
        try:
            sequenced = sequencer.run_once()
            begin_announced(services)
        except SQLAlchemyError as error:
            if not is_outage(error):
                raise
            log.warning("the database is away (%s): waiting", kind_of(error))
            stop.wait(_AWAY_PAUSE_S)
        except OSError as error:
            log.warning("the state cannot be written (%s): waiting", error.strerror)
            stop.wait(_AWAY_PAUSE_S)
        except AuditError as error:
            log.critical("the log is not signed: %s", error)
            stop.wait(_AWAY_PAUSE_S)
        except GatewayError as error:
            log.error("the log's key cannot sign, and its entries wait: %s", error)
            stop.wait(_AWAY_PAUSE_S)
        else:
            if sequenced == 0:
                services.bell.wait(Channel.PENDING, _LONGEST_WAIT_S)
            elif sequenced < sequencer.batch:
                stop.wait(services.config.sequencer_interval_s)  # the next batch gathers meanwhile


@contextmanager
def log_writer(services: Services) -> Iterator[Engine]:
    """The database as the role that may write the log (RULES 24)."""
    config = services.config
    if not config.sequencer_database_url:
        yield services.engine
        return
    engine = open_engine(
        config.sequencer_database_url,
        part="sequencer log",
        pool_size=2,
        statement_timeout_s=config.statement_timeout_s,
    )
    ring_after_commits(engine, services.bell, BELLS)
    try:
        yield engine
    finally:
        engine.dispose()


def sequencer_of(services: Services, engine: Engine | None = None) -> Sequencer:
    """The sequencer on these services.

    Args:
        services: the stores.
        engine: the database as a role that may write the log; that of the services when not given.
    """
    return Sequencer(
        engine or services.engine,
        signer=log_keys(services),
        state=services.state,
        clock=services.clock,
        crash=services.crash,
    )


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
    """The pseudonym behind a key id; an erased person has none and is given no new one (RULES 18, 28)."""
    keystore = services.keystore
    known: EpochCache[str, str | None] = EpochCache(services.state.epoch)

    def look(key_id: str) -> str | None:
        subject = keystore.subject_of(key_id)
        if subject is None or keystore.is_forbidden(subject):
            return None
        return keystore.pseudonym(subject)

    return lambda key_id: known.get(key_id, lambda: look(key_id))
