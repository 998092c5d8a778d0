"""The part that orders and signs the log; beside it, what publishes tiles and asks witnesses."""

from __future__ import annotations

import logging
import threading
from collections.abc import Iterator
from contextlib import contextmanager

from sqlalchemy import Engine
from sqlalchemy.exc import SQLAlchemyError

from audit.errors import AuditError
from audit.sequencer import Sequencer
from gateway.errors import GatewayError
from gateway.key_rotation import begin_announced
from gateway.log_key import log_keys
from gateway.publishing import run_publisher
from gateway.services import BELLS, Services
from gateway.storage.bell import Channel
from gateway.storage.database import is_outage, kind_of, open_engine
from gateway.storage.ringing import ring_after_commits
from gateway.witnessing import run_witnesses

log = logging.getLogger(__name__)
_AWAY_PAUSE_S = 1.0
_LONGEST_WAIT_S = 1.0  # a bell may be missed
_LEAVE_S = 3.0
_CACHE_KIB = 8000


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
    if not config.sequencer_database_url and services.engine.dialect.name != "sqlite":
        yield services.engine
        return
    url = config.sequencer_database_url or config.database_url
    engine = open_log(url, statement_timeout_s=config.statement_timeout_s)
    ring_after_commits(engine, services.bell, BELLS)
    try:
        yield engine
    finally:
        engine.dispose()


def open_log(url: str, *, statement_timeout_s: float = 60.0) -> Engine:
    """The database for who writes the log: SQLite keeps the pages that a batch of a long one changes (decision 0167).

    It need not overwrite what is deleted: every byte of that stands in the log.

    Args:
        url: an SQLAlchemy URL.
        statement_timeout_s: PostgreSQL ends a statement after this time; 0: never.
    """
    return open_engine(
        url,
        part="sequencer log",
        pool_size=2,
        statement_timeout_s=statement_timeout_s,
        cache_kib=_CACHE_KIB,
    )


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
