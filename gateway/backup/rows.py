"""A row of a table as one line of canonical JSON, the same from SQLite and from PostgreSQL, and back.

Times are RFC 3339 in UTC with microseconds, binary is base64; everything else is JSON's own.
"""

from __future__ import annotations

import base64
import binascii
import json
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any

from sqlalchemy import JSON, Boolean, Column, Float, Integer, LargeBinary, Table

import audit.tables
import compliance.keyring.tables
import compliance.tables
import gateway.tables
from audit.datamap import UtcDateTime
from gateway.backup.errors import BadBackup

Row = dict[str, Any]
MAX_LINE_BYTES = 64 << 20  # a frozen cohort of a hundred thousand updates has four million

_DERIVED = {audit.tables.audit_tiles}  # from the leaves
_DERIVED_COLUMNS = {audit.tables.audit_checkpoints.c.peaks}  # of the same: a proof can do without
_HINTS = {gateway.tables.outbox}  # messages say where to look; what counts is the rows (RULES 4)
_PASSING = {  # who was signed in signs in anew, and allows anew what tools may do
    gateway.tables.sessions,
    gateway.tables.authorization_codes,
}


def main_tables() -> list[Table]:
    """What a backup holds of the main database, referred-to tables first, and whose clients they are before all."""
    rooms = (compliance.tables, gateway.tables, audit.tables)
    found = [table for room in rooms for table in room.metadata.sorted_tables]
    kept = [table for table in found if table not in _DERIVED | _HINTS | _PASSING]
    return sorted(kept, key=lambda table: table is not gateway.tables.clients)


def emptied_tables() -> list[Table]:
    """Every table that must be empty before a restore."""
    return [*main_tables(), *_DERIVED, *_HINTS, *_PASSING]


def keystore_tables() -> list[Table]:
    """What a backup of the keys holds."""
    return list(compliance.keyring.tables.metadata.sorted_tables)


def encode(table: Table, row: Mapping[str, Any]) -> bytes:
    """The line of a row, with its newline."""
    told = {column.name: _told(row[column.name]) for column in _kept(table)}
    return json.dumps(told, sort_keys=True, separators=(",", ":"), allow_nan=False).encode() + b"\n"


def decode(table: Table, line: bytes) -> Row:
    """The row of a line.

    Raises:
        BadBackup: the line is no row of this table.
    """
    try:
        told = json.loads(line)
    except (ValueError, RecursionError):
        raise BadBackup(f"a line of the table {table.name} is not JSON") from None
    if not isinstance(told, dict) or told.keys() != {column.name for column in _kept(table)}:
        raise BadBackup(f"a line of the table {table.name} has not the columns of that table")
    return {column.name: _read(table, column, told[column.name]) for column in _kept(table)}


def _kept(table: Table) -> list[Column[Any]]:
    return [column for column in table.c if column not in _DERIVED_COLUMNS]


def _told(value: Any) -> Any:
    if isinstance(value, datetime):
        return value.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%S.%fZ")
    if isinstance(value, bytes | memoryview):
        return base64.b64encode(value).decode()
    return value


def _read(table: Table, column: Column[Any], value: Any) -> Any:
    if value is None:
        return None
    kind = column.type
    try:
        if isinstance(kind, JSON):
            return value
        if isinstance(kind, UtcDateTime):
            return _time(value)
        if isinstance(kind, LargeBinary):
            return base64.b64decode(value, validate=True)
        wanted = _python_type(kind)
        if isinstance(value, bool) is not (wanted is bool) or not isinstance(value, wanted):
            raise TypeError
    except (TypeError, ValueError, binascii.Error):
        raise BadBackup(f"a value of {table.name}.{column.name} is not of that column's kind") from None
    return value


def _python_type(kind: Any) -> type | tuple[type, ...]:
    if isinstance(kind, Boolean):
        return bool
    if isinstance(kind, Integer):
        return int
    return (int, float) if isinstance(kind, Float) else str


def _time(value: str) -> datetime:
    time = datetime.fromisoformat(value)
    if time.tzinfo is None:
        raise ValueError
    return time
