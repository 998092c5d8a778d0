"""The gateway put together: every store and part that a process needs, opened once from one `Config`."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

from sqlalchemy import Engine, make_url

from audit.tables import audit_checkpoints, audit_log, audit_pending
from compliance.keyring.keystore import KeyStore
from compliance.keyring.rewrapping import has_secrets
from compliance.keyring.sealing import SubjectSealer
from compliance.keyring.wrapping import MasterKey
from gateway.config import Config
from gateway.crash import CrashPoint, crash_at
from gateway.errors import ConfigError
from gateway.messaging.queue import MessageQueue, open_queue
from gateway.model_cache import ModelCache, open_models
from gateway.storage.bell import Bell, Channel, open_bell
from gateway.storage.blobs import BlobStore, open_blobs
from gateway.storage.database import WAL_PAGES, open_engine
from gateway.storage.ended import tell_after_commits
from gateway.storage.master_key import MasterKeys
from gateway.storage.ringing import ring_after_commits
from gateway.storage.state import FileState, open_state
from gateway.storage.verdicts import Verdicts
from gateway.tables import client_updates, invitations, outbox, rounds
from gateway.trail import Trail, system_origin

EXTENSION = "fl_gateway"
_WAL_PAGES_OF_KEYS = 1000  # few: where a reader kept a destroyed key there, it is soon written over
BELLS = {
    audit_pending: Channel.PENDING,
    audit_log: Channel.LOG,
    audit_checkpoints: Channel.LOG,
    outbox: Channel.ROUNDS,
    rounds: Channel.ROUNDS,
    client_updates: Channel.ROUNDS,
    invitations: Channel.INVITATIONS,
}


def utc_now() -> datetime:
    """The clock of production."""
    return datetime.now(UTC)


@dataclass(frozen=True, slots=True)
class Services:
    """What views, workers and commands share."""

    config: Config
    engine: Engine
    keystore_engine: Engine
    state: FileState
    keystore: KeyStore
    sealer: SubjectSealer
    blobs: BlobStore
    models: ModelCache
    trail: Trail
    origin: str
    clock: Callable[[], datetime]
    crash: CrashPoint
    queue: MessageQueue
    bell: Bell
    verdicts: Verdicts

    def close(self) -> None:
        """Give the connections back."""
        self.queue.close()
        self.models.close()
        self.bell.close()
        self.engine.dispose()
        self.keystore_engine.dispose()
        self.blobs.close()


def open_services(config: Config, *, part: str, clock: Callable[[], datetime] = utc_now) -> Services:
    """Open every store.

    Args:
        config: the settings.
        part: the actor of entries made outside of requests, such as `worker` or `console`.
        clock: tells the time.

    Raises:
        ConfigError: a setting is missing or wrong.
    """
    if config.engine != "local":
        raise ConfigError("FLG_ENGINE must be local: this version carries out no other engine")
    for url in (config.database_url, config.keystore_url):
        make_folder(url)
    engine = _open(config, config.database_url, part)
    keystore_engine = _open(config, config.keystore_url, f"{part} keys", wal_pages=_WAL_PAGES_OF_KEYS)
    polls_s = {
        Channel.PENDING: config.sequencer_interval_s,
        Channel.ROUNDS: config.worker_interval_s,
        Channel.INVITATIONS: 0.5,  # each waiting client's look is a query
    }
    bell = open_bell(engine, polls_s)
    ring_after_commits(engine, bell, BELLS)
    state = open_state(config.state_url)
    tell_after_commits(engine, state.endings)
    master = MasterKeys(config)
    # Asked twice: another process may make both at this very moment, the key first.
    if master.are_lost and has_secrets(keystore_engine) and master.are_lost:
        raise ConfigError("the key store has secrets, and the file of its master key is gone: put it back")
    master_key = MasterKey(*master.load(), read_again=master.load, epoch=state.epoch)
    keystore = KeyStore(keystore_engine, master_key, state=state, clock=clock)
    sealer = SubjectSealer(keystore)
    blobs, origin = open_blobs(config), state.origin(config.log_origin)
    trail = Trail(engine, sealer, clock, lambda: system_origin(part))
    return Services(
        config=config,
        engine=engine,
        keystore_engine=keystore_engine,
        state=state,
        keystore=keystore,
        sealer=sealer,
        blobs=blobs,
        models=open_models(config, engine, blobs, origin),
        trail=trail,
        origin=origin,
        clock=clock,
        crash=crash_at(config.crash_at),
        queue=open_queue(config, engine, clock),
        bell=bell,
        verdicts=Verdicts(state.token_epoch),
    )


def current_services() -> Services:
    """The services of the application that answers this request."""
    from flask import current_app  # commands open services too, and need no web framework

    services: Services = current_app.extensions[EXTENSION]
    return services


def _open(config: Config, url: str, part: str, wal_pages: int = WAL_PAGES) -> Engine:
    return open_engine(
        url,
        secure_delete=True,
        part=part,
        pool_size=config.database_pool,
        statement_timeout_s=config.statement_timeout_s,
        wal_pages=wal_pages,
    )


def make_folder(url: str) -> None:
    """Make the folder of an embedded database."""
    parsed = make_url(url)
    if parsed.get_backend_name() == "sqlite" and parsed.database:
        Path(parsed.database).parent.mkdir(parents=True, exist_ok=True, mode=0o700)
