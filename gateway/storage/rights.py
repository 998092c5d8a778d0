"""Who may do what to the tables on PostgreSQL (RULES 24): two group roles, granted to the operator's login roles.

The gateway may stage entries and read the log; the sequencer alone may write it, and may not change it either. The
triggers of `audit.triggers` stand behind this and hold for the owner too.
"""

from __future__ import annotations

from collections.abc import Iterator

from sqlalchemy import Connection, Engine, MetaData, Table, text

import audit.tables
import compliance.tables
import gateway.tables
from audit.tables import (
    audit_checkpoints,
    audit_cosignatures,
    audit_log,
    audit_pending,
    audit_subjects,
    audit_tiles,
)
from gateway.errors import ConfigError

APP = "fl_gateway_app"
SEQUENCER = "fl_gateway_sequencer"
LOG_TABLES = (audit_log, audit_checkpoints, audit_cosignatures, audit_subjects, audit_tiles)
_METADATAS: tuple[MetaData, ...] = (
    audit.tables.metadata,
    compliance.tables.metadata,
    gateway.tables.metadata,
)
_ALL = "SELECT, INSERT, UPDATE, DELETE"
_LOCK = "SELECT pg_advisory_xact_lock(7042027)"

_SEQUENCER_RIGHTS = {
    audit_pending: "SELECT, DELETE",
    audit_log: "SELECT, INSERT",
    audit_checkpoints: "SELECT, INSERT",
    audit_cosignatures: "SELECT, INSERT",
    audit_subjects: "SELECT, INSERT",
    audit_tiles: "SELECT, INSERT, UPDATE",  # a tile grows in place; it is derived from the leaves
}
_GUARDED = tuple(_SEQUENCER_RIGHTS)
_CHANGES = ("INSERT", "UPDATE", "DELETE", "TRUNCATE", "TRIGGER")


def grant_rights(engine: Engine) -> None:
    """Make the two roles, if they are missing, and give them exactly their rights; may be run again at any time.

    Args:
        engine: the main database as the owner of its tables, who may make roles if they are missing.

    Raises:
        ConfigError: the database is not PostgreSQL.
    """
    if engine.dialect.name != "postgresql":
        raise ConfigError(
            "only PostgreSQL has roles: FLG_OWNER_DATABASE_URL or FLG_DATABASE_URL must name one"
        )
    with engine.begin() as conn:
        conn.execute(text(_LOCK))
        missing = [role for role in (APP, SEQUENCER) if not _exists(conn, role)]
        for statement in (*(f"CREATE ROLE {role} NOLOGIN" for role in missing), *_grants(conn)):
            conn.exec_driver_sql(statement)


def renew_rights(engine: Engine) -> bool:
    """Give the roles their rights to tables that a migration made; False if there are no roles."""
    if engine.dialect.name != "postgresql":
        return False
    with engine.begin() as conn:
        conn.execute(text(_LOCK))
        if not (_exists(conn, APP) and _exists(conn, SEQUENCER)):
            return False
        for statement in _grants(conn):
            conn.exec_driver_sql(statement)
    return True


def excess_of(conn: Connection, role: str) -> str | None:
    """What the login of this connection may do to the log beyond the rights of a role, in words; None if nothing.

    Args:
        conn: a connection to PostgreSQL as the login, to a database that has the tables.
        role: `APP` or `SEQUENCER`, whose rights are enough.
    """
    if conn.scalar(text("SELECT rolsuper FROM pg_roles WHERE rolname = current_user")):
        return "is a superuser, who can switch the log's triggers off"
    owned = text(
        "SELECT pg_has_role(current_user, relowner, 'MEMBER') FROM pg_class WHERE oid = to_regclass(:name)"
    )
    if any(conn.scalar(owned, {"name": table.name}) for table in _GUARDED):
        return "owns the log's tables, or may act as their owner, who can switch the log's triggers off"
    may = [f"{right} {table.name}" for table in _GUARDED for right in _excess(conn, table, role)]
    return f"may {', '.join(may[:3])}{' and more' if len(may) > 3 else ''}" if may else None


def _excess(conn: Connection, table: Table, role: str) -> Iterator[str]:
    enough = _rights_of_app(table) if role == APP else _SEQUENCER_RIGHTS[table]
    asked = text("SELECT has_table_privilege(current_user, :name, :right)")
    for right in _CHANGES:
        if right not in enough and conn.scalar(asked, {"name": table.name, "right": right}):
            yield right


def _exists(conn: Connection, role: str) -> bool:
    return bool(conn.scalar(text("SELECT 1 FROM pg_roles WHERE rolname = :role"), {"role": role}))


def _grants(conn: Connection) -> Iterator[str]:
    quote = conn.dialect.identifier_preparer.quote
    schema = quote(str(conn.scalar(text("SELECT current_schema()"))))
    roles = f"{APP}, {SEQUENCER}"
    yield f"GRANT USAGE ON SCHEMA {schema} TO {roles}"
    yield f"REVOKE ALL ON ALL TABLES IN SCHEMA {schema} FROM {roles}"
    yield f"GRANT USAGE ON ALL SEQUENCES IN SCHEMA {schema} TO {APP}"
    yield f"GRANT SELECT ON alembic_version TO {roles}"
    for metadata in _METADATAS:
        for table in metadata.tables.values():
            yield f"GRANT {_rights_of_app(table)} ON {quote(table.name)} TO {APP}"
    for table, rights in _SEQUENCER_RIGHTS.items():
        yield f"GRANT {rights} ON {quote(table.name)} TO {SEQUENCER}"


def _rights_of_app(table: Table) -> str:
    if table in LOG_TABLES:
        return "SELECT"
    return "SELECT, INSERT" if table is audit_pending else _ALL
