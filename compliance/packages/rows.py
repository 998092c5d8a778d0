"""Rows as files: JSON arrays, and CSV (RFC 4180) that a spreadsheet program cannot take for formulas."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from compliance.errors import BadPackage
from compliance.packages.columns import ExportColumn
from compliance.packages.scratch import Scratch
from compliance.places import ExportTable

# The last four are what a spreadsheet in a Japanese or Chinese setting reads as the first four.
_FORMULA = tuple("=+-@\t\r\n\uff1d\uff0b\uff0d\uff20")

_ENCODER = json.JSONEncoder(sort_keys=True, ensure_ascii=False)


class Told:
    """The rows of a table, on their way: they pass once, and every form of them is made of that one look.

    Args:
        table: the rows are checked against its columns.
        csv: takes them as CSV.
        portable: takes their portable members as a JSON array.
    """

    def __init__(self, table: ExportTable, *, csv: Scratch | None, portable: Scratch | None) -> None:
        self._table = table
        self._csv = None if csv is None else _Csv(csv, table.columns)
        self._portable = None if portable is None else _Array(portable)
        self._names = frozenset(column.name for column in table.columns)
        self._to_take = [column.name for column in table.portable]
        self.count = 0

    def json(self) -> Iterator[bytes]:
        """The rows as a JSON array, a line each."""
        yield b"["
        for row in self._table.rows:
            self._check(row)
            yield (b",\n" if self.count else b"\n") + _json(row)
            self.count += 1
            self._copy(row)
        yield b"\n]\n"
        if self._portable is not None:
            self._portable.end()

    def _copy(self, row: Mapping[str, Any]) -> None:
        if self._csv is not None:
            self._csv.add(row)
        if self._portable is not None:
            self._portable.add({name: row[name] for name in self._to_take})

    def _check(self, row: Mapping[str, Any]) -> None:
        if row.keys() != self._names:
            raise BadPackage(self._table.json_path, "a row does not have the members that its schema says")


class _Array:
    def __init__(self, out: Scratch) -> None:
        self._out = out
        self._between = b"[\n"

    def add(self, row: Mapping[str, Any]) -> None:
        self._out.write(self._between + _json(row))
        self._between = b",\n"

    def end(self) -> None:
        self._out.write(b"\n]\n" if self._between == b",\n" else b"[\n]\n")


class _Csv:
    def __init__(self, out: Scratch, columns: Sequence[ExportColumn]) -> None:
        self._out = out
        self._names = [column.name for column in columns]
        self._line = io.StringIO()
        self._writer = csv.writer(self._line, quoting=csv.QUOTE_ALL)
        self._write(self._names)

    def add(self, row: Mapping[str, Any]) -> None:
        self._write([cell(row[name]) for name in self._names])

    def _write(self, cells: Sequence[str]) -> None:
        self._writer.writerow(cells)
        self._out.write(self._line.getvalue().encode())
        self._line.seek(0)
        self._line.truncate()


def cell(value: Any) -> str:
    """A value as a cell: a text that would begin a formula gets an apostrophe before it; objects stand as JSON."""
    if value is None:
        return ""
    if isinstance(value, str):
        return f"'{value}" if value.startswith(_FORMULA) else value
    return _json(value).decode()


def _json(value: Any) -> bytes:
    return _ENCODER.encode(value).encode()
