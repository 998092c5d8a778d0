"""`fl-gateway db`: bring the databases to the current schema."""

from __future__ import annotations

import json

import click

from gateway.cli.opening import open_console


@click.group()
def db() -> None:
    """The databases' schema."""


@db.command()
@click.option("--json", "as_json", is_flag=True, help="Print JSON for machines.")
def upgrade(*, as_json: bool) -> None:
    """Migrate the main database and the key store; nothing to do is no error."""
    with open_console(migrates=True):
        pass  # opening did it
    told = "the database and the key store have the current schema"
    click.echo(json.dumps({"current": True}) if as_json else told)
