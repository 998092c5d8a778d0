"""How a command opens the gateway's stores: the embedded database is migrated on the way, so that one word suffices."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import click
from sqlalchemy import Engine
from sqlalchemy.exc import SQLAlchemyError

from audit.errors import AuditError
from compliance.errors import ComplianceError
from gateway.config import Config, load_config
from gateway.errors import ConfigError, GatewayError
from gateway.services import Services, make_folder, open_services
from gateway.storage.database import is_outage, kind_of, open_engine
from gateway.storage.migrating import Which, is_current, upgrade
from gateway.storage.rights import renew_rights

USAGE_EXIT = 2
_INSUFFICIENT_PRIVILEGE = "42501"


@contextmanager
def open_console(
    *, part: str = "console", migrates: bool = False, first: Callable[[Services], object] | None = None
) -> Iterator[Services]:
    """The services for one command; a refusal becomes one line on standard error and exit 2.

    Args:
        part: the actor of the command's entries.
        migrates: the command itself brings the databases to the current schema.
        first: looks at the stores before that, and may refuse.
    """
    with answered():
        services = prepared_services(load_config(), part=part, migrates=migrates, first=first)
        try:
            yield services
        finally:
            services.close()


@contextmanager
def answered() -> Iterator[None]:
    """A refusal becomes one line on standard error and exit 2."""
    try:
        yield
    except (GatewayError, ComplianceError, AuditError) as error:
        click.echo(f"fl-gateway: {error}", err=True)
        sys.exit(USAGE_EXIT)
    except SQLAlchemyError as error:
        told = _told(error)
        if told is None:
            raise
        click.echo(f"fl-gateway: {told} ({kind_of(error)}): see FLG_DATABASE_URL", err=True)
        sys.exit(USAGE_EXIT)


def _told(error: SQLAlchemyError) -> str | None:
    if is_outage(error):
        return "the database does not answer"
    is_refused = getattr(getattr(error, "orig", None), "sqlstate", "") == _INSUFFICIENT_PRIVILEGE
    return "the database does not allow this to its user" if is_refused else None


@contextmanager
def owner_engine(config: Config) -> Iterator[Engine]:
    """The main database as its owner."""
    with _migrating_engine(config.owner_database_url or config.database_url) as engine:
        yield engine


@contextmanager
def _migrating_engine(url: str, *, secure_delete: bool = False) -> Iterator[Engine]:
    """A database whose statements may take as long as they need."""
    make_folder(url)
    engine = open_engine(url, secure_delete=secure_delete, part="owner", pool_size=1, statement_timeout_s=0)
    try:
        yield engine
    finally:
        engine.dispose()


def migrate(config: Config) -> None:
    """Bring both databases to the current schema; roles that exist get their rights to what is new."""
    with owner_engine(config) as engine:
        upgrade(engine, "main")
        renew_rights(engine)
    with _migrating_engine(config.keystore_url, secure_delete=True) as engine:
        upgrade(engine, "keystore")


def prepared_services(
    config: Config,
    *,
    part: str,
    migrates: bool = False,
    first: Callable[[Services], object] | None = None,
) -> Services:
    """Open the services; embedded databases are brought to the current schema first.

    Raises:
        ConfigError: another database has not the current schema, which is the operator's to change.
    """
    services = open_services(config, part=part)
    if first:
        first(services)
    if migrates:
        migrate(config)
    databases: tuple[tuple[Engine, Which], ...] = (
        (services.engine, "main"),
        (services.keystore_engine, "keystore"),
    )
    for engine, which in databases:
        if engine.dialect.name == "sqlite":
            upgrade(engine, which)
        elif not is_current(engine, which):
            raise ConfigError(f"the {which} database has not the current schema: run `fl-gateway db upgrade`")
    return services
