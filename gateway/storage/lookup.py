"""The one look-up that a request may cost, asked of the driver itself: SQLAlchemy costs many times as much.

Where anything is amiss SQLAlchemy asks once more: it connects anew, and its errors are those that everybody here knows.
"""

from __future__ import annotations

from collections import namedtuple
from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache
from itertools import count
from typing import Any

from sqlalchemy import Dialect, Engine, Select

from audit.reading import glance
from gateway.storage.asking import AllBusy, Question, own_connections

_Maker = Callable[[Any], Any] | None
_numbers = count()


class LookUp:
    """A SELECT of at most one row by one text, made once, for any engine.

    Args:
        statement: has one bind parameter.
        name: the parameter's.
    """

    def __init__(self, statement: Select[Any], name: str) -> None:
        self._statement = statement
        self._name = name
        self._number = next(_numbers)
        self._row: Any = namedtuple("Found", statement.selected_columns.keys())  # type: ignore[misc]

    def one(self, engine: Engine, value: str) -> Any | None:
        """The row, its values by the columns' names and of their types, or None."""
        made = _made(self, engine.dialect)
        try:
            told = own_connections(engine).ask(engine, made.question, made.parameter(value))
        except (AllBusy, engine.dialect.loaded_dbapi.Error):
            with glance(engine) as conn:
                return conn.execute(self._statement, {self._name: value}).one_or_none()
        if told is None:
            return None
        values = [make(item) if make else item for make, item in zip(made.values, told, strict=True)]
        return self._row._make(values)

    def made_for(self, dialect: Dialect) -> _Made:
        """The question for a kind of database, and what makes Python values of the driver's."""
        compiled = self._statement.compile(dialect=_native(dialect))
        bound = compiled.binds[self._name].type.dialect_impl(dialect).bind_processor(dialect)
        kinds = (column.type.dialect_impl(dialect) for column in self._statement.selected_columns)
        values = tuple(kind.result_processor(dialect, None) for kind in kinds)
        return _Made(Question(f"look_up_{self._number}".encode(), str(compiled)), bound, values)


@dataclass(frozen=True, slots=True)
class _Made:
    question: Question
    bound: _Maker
    values: tuple[_Maker, ...]

    def parameter(self, value: str) -> str:
        """The value as the database writes it."""
        return str(self.bound(value)) if self.bound else value


def _native(dialect: Any) -> Dialect:
    """The dialect with parameters as the server itself writes them."""
    found: Dialect = type(dialect)(paramstyle="numeric_dollar") if dialect.name == "postgresql" else dialect
    return found


@lru_cache(maxsize=64)
def _made(look_up: LookUp, dialect: Dialect) -> _Made:
    return look_up.made_for(dialect)
