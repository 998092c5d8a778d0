"""Watches every transaction of this process: what it changed, and whether it staged an audit entry with it."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

from sqlalchemy import Connection, Engine, event

_WRITE = re.compile(r"(?:INSERT INTO|UPDATE|DELETE FROM) \"?(\w+)")
_STAGED = "INSERT INTO audit_pending"


class Changes:
    """What was committed.

    Args:
        untold: beginnings of statements that need no entry.
        elsewhere: tables that this does not look at.
    """

    def __init__(self, untold: Sequence[str], elsewhere: Sequence[str]) -> None:
        self._untold = re.compile("|".join(f"(?:{pattern})" for pattern in untold))
        self._elsewhere = re.compile("|".join(f"(?:{pattern})" for pattern in elsewhere))
        self.silent: list[str] = []
        """Statements that were committed without an entry in the same transaction."""
        self.told: set[str] = set()
        """The tables that were changed together with an entry."""
        self.excused: set[str] = set()
        """Of the excuses, those that were needed."""
        self.transactions = 0

    @contextmanager
    def watched(self) -> Iterator[Changes]:
        """Look at every engine of the process meanwhile, those that are opened later too."""
        listeners = {"after_cursor_execute": self._note, "commit": self._commit, "rollback": self._forget}
        for name, listener in listeners.items():
            event.listen(Engine, name, listener)
        try:
            yield self
        finally:
            for name, listener in listeners.items():
                event.remove(Engine, name, listener)

    def _note(
        self, conn: Connection, cursor: Any, statement: str, _values: Any, _context: Any, _many: bool
    ) -> None:
        if _WRITE.match(statement) and cursor.rowcount != 0:
            conn.info.setdefault("changes", []).append(" ".join(statement.split()))

    def _commit(self, conn: Connection) -> None:
        written = conn.info.pop("changes", [])
        if not written:
            return
        self.transactions += 1
        has_entry = any(statement.startswith(_STAGED) for statement in written)
        for statement in written:
            table = _table(statement)
            if self._elsewhere.fullmatch(table):
                continue
            if has_entry:
                self.told.add(table)
            elif excuse := self._untold.match(statement):
                self.excused.add(excuse[0])
            else:
                self.silent.append(statement)

    def _forget(self, conn: Connection) -> None:
        conn.info.pop("changes", None)


def _table(statement: str) -> str:
    found = _WRITE.match(statement)
    assert found is not None
    return found[1]
