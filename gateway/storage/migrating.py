"""Brings a database to the current schema with Alembic; the migrations ship inside the wheel."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Literal

from sqlalchemy import Engine, inspect, text

from audit.reading import reading

Which = Literal["main", "keystore"]
_REVISION = re.compile(r'^revision = "(\w+)"$', re.MULTILINE)
_FOLLOWED = re.compile(r'^down_revision = "(\w+)"$', re.MULTILINE)


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
    from alembic import command  # it takes its time to load, and each start asks whether something is missing
    from alembic.config import Config

    config = Config()
    config.set_main_option("script_location", str(migrations_folder()))
    config.set_main_option("version_locations", str(migrations_folder() / which))
    config.set_main_option("path_separator", "os")
    with engine.begin() as conn:
        if conn.dialect.name == "postgresql":
            conn.exec_driver_sql("SELECT pg_advisory_xact_lock(7042026)")
        config.attributes["connection"] = conn
        command.upgrade(config, "head")


def is_current(engine: Engine, which: Which) -> bool:
    """Whether nothing is missing."""
    with reading(engine) as conn:
        if not inspect(conn).has_table("alembic_version"):
            return False
        return bool(conn.scalar(text("SELECT version_num FROM alembic_version")) == head(which))


def head(which: Which) -> str:
    """The revision that no other one follows."""
    sources = "\n".join(
        path.read_text("utf-8") for path in sorted((migrations_folder() / which).glob("*.py"))
    )
    (newest,) = set(_REVISION.findall(sources)) - set(_FOLLOWED.findall(sources))
    return str(newest)
