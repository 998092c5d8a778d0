"""Look-ups of PostgreSQL by libpq's own calls: psycopg's cursor costs twice as much as the look itself."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import psycopg
from psycopg import errors
from psycopg.pq import ExecStatus, Format
from sqlalchemy.exc import OperationalError

from gateway.storage.asking import Question, Row
from gateway.storage.silence import ServerSilent, WatchfulConnection


class OnPostgresql:
    """A connection in autocommit, on which each question is planned once."""

    def __init__(self, connection: WatchfulConnection) -> None:
        connection.autocommit = True
        self._connection = connection
        self.close = connection.close
        self._loads: dict[bytes, tuple[Callable[[bytes], Any], ...]] = {}

    def ask(self, question: Question, value: str) -> Row | None:
        """The row, its values as psycopg loads them.

        Raises:
            sqlalchemy.exc.OperationalError: the server is silent, or the question waited or ran too long; asked
                again, it would only take as long once more.
            psycopg.Error: anything else is amiss.
        """
        try:
            return self._ask(question, value)
        except (ServerSilent, errors.LockNotAvailable, errors.QueryCanceled) as error:
            raise OperationalError(question.sql, None, error, hide_parameters=True) from error

    def _ask(self, question: Question, value: str) -> Row | None:
        if "\0" in value:  # libpq would read the text only so far
            raise psycopg.DataError("a text of PostgreSQL has no zero byte")
        loads = self._loads.get(question.name) or self._prepare(question)
        self._connection.pgconn.send_query_prepared(
            question.name, [value.encode()], result_format=Format.BINARY
        )
        result = self._connection.answer(ExecStatus.TUPLES_OK)
        if not result.ntuples:
            return None
        told = (result.get_value(0, place) for place in range(len(loads)))
        return [None if item is None else load(item) for load, item in zip(loads, told, strict=True)]

    def _prepare(self, question: Question) -> tuple[Callable[[bytes], Any], ...]:
        """Have the server plan it; the loaders of its columns."""
        connection = self._connection
        connection.pgconn.send_prepare(question.name, question.sql.encode())
        connection.answer(ExecStatus.COMMAND_OK)
        connection.pgconn.send_describe_prepared(question.name)
        told = connection.answer(ExecStatus.COMMAND_OK)
        loads = tuple(self._loader(told.ftype(place)) for place in range(told.nfields))
        self._loads[question.name] = loads
        return loads

    def _loader(self, oid: int) -> Callable[[bytes], Any]:
        kind = self._connection.adapters.get_loader(oid, Format.BINARY)
        if kind is None:
            raise psycopg.NotSupportedError(f"no loader for the binary form of type {oid}")
        return kind(oid, self._connection).load
