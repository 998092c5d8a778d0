"""Migrations: what they make is what the code says, on both databases, and again is nothing."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any
from uuid import uuid4

import alembic.command
import alembic.config
import pytest
from alembic.autogenerate import compare_metadata
from alembic.migration import MigrationContext
from alembic.script import ScriptDirectory
from sqlalchemy import Engine, insert, inspect, text

import audit.tables
import compliance.keyring.tables
import compliance.tables
import gateway.tables
from audit.reading import reading
from compliance.subjects import new_subject
from gateway.app import create_app
from gateway.auth.refusals import close_refusals
from gateway.auth.roster import list_clients
from gateway.auth.secrets import SecretKind, digest, new_secret
from gateway.cli.opening import migrate
from gateway.config import Config
from gateway.services import open_services
from gateway.storage.database import open_engine
from gateway.storage.migrating import Which, head, migrations_folder, upgrade

METADATA: dict[Which, list[Any]] = {
    "main": [audit.tables.metadata, compliance.tables.metadata, gateway.tables.metadata],
    "keystore": [compliance.keyring.tables.metadata],
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


def _upgrade_to(engine: Engine, revision: str) -> None:
    config = alembic.config.Config()
    config.set_main_option("script_location", str(migrations_folder()))
    config.set_main_option("version_locations", str(migrations_folder() / "main"))
    config.set_main_option("path_separator", "os")
    with engine.begin() as conn:
        config.attributes["connection"] = conn
        alembic.command.upgrade(config, revision)


def _filled_before_the_bank(engine: Engine) -> tuple[str, str, str]:
    """A client with its secret and a token, as the schema before `main0004` keeps them."""
    client_id, subject_id, now = str(uuid4()), str(uuid4()), datetime.now(UTC)
    secret, bearer = new_secret(SecretKind.CLIENT_SECRET), new_secret(SecretKind.ACCESS_TOKEN)
    whose = {"client_id": client_id, "subject_id": subject_id, "role": "auditor", "status": "active"}
    proof = {"auth_method": "client_secret", "secret_hash": digest(secret), "registered_at": now}
    token = {"token_hash": digest(bearer), "client_id": client_id, "scope": "audit:read", "kind": "access"}
    _upgrade_to(engine, "main0003")
    with engine.begin() as conn:
        new_subject(conn, subject_id, now)
        conn.execute(insert(gateway.tables.clients).values(whose | proof))
        until = {"issued_at": now, "expires_at": now + timedelta(hours=1)}
        conn.execute(insert(gateway.tables.tokens).values(token | until))
    return client_id, secret, bearer


def test_who_came_in_before_comes_in_after(engine: Engine, database_url: str, tmp_path: Path) -> None:
    """A filled database goes on: its clients' secrets and tokens open the door, and each has the defaults of now."""
    client_id, secret, bearer = _filled_before_the_bank(engine)
    config = Config(
        database_url=database_url,
        keystore_url=f"sqlite:///{tmp_path / 'subjects.db'}",
        blob_url=f"file:{tmp_path / 'blobs'}",
        state_url=f"file:{tmp_path / 'state'}",
        master_key="5a" * 32,
        siem_sinks="",
    )

    migrate(config)

    services = open_services(config, part="web")
    app = create_app(services)
    http = app.test_client()
    auditor = {"Authorization": f"Bearer {bearer}"}
    form = {"grant_type": "client_credentials"}
    assert http.get("/api/v1/audit/entries", headers=auditor).status_code == 200
    assert http.post("/oauth/token", data=form, auth=(client_id, secret)).status_code == 200
    (record,) = list_clients(services, page=1, per_page=9)[0]
    assert (record.token_format, record.redirect_uris) == ("opaque", ())
    close_refusals(app)
    services.close()


def test_sqlite_is_set_to_lose_nothing(sqlite_url: str) -> None:
    """Required: WAL, synchronous=FULL, foreign keys on."""
    engine = open_engine(sqlite_url, secure_delete=True)
    pragmas = ("journal_mode", "synchronous", "foreign_keys", "secure_delete")

    with reading(engine) as conn:
        found = {name: conn.execute(text(f"PRAGMA {name}")).scalar_one() for name in pragmas}
    engine.dispose()

    assert found == {"journal_mode": "wal", "synchronous": 2, "foreign_keys": 1, "secure_delete": 1}


def test_the_write_ahead_log_of_keys_stays_shorter_than_that_of_the_log(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """RULES 15: where a reader kept a destroyed key's bytes there, the next thousand pages go over them."""
    monkeypatch.chdir(tmp_path)
    migrate(Config())
    services = open_services(Config(), part="web")

    found = []
    for engine in (services.engine, services.keystore.engine):
        with reading(engine) as conn:
            found.append(conn.execute(text("PRAGMA wal_autocheckpoint")).scalar_one())
    services.close()

    assert found == [4000, 1000]
