"""How a command opens the gateway's stores: the embedded database is migrated on the way, so that one word suffices."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager

import click
from sqlalchemy import make_url

from audit.errors import AuditError
from compliance.errors import ComplianceError
from gateway.config import Config, load_config
from gateway.errors import GatewayError
from gateway.services import Services, open_services
from gateway.storage.migrating import upgrade

USAGE_EXIT = 2


@contextmanager
def open_console(*, part: str = "console") -> Iterator[Services]:
    """The services for one command; a refusal becomes one line on standard error and exit 2."""
    try:
        services = prepared_services(load_config(), part=part)
        try:
            yield services
        finally:
            services.close()
    except (GatewayError, ComplianceError, AuditError) as error:
        click.echo(f"fl-gateway: {error}", err=True)
        sys.exit(USAGE_EXIT)


def prepared_services(config: Config, *, part: str) -> Services:
    """Open the services; embedded databases are brought to the current schema first."""
    services = open_services(config, part=part)
    if make_url(config.database_url).get_backend_name() == "sqlite":
        upgrade(services.engine, "main")
    if make_url(config.keystore_url).get_backend_name() == "sqlite":
        upgrade(services.keystore_engine, "keystore")
    return services
