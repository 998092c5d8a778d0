"""The checks that open something: databases, state, keys, blobs, queue, cache; no key and no database is made."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from uuid import uuid4

from sqlalchemy import Connection, Engine, make_url, text
from sqlalchemy.exc import SQLAlchemyError

from audit.errors import AuditError
from audit.reading import reading
from audit.store import tree_size
from audit.tree import root
from gateway.config import Config
from gateway.doctor.errors import Ailing, Passed
from gateway.messaging.queue import QueueState, open_queue
from gateway.model_cache import open_models
from gateway.storage.blobs import open_blobs
from gateway.storage.database import open_engine
from gateway.storage.migrating import Which, is_current
from gateway.storage.state import open_state

LATER = "is made at the first start"
_PATIENCE_S = 6.0


def database(config: Config) -> str:
    """It answers, it has the current schema, and it holds the log that was signed last."""
    if is_to_be_made(config.database_url):
        return LATER
    with opened(config, config.database_url) as engine:
        _insist_schema(engine, "main")
        _insist_log(config, engine)
    for url in filter(None, (config.sequencer_database_url, config.owner_database_url)):
        with opened(config, url) as engine, reading(engine) as conn:
            conn.execute(text("SELECT 1"))
    return f"{make_url(config.database_url).get_backend_name()} answers, and its schema is current"


def key_store(config: Config) -> str:
    """It answers, has the current schema, and lies apart from the database."""
    if make_url(config.keystore_url) == make_url(config.database_url):
        raise Ailing("FLG_KEYSTORE_URL is the main database: its backups would bring erased people back")
    if is_to_be_made(config.keystore_url):
        return LATER
    with opened(config, config.keystore_url) as engine:
        _insist_schema(engine, "keystore")
    return f"{make_url(config.keystore_url).get_backend_name()} answers, and its schema is current"


def state(config: Config) -> str:
    """It can be read and written."""
    directory = _directory(config.state_url)
    if directory is not None and not directory.exists():
        return _can_be_made(directory, "FLG_STATE_URL")
    if directory is not None and not os.access(directory, os.R_OK | os.W_OK | os.X_OK):
        raise Ailing("the folder of FLG_STATE_URL cannot be written: give it to the gateway's user")
    last = open_state(config.state_url).last_checkpoint()
    return f"the last signed tree has {last.size} entries" if last else "nothing was signed yet"


def blobs(config: Config) -> str:
    """A blob can be written, read back and removed."""
    store = open_blobs(config)
    name, key, content = uuid4().hex, os.urandom(32), os.urandom(4096)
    try:
        with store.incoming(name, key) as blob:
            blob.write(content)
            blob.keep()
        with store.reader(name, key) as reader:
            read = reader.read_at(0, len(content))
        store.delete(name)
    finally:
        store.close()
    if read != content:
        raise Ailing("FLG_BLOB_URL gives back other bytes than were written")
    return "a blob was written, read and removed"


def queue(config: Config) -> str:
    """The broker answers."""
    if not config.queue_url:
        return "the outbox table is the queue"
    with opened(config, config.database_url) as engine:
        broker = open_queue(config, engine, lambda: datetime.now(UTC))
        try:
            if not _within_patience(lambda: broker.state() is QueueState.HEALTHY):
                raise Ailing("the broker does not answer, or takes no messages: look at FLG_QUEUE_URL")
        finally:
            broker.close()
    return "the broker answers"


def cache(config: Config) -> str:
    """Redis answers, and the way out fits the blob store."""
    store = open_blobs(config)
    try:
        if config.model_download == "redirect" and config.blob_url.startswith("file:"):
            raise Ailing("FLG_MODEL_DOWNLOAD=redirect needs FLG_BLOB_URL=s3://…: a folder gives no links")
        if config.model_download == "accel" and not config.blob_url.startswith("file:"):
            raise Ailing("FLG_MODEL_DOWNLOAD=accel needs FLG_BLOB_URL=file:…: nginx sends files")
        with opened(config, config.database_url) as engine:
            models = open_models(config, engine, store, "doctor")
            try:
                if not _within_patience(lambda: models.state() == "healthy"):
                    raise Ailing(
                        "Redis does not answer: look at FLG_CACHE_URL (without it: slower, not wrong)"
                    )
            finally:
                models.close()
    finally:
        store.close()
    return "Redis answers" if config.cache_url else "memory of each process"


def _insist_schema(engine: Engine, which: Which) -> None:
    if not is_current(engine, which):
        if engine.dialect.name == "sqlite":
            return  # the next start brings it there
        raise Ailing(f"the {which} database has not the current schema: run `fl-gateway db upgrade`")


def _insist_log(config: Config, engine: Engine) -> None:
    directory = _directory(config.state_url)
    if directory is None or not directory.exists() or not is_current(engine, "main"):
        return
    last = open_state(config.state_url).last_checkpoint()
    if last is None:
        return
    try:
        with reading(engine) as conn:
            is_ours = tree_size(conn) >= last.size and root(conn, last.size) == last.root
    except AuditError:
        is_ours = False
    if not is_ours:
        raise Ailing(
            "the database lacks entries that were signed (FLG_STATE_URL remembers them): is it another one, or an "
            "old copy? Put a backup back with `fl-gateway restore`"
        )


@contextmanager
def opened(config: Config, url: str) -> Iterator[Engine]:
    """A database for one look."""
    engine = open_engine(url, part="doctor", pool_size=1, statement_timeout_s=config.statement_timeout_s)
    try:
        yield engine
    finally:
        engine.dispose()


@contextmanager
def looked_at(config: Config, url: str, which: Which) -> Iterator[Connection]:
    """A database for a check that is about something else: raises `Passed` where it is not ready for one."""
    if is_to_be_made(url):
        raise Passed(f"nothing yet: the {which} database {LATER}")
    try:
        with opened(config, url) as engine:
            if not is_current(engine, which):
                raise Passed(f"not looked at: the {which} database has not the current schema")
            with reading(engine) as conn:
                yield conn
    except SQLAlchemyError:
        raise Passed(f"not looked at: the {which} database does not answer") from None


def is_to_be_made(url: str) -> bool:
    """Whether it is an embedded database before the first start."""
    parsed = make_url(url)
    is_file = parsed.get_backend_name() == "sqlite" and parsed.database
    return bool(is_file) and not Path(str(parsed.database)).exists()


def _directory(url: str) -> Path | None:
    scheme, _, path = url.partition(":")
    return Path(path) if scheme == "file" and path else None


def _can_be_made(directory: Path, setting: str) -> str:
    there = next(folder for folder in directory.absolute().parents if folder.exists())
    if not there.is_dir() or not os.access(there, os.W_OK | os.X_OK):
        raise Ailing(f"the folder of {setting} cannot be made: give its parent to the gateway's user")
    return LATER


def _within_patience(is_good: Callable[[], bool]) -> bool:
    until_s = time.monotonic() + _PATIENCE_S
    while not is_good():
        if time.monotonic() > until_s:
            return False
        time.sleep(0.1)
    return True
