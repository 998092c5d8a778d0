"""The gateway put together: every store and part that a process needs, opened once from one `Config`."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

from flask import current_app, g, has_request_context
from sqlalchemy import Engine, make_url

from compliance.keystore import KeyStore
from compliance.sealing import SubjectSealer
from gateway.config import Config
from gateway.crash import CrashPoint, crash_at
from gateway.errors import ConfigError
from gateway.storage.blobs import FileBlobs, open_blobs
from gateway.storage.database import open_engine
from gateway.storage.master_key import load_master_key
from gateway.storage.state import FileState, open_state
from gateway.trail import Origin, Trail, system_origin

EXTENSION = "fl_gateway"


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
    blobs: FileBlobs
    trail: Trail
    origin: str
    clock: Callable[[], datetime]
    crash: CrashPoint

    def close(self) -> None:
        """Give the connections back."""
        self.engine.dispose()
        self.keystore_engine.dispose()


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
        _make_folder(url)
    engine = open_engine(config.database_url)
    keystore_engine = open_engine(config.keystore_url, secure_delete=True)
    state = open_state(config.state_url)
    keystore = KeyStore(keystore_engine, load_master_key(config.master_key), state=state, clock=clock)
    sealer = SubjectSealer(keystore)
    trail = Trail(engine, sealer, clock, lambda: _origin(part))
    return Services(
        config=config,
        engine=engine,
        keystore_engine=keystore_engine,
        state=state,
        keystore=keystore,
        sealer=sealer,
        blobs=open_blobs(config.blob_url),
        trail=trail,
        origin=state.origin(config.log_origin),
        clock=clock,
        crash=crash_at(config.crash_at),
    )


def current_services() -> Services:
    """The services of the application that answers this request."""
    services: Services = current_app.extensions[EXTENSION]
    return services


def _origin(part: str) -> Origin:
    if has_request_context() and "origin" in g:
        found: Origin = g.origin
        return found
    return system_origin(part)


def _make_folder(url: str) -> None:
    parsed = make_url(url)
    if parsed.get_backend_name() == "sqlite" and parsed.database:
        Path(parsed.database).parent.mkdir(parents=True, exist_ok=True, mode=0o700)
