"""A whole gateway in a folder, for fixtures: the main database with every table, settings, and the stores opened."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from pathlib import Path
from tempfile import TemporaryDirectory

from services.clock import FixedClock
from sqlalchemy import Engine

import audit.tables
import audit.triggers
import compliance.keyring.tables
import compliance.tables
import gateway.tables
from gateway.config import Config
from gateway.services import Services, open_services
from gateway.storage.database import open_engine

METADATAS = (audit.tables.metadata, compliance.tables.metadata, gateway.tables.metadata)


def create_tables(engine: Engine) -> None:
    """Every table of the main database, with the triggers that guard the log."""
    for metadata in METADATAS:
        metadata.create_all(engine)
    with engine.begin() as conn:
        for statement in audit.triggers.statements(engine.dialect.name):
            conn.exec_driver_sql(statement)


def prepare(url: str) -> None:
    """Make every table of the database of that URL."""
    engine = open_engine(url)
    create_tables(engine)
    engine.dispose()


@cache
def new_sqlite() -> bytes:
    """The file of an SQLite database with every table; a copy is made in no time."""
    with TemporaryDirectory(prefix="flg-new-") as folder:
        path = Path(folder) / "main.db"
        prepare(f"sqlite:///{path}")
        return path.read_bytes()


def sqlite_in(folder: Path) -> str:
    """A main database on SQLite with every table and no row; its URL."""
    path = folder / "fl-gateway.db"
    path.write_bytes(new_sqlite())
    return f"sqlite:///{path}"


def config_in(folder: Path, database_url: str) -> Config:
    """Settings whose stores are empty and in that folder."""
    return Config(
        database_url=database_url,
        keystore_url=f"sqlite:///{folder / 'keys' / 'subjects.db'}",
        blob_url=f"file:{folder / 'blobs'}",
        state_url=f"file:{folder / 'keys' / 'state'}",
        master_key="5a" * 32,
        siem_sinks="",
    )


@contextmanager
def opened(config: Config, clock: FixedClock) -> Iterator[Services]:
    """The gateway's stores, with every table."""
    services = open_services(config, part="console", clock=clock)
    compliance.keyring.tables.metadata.create_all(services.keystore_engine)
    yield services
    services.close()
