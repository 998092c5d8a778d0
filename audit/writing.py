"""A writing transaction that is tried again when the database gave it up for another one.

PostgreSQL ends one of two transactions that wait for each other (deadlock, 40P01), or that cannot both have happened
(serialization failure, 40001). The one it ended has changed nothing, so that the same work may be done again.
"""

from __future__ import annotations

import random
import time
from collections.abc import Callable
from typing import TypeVar

from sqlalchemy import Connection, Engine
from sqlalchemy.exc import DBAPIError

ATTEMPTS = 6
_FIRST_PAUSE_S = 0.01
_CONFLICTS = frozenset({"40001", "40P01"})
T = TypeVar("T")


def writing(
    engine: Engine,
    work: Callable[[Connection], T],
    *,
    jitter: Callable[[], float] = random.random,
    pause: Callable[[float], object] = time.sleep,
) -> T:
    """Do the work in one transaction and commit it; up to five times again after a conflict.

    Args:
        engine: the database.
        work: what to write; it must be the same when it is done again, and touch nothing but the connection.
        jitter: from 0 to 1, so that two that met do not meet again.
        pause: waits so many seconds.

    Raises:
        sqlalchemy.exc.OperationalError: the last conflict, if there was one each time; any other error at once.
    """
    for attempt in range(1, ATTEMPTS):
        try:
            with engine.begin() as conn:
                return work(conn)
        except DBAPIError as error:
            if not is_conflict(error):
                raise
        pause(_FIRST_PAUSE_S * 2**attempt * jitter())
    with engine.begin() as conn:
        return work(conn)


def is_conflict(error: DBAPIError) -> bool:
    """Whether the database gave this transaction up for another one."""
    return getattr(error.orig, "sqlstate", None) in _CONFLICTS
