"""Brings a database to the current schema with Alembic; the migrations ship inside the wheel."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

from alembic import command
from alembic.config import Config as AlembicConfig
from alembic.migration import MigrationContext
from alembic.script import ScriptDirectory
from sqlalchemy import Engine

from audit.reading import reading

Which = Literal["main", "keystore"]


def migrations_folder() -> Path:
    """Where the migrations are: inside the installed package, or beside it in a checkout."""
    package = Path(__file__).resolve().parent.parent
    shipped = package / "_migrations"
    return shipped if shipped.is_dir() else package.parent / "migrations"


def upgrade(engine: Engine, which: Which) -> None:
    """Run what is missing, in one transaction; two processes at once wait for each other.

    Args:
        engine: the database.
        which: `main`, or `keystore` for the key store's own database.
    """
    if is_current(engine, which):
        return
    config = _alembic_config(which)
    with engine.begin() as conn:
        if conn.dialect.name == "postgresql":
            conn.exec_driver_sql("SELECT pg_advisory_xact_lock(7042026)")
        config.attributes["connection"] = conn
        command.upgrade(config, "head")


def is_current(engine: Engine, which: Which) -> bool:
    """Whether nothing is missing."""
    head = ScriptDirectory.from_config(_alembic_config(which)).get_current_head()
    with reading(engine) as conn:
        return MigrationContext.configure(conn).get_current_revision() == head


def _alembic_config(which: Which) -> AlembicConfig:
    config = AlembicConfig()
    config.set_main_option("script_location", str(migrations_folder()))
    config.set_main_option("version_locations", str(migrations_folder() / which))
    config.set_main_option("path_separator", "os")
    return config
