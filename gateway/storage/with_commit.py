"""Rows that travel with the COMMIT: a PostgreSQL server gets both at once and answers both, in one round trip.

What nobody reads before the commit, such as an audit entry beside its effect, need not be waited for on its own.
In libpq's pipeline mode the server does nothing behind a statement that failed: without its rows no commit.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Sequence
from functools import lru_cache
from itertools import count
from typing import Any

import psycopg
from psycopg import IsolationLevel
from psycopg.pq import PipelineStatus, TransactionStatus

from gateway.storage.silence import WatchfulConnection

_Row = Sequence[str]


class CarryingConnection(WatchfulConnection):
    """A connection whose commit takes rows along."""

    def __init__(self, *args: Any, **options: Any) -> None:
        super().__init__(*args, **options)
        self._carried: list[tuple[str, _Row]] = []

    def carry(self, statement: str, rows: Iterable[_Row]) -> bool:
        """Have the commit execute a statement, once for each row; a rollback forgets it.

        SQLAlchemy does not learn of it: its transaction must have begun, and no savepoint in it.

        Args:
            statement: answers with no rows; `%s` stands for each value.
            rows: its values, as texts that the server reads by the types of their columns.

        Returns:
            False where it must be executed at once: in autocommit, and where it would have to begin a transaction of
            a kind of its own.

        Raises:
            psycopg.DataError: a value has a zero byte, which no text of PostgreSQL can have.
        """
        if self.autocommit or not (self._is_ordinary() or self._has_begun()):
            return False
        taken = [(statement, row) for row in rows]
        if any("\0" in value for _, row in taken for value in row):  # libpq would read it only so far
            raise psycopg.DataError("a text of PostgreSQL has no zero byte")
        self._carried += taken
        return True

    def carried(self) -> Iterator[str]:
        """The statements that the commit will execute."""
        return (statement for statement, _ in self._carried)

    def commit(self) -> None:
        """Commit, and first write what is carried.

        Raises:
            psycopg.Error: nothing was committed; or nobody knows, as of any commit whose answer never came.
        """
        if not self._carried:
            super().commit()
            return
        try:
            carried, self._carried = self._carried, []
            with self.lock:
                self._commit_with(carried)
        finally:
            if self.pgconn.pipeline_status != PipelineStatus.OFF:
                self.pgconn.finish()  # interrupted: a late answer must not be taken for another question's
            elif self.pgconn.transaction_status in (TransactionStatus.INERROR, TransactionStatus.INTRANS):
                super().rollback()  # as a COMMIT that fails ends its transaction

    def rollback(self) -> None:
        """Undo what was done, and forget what is carried."""
        self._carried = []
        super().rollback()

    def _is_ordinary(self) -> bool:
        """Whether a BEGIN would say nothing; SQLAlchemy leaves the default said where it has said something else."""
        is_default = self.isolation_level in (None, IsolationLevel.READ_COMMITTED)
        return is_default and not self.read_only and not self.deferrable

    def _has_begun(self) -> bool:
        return self.pgconn.transaction_status != TransactionStatus.IDLE

    def _commit_with(self, rows: Sequence[tuple[str, _Row]]) -> None:
        """Where no transaction has begun, all that stands before one sync is one (PostgreSQL's protocol, "Pipelining").

        Statements have no names: psycopg has the server forget those now and then.
        """
        pgconn, has_begun = self.pgconn, self._has_begun()
        pgconn.enter_pipeline_mode()
        for statement, row in rows:
            pgconn.send_query_params(_numbered(statement), [value.encode() for value in row])
        if has_begun:
            pgconn.send_query_params(b"COMMIT", None)
        pgconn.pipeline_sync()
        self.end_pipeline(len(rows) + has_begun)


@lru_cache
def _numbered(statement: str) -> bytes:
    """The statement with its parameters as the server itself writes them: $1, $2."""
    numbers = count(1)
    return re.sub("%s", lambda _: f"${next(numbers)}", statement).encode()
