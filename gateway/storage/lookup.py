"""The one look-up that a request may cost, asked of the driver itself: by way of SQLAlchemy it costs twice as much.

Where anything is amiss SQLAlchemy asks once more: it connects anew, and its errors are those that everybody here knows.
"""

from __future__ import annotations

from collections import namedtuple
from collections.abc import Callable, Mapping, Sequence
from functools import lru_cache
from typing import Any

from sqlalchemy import Dialect, Engine, Select

from audit.reading import glance


class LookUp:
    """A SELECT of at most one row by one text, made once, for any engine.

    Args:
        statement: has one bind parameter, a string.
        name: the parameter's.
    """

    def __init__(self, statement: Select[Any], name: str) -> None:
        self._statement = statement
        self._name = name
        self._row: Any = namedtuple("Found", statement.selected_columns.keys())  # type: ignore[misc]

    def one(self, engine: Engine, value: str) -> Any | None:
        """The row, its values by the columns' names and of their types, or None."""
        try:
            told = self._asked(engine, value)
        except engine.dialect.loaded_dbapi.Error:
            with glance(engine) as conn:
                return conn.execute(self._statement, {self._name: value}).one_or_none()
        if told is None:
            return None
        made = _made(self._statement, engine.dialect)[1]
        return self._row._make(make(item) if make else item for make, item in zip(made, told, strict=True))

    def _asked(self, engine: Engine, value: str) -> Sequence[Any] | None:
        sql, _, is_positional = _made(self._statement, engine.dialect)
        parameters: Sequence[str] | Mapping[str, str] = (value,) if is_positional else {self._name: value}
        with engine.connect() as conn:
            try:
                return _fetched(conn.connection.driver_connection, sql, parameters, engine.dialect.name)
            except BaseException:
                conn.invalidate()  # nobody knows what state it is in
                raise


def _fetched(connection: Any, sql: str, parameters: Any, database: str) -> Sequence[Any] | None:
    """The row, without a transaction around it."""
    is_shared = database == "postgresql"
    if is_shared:
        connection.autocommit = True
    cursor = connection.cursor()
    cursor.execute(sql, parameters)
    found: Sequence[Any] | None = cursor.fetchone()
    cursor.close()
    if is_shared:
        connection.autocommit = False
    return found


@lru_cache(maxsize=64)
def _made(
    statement: Select[Any], dialect: Dialect
) -> tuple[str, tuple[Callable[[Any], Any] | None, ...], bool]:
    """The text for the driver, what makes Python values of its answer, and whether parameters go by place."""
    compiled = statement.compile(dialect=dialect)
    types = (column.type.dialect_impl(dialect) for column in statement.selected_columns)
    return str(compiled), tuple(kind.result_processor(dialect, None) for kind in types), compiled.positional
