"""A crowded PostgreSQL database: tables filled with invented rows in a few seconds, for the planner to look at."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from sqlalchemy import JSON, Boolean, DateTime, Engine, Float, Integer, LargeBinary, Table, Uuid, text
from sqlalchemy.sql.schema import Column
from sqlalchemy.types import TypeDecorator

_UUID = "lpad(to_hex(n), 32, '0')::uuid"


@dataclass(frozen=True, slots=True)
class Crowd:
    """How many rows a table gets, and what some of its columns hold: SQL in `n`, the row's number."""

    rows: int = 100_000
    columns: Mapping[str, str] = field(default_factory=dict)


def fill(engine: Engine, crowds: Mapping[Table, Crowd]) -> None:
    """Add the rows, past triggers and foreign keys, and let the planner count them."""
    with engine.begin() as conn:
        conn.execute(text("SET LOCAL session_replication_role = replica"))
        conn.execute(text("SET LOCAL statement_timeout = 0"))
        for table, crowd in crowds.items():
            names = ", ".join(f'"{column.name}"' for column in table.columns)
            values = ", ".join(crowd.columns.get(c.name) or _invented(c) for c in table.columns)
            rows = f"FROM generate_series(1000000, {999_999 + crowd.rows}) AS n"
            conn.execute(text(f'INSERT INTO "{table.name}" ({names}) SELECT {values} {rows}'))
    with engine.connect().execution_options(isolation_level="AUTOCOMMIT") as conn:
        conn.execute(text("SET statement_timeout = 0"))
        conn.execute(text("VACUUM (ANALYZE)"))  # as autovacuum does


def _invented(column: Column[object]) -> str:
    kind = column.type.impl if isinstance(column.type, TypeDecorator) else column.type
    if column.nullable:
        return "NULL"
    if isinstance(kind, Uuid):
        return _UUID
    if isinstance(kind, JSON):
        return """'{"enc": "aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa"}'"""
    if isinstance(kind, DateTime):
        return "now() - n * interval '1 millisecond'"
    if isinstance(kind, Boolean):
        return "false"
    if isinstance(kind, Integer | Float):
        return "n"
    if isinstance(kind, LargeBinary):
        return "decode(md5(n::text) || md5(n::text), 'hex')"
    return f"left(md5(n::text) || md5(n::text), {getattr(kind, 'length', None) or 64})"
