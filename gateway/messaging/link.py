"""The thread that keeps a connection to RabbitMQ up: when it ends it is opened again, after growing pauses."""

from __future__ import annotations

import logging
import random
import socket
import ssl
import threading
import time
import traceback
from collections.abc import Callable, Iterator

import pika
from pika.exceptions import ChannelClosedByBroker, ProbableAccessDeniedError, ProbableAuthenticationError

from gateway.messaging.session import Arrived, Session
from gateway.messaging.topology import Topology

log = logging.getLogger(__name__)
FIRST_PAUSE_S, LONGEST_PAUSE_S = 0.2, 10.0
_CLOSE_S = 2.0
_SOUND_S = 5.0

# The library's own lines repeat payloads and addresses: ours say what matters (RULES 30).
logging.getLogger("pika").setLevel(logging.CRITICAL + 1)


class Link:
    """A session that is there whenever the broker is.

    Args:
        parameters: how to connect.
        arrived: is given each delivery.
        on_ready: called in the link's thread with each new session that can be used.
        on_lost: called in the link's thread when a session has ended.
    """

    def __init__(
        self,
        parameters: pika.ConnectionParameters,
        arrived: Arrived,
        on_ready: Callable[[Session], None],
        on_lost: Callable[[], None],
    ) -> None:
        self._parameters = parameters
        self._arrived, self._on_ready, self._on_lost = arrived, on_ready, on_lost
        self._topology = Topology()
        self._stop = threading.Event()
        self._session: Session | None = None
        self._told = ""
        self._thread = threading.Thread(target=self._run, name="rabbitmq", daemon=True)

    def start(self) -> None:
        """Begin to connect; returns at once."""
        self._thread.start()

    @property
    def session(self) -> Session | None:
        """The session that can be used now."""
        found = self._session
        return found if found and found.is_ready else None

    def close(self) -> None:
        """End the connection in order; one whose broker does not answer ends by itself with its heartbeat."""
        self._stop.set()
        session = self._session
        if session:
            session.call(session.end)
        self._thread.join(_CLOSE_S)

    def _run(self) -> None:
        number = failures = 0
        while not self._stop.is_set():
            number += 1
            began_s = time.monotonic()
            was_ready = self._live(number)
            # One that ends soon after it was ready (a queue that the broker cannot serve) is a failure, too.
            failures = 0 if was_ready and time.monotonic() - began_s >= _SOUND_S else failures + 1
            pause_s = min(LONGEST_PAUSE_S, FIRST_PAUSE_S * 2 ** min(max(failures - 1, 0), 10))
            self._stop.wait(pause_s * random.uniform(0.5, 1.0))  # noqa: S311 - spreads load, keeps no secret

    def _live(self, number: int) -> bool:
        """One session from beginning to end; whether it could be used."""
        reason: BaseException | None = None
        was_ready = False
        try:
            self._session = session = Session(
                number, self._parameters, self._topology, self._arrived, self._now_ready
            )
            session.run()
            reason, was_ready = session.reason, session.was_ready
        except Exception as error:  # noqa: BLE001 - whatever the broker sent: the next session begins anew
            place = traceback.extract_tb(error.__traceback__)[-1]
            log.error("RabbitMQ: unforeseen %s at %s:%s", type(error).__name__, place.filename, place.lineno)
        finally:
            self._session = None
        if not self._stop.is_set():
            self._tell(_words_for(reason))
        self._on_lost()
        return was_ready

    def _now_ready(self, session: Session) -> None:
        if self._stop.is_set():
            session.end()
            return
        if self._told:
            log.info("RabbitMQ is back")
        self._told = ""
        self._on_ready(session)

    def _tell(self, words: str) -> None:
        """Say why there is no connection, once."""
        if words != self._told:
            log.warning("%s: messages wait in the outbox, nothing is lost", words)
        self._told = words


def _words_for(reason: BaseException | None) -> str:
    """What is wrong, and which setting says so; never what the broker or the library says (RULES 30)."""
    for cause in _causes(reason):
        match cause:
            case ProbableAuthenticationError():
                return "RabbitMQ refuses the user or the password of FLG_QUEUE_URL"
            case ProbableAccessDeniedError():
                return "RabbitMQ refuses the vhost of FLG_QUEUE_URL, or the user's right to it"
            case ssl.SSLError():
                return "RabbitMQ has no certificate that the cafile of FLG_QUEUE_URL answers for"
            case socket.gaierror():
                return "the host of FLG_QUEUE_URL is not known"
            case ChannelClosedByBroker():
                return f"RabbitMQ refuses what is asked of its queues ({cause.reply_code})"
    return f"RabbitMQ is away ({type(reason).__name__})"


def _causes(reason: BaseException | None) -> Iterator[BaseException]:
    """The error and those that the library has wrapped into it."""
    if isinstance(reason, BaseException):
        yield reason
        wrapped = [*getattr(reason, "exceptions", ()), getattr(reason, "exception", None), *reason.args]
        for one in wrapped:
            yield from _causes(one if isinstance(one, BaseException) else None)
