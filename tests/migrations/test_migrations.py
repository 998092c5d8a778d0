"""Migrations: what they make is what the code says, on both databases, and again is nothing."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
from alembic.autogenerate import compare_metadata
from alembic.migration import MigrationContext
from alembic.script import ScriptDirectory
from sqlalchemy import Engine, inspect, text

import audit.tables
import compliance.keystore_tables
import compliance.tables
import gateway.tables
from audit.reading import reading
from gateway.storage.database import open_engine
from gateway.storage.migrating import Which, head, migrations_folder, upgrade

METADATA: dict[Which, list[Any]] = {
    "main": [audit.tables.metadata, compliance.tables.metadata, gateway.tables.metadata],
    "keystore": [compliance.keystore_tables.metadata],
}
SPECIFIED = {
    "rounds": {"round_id", "round_number", "status", "started_at", "completed_at", "global_model_version"},
    "client_updates": {
        "update_id", "round_id", "client_id", "submitted_at", "update_size_bytes", "training_metrics",
    },
    "model_versions": {
        "version_id", "version", "round_number", "accuracy", "loss", "model_blob_url", "created_at",
    },
}  # fmt: skip


@pytest.fixture
def engine(database_url: str) -> Iterator[Engine]:
    """An empty database."""
    made = open_engine(database_url)
    yield made
    made.dispose()


@pytest.mark.parametrize("which", ["main", "keystore"])
def test_migrated_is_what_the_tables_say(engine: Engine, which: Which) -> None:
    """Alembic itself finds no difference; a second run changes nothing."""
    upgrade(engine, which)
    upgrade(engine, which)

    with engine.connect() as conn:
        context = MigrationContext.configure(conn, opts={"compare_type": True})
        differences = compare_metadata(context, METADATA[which])

    assert differences == []


@pytest.mark.parametrize("which", ["main", "keystore"])
def test_the_head_is_the_one_that_alembic_finds(which: Which) -> None:
    """It is read from the files, since every start asks for it."""
    script = ScriptDirectory(str(migrations_folder()), version_locations=[str(migrations_folder() / which)])

    assert head(which) == script.get_current_head()


def test_the_specified_tables_and_columns_are_there(engine: Engine) -> None:
    """Specification 3.1, and the tables that DESIGN names."""
    upgrade(engine, "main")

    found = inspect(engine)
    tables = set(found.get_table_names())

    for table, columns in SPECIFIED.items():
        assert columns <= {column["name"] for column in found.get_columns(table)}
    named = {"audit_log", "audit_pending", "audit_checkpoints", "privacy_ledger", "privacy_requests"}
    assert named | {"siem_cursors", "outbox"} <= tables


def test_sqlite_is_set_to_lose_nothing(sqlite_url: str) -> None:
    """Required: WAL, synchronous=FULL, foreign keys on."""
    engine = open_engine(sqlite_url, secure_delete=True)
    pragmas = ("journal_mode", "synchronous", "foreign_keys", "secure_delete")

    with reading(engine) as conn:
        found = {name: conn.execute(text(f"PRAGMA {name}")).scalar_one() for name in pragmas}
    engine.dispose()

    assert found == {"journal_mode": "wal", "synchronous": 2, "foreign_keys": 1, "secure_delete": 1}
