"""The bell of PostgreSQL, heard by every process: LISTEN and NOTIFY.

NOTIFY takes a lock of the whole server when it commits; it is sent after the effect's transaction, from a thread of
its own, many rings as one (decision 0070).
"""

from __future__ import annotations

import logging
import os
import select
import threading
from contextlib import suppress
from typing import Any

import psycopg
from psycopg import sql
from sqlalchemy import Engine
from sqlalchemy.exc import SQLAlchemyError

from gateway.storage.bell import Channel, Rings
from gateway.storage.database import own_session

log = logging.getLogger(__name__)
COALESCE_S = 0.01
_AWAY_PAUSE_S = 1.0
_END_PATIENCE_S = 5.0


class PostgresBell:
    """One listener and one ringer a process, each with a connection of its own, started when first needed."""

    def __init__(self, engine: Engine) -> None:
        self._rings = Rings()
        self._engine = engine
        self._lock = threading.Lock()
        self._due: set[Channel] = set()
        self._is_due = threading.Event()
        self._stopped = threading.Event()
        self._listener: _Listener | None = None
        self._ringer: threading.Thread | None = None

    def ring(self, channel: Channel) -> None:
        """Wake the waiters of every process."""
        self._rings.add(channel)
        with self._lock:
            if self._stopped.is_set():
                return
            self._due.add(channel)
            if self._ringer is None:
                self._ringer = threading.Thread(target=self._ring_on, name="bell-ringer", daemon=True)
                self._ringer.start()
        self._is_due.set()

    def wait(self, channel: Channel, timeout_s: float) -> bool:
        """Wait for a ring from any process."""
        with self._lock:
            if self._listener is None and not self._stopped.is_set():
                self._listener = _Listener(self._engine, self._rings)
        return self._rings.wait(channel, timeout_s)

    def close(self) -> None:
        """End both threads and every wait; what is still to be rung is rung."""
        with self._lock:
            self._stopped.set()
            listener, self._listener = self._listener, None
            ringer = self._ringer
        self._is_due.set()
        self._rings.close()
        if listener:
            listener.close()
        if ringer:
            ringer.join(_END_PATIENCE_S)

    def _ring_on(self) -> None:
        connection: psycopg.Connection[Any] | None = None
        while not self._stopped.is_set() or self._due:
            self._is_due.wait()
            self._is_due.clear()
            with self._lock:
                due, self._due = self._due, set()
            try:
                connection = connection or own_session(self._engine)
                if listener := self._listener:
                    listener.own_pid = connection.info.backend_pid
                _notify(connection, due)
            except (SQLAlchemyError, psycopg.Error) as error:  # the waiters look by themselves
                log.warning("no bell: the database is away (%s)", type(error).__name__)
                _close(connection)
                connection = None
                self._stopped.wait(_AWAY_PAUSE_S)
            self._stopped.wait(COALESCE_S)  # what is rung meanwhile goes out together
        _close(connection)


class _Listener:
    """The thread that hears the other processes; after each (re)connection everything counts as rung."""

    def __init__(self, engine: Engine, rings: Rings) -> None:
        self._engine, self._rings = engine, rings
        self.own_pid = 0  # this process's ringer, whose rings were heard before they were sent
        self._ear, self._mouth = os.pipe()
        self._stopped = threading.Event()
        self._thread = threading.Thread(target=self._listen_on, name="bell-listener", daemon=True)
        self._thread.start()

    def close(self) -> None:
        """End the thread."""
        self._stopped.set()
        os.close(self._mouth)  # its other end becomes readable
        self._thread.join(_END_PATIENCE_S)

    def _listen_on(self) -> None:
        while not self._stopped.is_set():
            connection: psycopg.Connection[Any] | None = None
            try:
                connection = own_session(self._engine)
                self._listen(connection)
            except (SQLAlchemyError, psycopg.Error) as error:
                log.warning("no bell is heard: the database is away (%s)", type(error).__name__)
                self._stopped.wait(_AWAY_PAUSE_S)
            finally:
                _close(connection)
        os.close(self._ear)

    def _listen(self, connection: psycopg.Connection[Any]) -> None:
        for channel in Channel:
            connection.execute(sql.SQL("LISTEN {}").format(sql.Identifier(f"flg_{channel}")))
        self._rings.add(*Channel)
        sources = select.poll()  # takes files of any number, of which a web process has thousands
        sources.register(connection.pgconn.socket, select.POLLIN)
        sources.register(self._ear, select.POLLIN)
        ready: set[int] = set()
        while self._ear not in ready:
            told = list(connection.notifies(timeout=0))
            heard = {one.channel.removeprefix("flg_") for one in told if one.pid != self.own_pid}
            self._rings.add(*(channel for channel in Channel if channel in heard))
            if not told:
                ready = {file for file, _ in sources.poll()}


def _notify(connection: psycopg.Connection[Any], channels: set[Channel]) -> None:
    for channel in sorted(channels):
        connection.execute("SELECT pg_notify(%s, '')", (f"flg_{channel}",))


def _close(connection: psycopg.Connection[Any] | None) -> None:
    if connection:
        with suppress(psycopg.Error):
            connection.close()
