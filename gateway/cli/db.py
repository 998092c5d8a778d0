"""`fl-gateway db`: bring the databases to the current schema."""

from __future__ import annotations

import click

from gateway.cli.opening import open_console
from gateway.storage.migrating import upgrade as run_migrations


@click.group()
def db() -> None:
    """The databases' schema."""


@db.command()
def upgrade() -> None:
    """Migrate the main database and the key store; nothing to do is no error."""
    with open_console() as services:
        run_migrations(services.engine, "main")
        run_migrations(services.keystore_engine, "keystore")
    click.echo("the database and the key store have the current schema")
