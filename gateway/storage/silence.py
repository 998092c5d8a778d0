"""A PostgreSQL connection that does not wait for ever: it notices a server that is there and says nothing.

No TCP limit helps against a halted server or a frozen machine whose kernel still acknowledges what we send, and its
own statement timeout does not run. So a long wait is broken into looks: does the server take a new connection? A slow
statement goes on; a server that is silent towards everybody is given up (decision 0071).
"""

from __future__ import annotations

import select
import time
from collections.abc import Generator, Sequence
from functools import cached_property
from typing import Any, Self, TypeVar

import psycopg
from psycopg import errors
from psycopg.pq import DiagnosticField, ExecStatus
from psycopg.pq.abc import PGresult

CONNECT_S = 4
LOOK_AFTER_S = 4.0
FRESH_S = 1.0
_GRACE_S = 5.0

T = TypeVar("T")


class ServerSilent(psycopg.OperationalError):
    """The server does not answer; what it did with the last statement is not known."""


class WatchfulConnection(psycopg.Connection[Any]):
    """A connection whose every wait has an end.

    A wait ends when a look finds the server silent, at the latest some seconds after the server itself should have
    ended the statement. The connection is closed then: a late answer must not be taken for that of another question.
    """

    _parameters: dict[str, Any]
    _longest_wait_s: float
    _heard_at_s = float("-inf")

    @classmethod
    def watchful(cls, parameters: dict[str, Any], statement_timeout_s: float) -> Self:
        """Connect.

        Args:
            parameters: what libpq takes, `connect_timeout` among it.
            statement_timeout_s: after this time the server ends a statement by itself; 0: never.
        """
        connection = cls.connect(**parameters)
        connection._parameters = parameters
        connection._longest_wait_s = statement_timeout_s + _GRACE_S if statement_timeout_s else float("inf")
        return connection

    def is_fresh(self) -> bool:
        """Whether the server answered just now, and has not hung up since: asking it again would say no more."""
        if self.closed or time.monotonic() - self._heard_at_s > FRESH_S:
            return False
        return not self._incoming.poll(0)  # an idle server says something only to take its leave

    def wait(self, gen: Generator[Any, Any, T], *args: Any, **kwargs: Any) -> T:
        """Wait as psycopg does, and look in between."""
        return super().wait(self._watched(gen), *args, **kwargs)

    def _watched(self, gen: Generator[Any, Any, T]) -> Generator[Any, Any, T]:
        """The same generator; psycopg sends it a nothing each tenth of a second without an answer."""
        began = looked = time.monotonic()
        try:
            wish = next(gen)
            while True:
                ready = yield wish
                if not ready and time.monotonic() - looked >= LOOK_AFTER_S:
                    self._look(began)
                    looked = time.monotonic()
                wish = gen.send(ready)
        except StopIteration as end:
            self._heard_at_s = time.monotonic()
            answer: T = end.value
            return answer

    def answer(self, wanted: ExecStatus) -> PGresult:
        """The one answer to what was just sent by way of `pgconn`: the first wait for it costs no Python at all.

        Raises:
            psycopg.Error: the answer is of another kind, the server is gone, or it is silent.
        """
        began_s = time.monotonic()
        answers: list[PGresult] = []
        while (told := self._next_answer(began_s)) is not None:
            answers.append(told)
        if [answer.status for answer in answers] != [wanted]:
            raise _refusal(answers)
        return answers[0]

    def end_pipeline(self, commands: int) -> None:
        """Leave libpq's pipeline mode once the commands that were sent in it, and a sync behind them, are answered.

        Raises:
            psycopg.Error: the server refused one, and did none of them behind it; it is gone, or it is silent.
        """
        answers: list[PGresult] = []
        while not (answers and answers[-1].status == ExecStatus.PIPELINE_SYNC):
            told = self._next_answer(time.monotonic())
            answers += [told] if told else []  # each answer has a nothing behind it
        self.pgconn.exit_pipeline_mode()
        self._heard_at_s = time.monotonic()
        wanted = [*[ExecStatus.COMMAND_OK] * commands, ExecStatus.PIPELINE_SYNC]
        if [answer.status for answer in answers] != wanted:
            raise _refusal(answers)

    def _next_answer(self, began_s: float) -> PGresult | None:
        pgconn = self.pgconn
        while (is_sending := pgconn.flush()) or pgconn.is_busy():
            ready = self._either_way if is_sending else self._incoming
            if not ready.poll(LOOK_AFTER_S * 1000):
                self._look(began_s)
            pgconn.consume_input()
        return pgconn.get_result()

    def _look(self, began_s: float) -> None:
        """Give a server up that is silent towards everybody, or for longer than it may work on one statement."""
        if time.monotonic() - began_s > self._longest_wait_s or not self._is_server_awake():
            self.pgconn.finish()
            raise ServerSilent("the server does not answer")

    @cached_property
    def _incoming(self) -> select.poll:
        """Waits in the kernel until the server says something."""
        incoming = select.poll()
        incoming.register(self.fileno(), select.POLLIN)
        return incoming

    @cached_property
    def _either_way(self) -> select.poll:
        """Waits until the server says something, or takes more of what is said to it."""
        either_way = select.poll()
        either_way.register(self.fileno(), select.POLLIN | select.POLLOUT)
        return either_way

    def _is_server_awake(self) -> bool:
        try:
            psycopg.connect(**self._parameters).close()
        except errors.ConnectionTimeout:
            return False
        except (
            psycopg.OperationalError
        ):  # it refuses us: a server that is gone has cut this connection by itself
            return True
        return True


def _refusal(answers: Sequence[PGresult]) -> psycopg.Error:
    """The error of that state, without the server's text: it may repeat values (RULES 30)."""
    states = (answer.error_field(DiagnosticField.SQLSTATE) for answer in answers)
    state = next((state.decode() for state in states if state), "")
    try:
        kind = errors.lookup(state)
    except KeyError:  # a state of somebody's own, as a trigger may have, is no outage
        kind = psycopg.DatabaseError if state else psycopg.OperationalError
    refusal = kind("the server does not do what it was asked")
    refusal.sqlstate = state or None
    return refusal
