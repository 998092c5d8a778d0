"""How a command opens the gateway's stores: the embedded database is migrated on the way, so that one word suffices."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager

import click
from sqlalchemy import Engine
from sqlalchemy.exc import OperationalError

from audit.errors import AuditError
from compliance.errors import ComplianceError
from gateway.config import Config, load_config
from gateway.errors import ConfigError, GatewayError
from gateway.services import Services, open_services
from gateway.storage.migrating import Which, is_current, upgrade

USAGE_EXIT = 2


@contextmanager
def open_console(*, part: str = "console", migrates: bool = False) -> Iterator[Services]:
    """The services for one command; a refusal becomes one line on standard error and exit 2.

    Args:
        part: the actor of the command's entries.
        migrates: the command itself brings the databases to the current schema.
    """
    try:
        services = prepared_services(load_config(), part=part, migrates=migrates)
        try:
            yield services
        finally:
            services.close()
    except (GatewayError, ComplianceError, AuditError) as error:
        click.echo(f"fl-gateway: {error}", err=True)
        sys.exit(USAGE_EXIT)
    except OperationalError as error:
        kind = type(error.orig).__name__
        click.echo(f"fl-gateway: the database does not answer ({kind}): see FLG_DATABASE_URL", err=True)
        sys.exit(USAGE_EXIT)


def prepared_services(config: Config, *, part: str, migrates: bool = False) -> Services:
    """Open the services; embedded databases are brought to the current schema first.

    Raises:
        ConfigError: another database has not the current schema, which is the operator's to change.
    """
    services = open_services(config, part=part)
    databases: tuple[tuple[Engine, Which], ...] = (
        (services.engine, "main"),
        (services.keystore_engine, "keystore"),
    )
    for engine, which in databases:
        if engine.dialect.name == "sqlite" or migrates:
            upgrade(engine, which)
        elif not is_current(engine, which):
            raise ConfigError(f"the {which} database has not the current schema: run `fl-gateway db upgrade`")
    return services
