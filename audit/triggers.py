"""The database itself refuses to change the log: DDL, one statement each, for the migration to run.

SQLite's INSERT OR REPLACE deletes without firing a delete trigger, so that a taken place is refused on
insert as well. On PostgreSQL roles come on top (RULES 24).
"""

from __future__ import annotations

from collections.abc import Sequence

INSERT_ONLY = ("audit_log", "audit_checkpoints", "audit_cosignatures")

_TAKEN = {
    "audit_log": "SELECT 1 FROM audit_log WHERE seq = NEW.seq OR id = NEW.id",
    "audit_checkpoints": "SELECT 1 FROM audit_checkpoints WHERE size = NEW.size",
    "audit_cosignatures": "SELECT 1 FROM audit_cosignatures WHERE size = NEW.size AND witness = NEW.witness",
}


def _sqlite(table: str) -> list[str]:
    refusal = f"SELECT RAISE(ABORT, '{table} is insert-only')"
    return [
        f"CREATE TRIGGER IF NOT EXISTS {table}_no_update BEFORE UPDATE ON {table} BEGIN {refusal}; END",
        f"CREATE TRIGGER IF NOT EXISTS {table}_no_delete BEFORE DELETE ON {table} BEGIN {refusal}; END",
        f"CREATE TRIGGER IF NOT EXISTS {table}_no_replace BEFORE INSERT ON {table} "
        f"WHEN EXISTS ({_TAKEN[table]}) BEGIN {refusal}; END",
    ]


def _postgresql(table: str) -> str:
    return (
        f"CREATE OR REPLACE TRIGGER {table}_insert_only BEFORE UPDATE OR DELETE OR TRUNCATE ON {table} "
        "FOR EACH STATEMENT EXECUTE FUNCTION audit_refuse_change()"
    )


_REFUSE_CHANGE = """\
CREATE OR REPLACE FUNCTION audit_refuse_change() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    RAISE EXCEPTION USING ERRCODE = 'insufficient_privilege', MESSAGE = TG_TABLE_NAME || ' is insert-only';
END
$$"""


def statements(dialect: str, tables: Sequence[str] = INSERT_ONLY) -> list[str]:
    """The statements for a database, by its SQLAlchemy dialect name."""
    if dialect == "sqlite":
        return [statement for table in tables for statement in _sqlite(table)]
    return [_REFUSE_CHANGE, *(_postgresql(table) for table in tables)]
