"""`fl-gateway db`: bring the databases to the current schema, and PostgreSQL's roles to their rights."""

from __future__ import annotations

import json

import click

from gateway.cli.opening import answered, migrate, owner_engine
from gateway.config import load_config
from gateway.storage.rights import APP, SEQUENCER, grant_rights


@click.group()
def db() -> None:
    """The databases' schema and roles."""


@db.command()
@click.option("--json", "as_json", is_flag=True, help="Print JSON for machines.")
def upgrade(*, as_json: bool) -> None:
    """Migrate the main database and the key store; nothing to do is no error."""
    with answered():
        migrate(load_config())
    told = "the database and the key store have the current schema"
    click.echo(json.dumps({"current": True}) if as_json else told)


@db.command()
@click.option("--json", "as_json", is_flag=True, help="Print JSON for machines.")
def grant(*, as_json: bool) -> None:
    """Make PostgreSQL's two group roles, and give them their rights; run it as the owner of the tables.

    Grant the roles to the logins of the gateway and of the sequencer. It may be run again at any time.
    """
    with answered(), owner_engine(load_config()) as engine:
        grant_rights(engine)
    told = f"{APP} and {SEQUENCER} have their rights"
    click.echo(json.dumps({"roles": [APP, SEQUENCER]}) if as_json else told)
