"""The WSGI server: gunicorn with threads, strict framing, and limits on what comes from outside."""

from __future__ import annotations

import logging
import signal
import traceback
from types import FrameType
from typing import Any

from flask import Flask
from gunicorn.app.base import BaseApplication
from gunicorn.arbiter import Arbiter
from gunicorn.http.message import Request
from gunicorn.http.parser import RequestParser

from gateway.api.stream import EXTENSION as STREAMS
from gateway.api.stream import Streams
from gateway.app import create_app
from gateway.auth.refusals import close_refusals
from gateway.config import Config
from gateway.services import EXTENSION, open_services
from gateway.steady_memory import keep_memory

HEADER_BYTES = 32_768
HEAD_BYTES = 49_152
_DRAINED_BYTES = 65_536
_MALFORMED, _FAILED = "Invalid request from ip=", "Error handling request"


class _Head(Request):  # type: ignore[misc]
    """A request whose headers are bounded together: gunicorn takes a hundred of the size that one may have."""

    def parse(self, unreader: Any) -> bytes:
        self.max_buffer_headers = HEAD_BYTES
        rest: bytes = super().parse(unreader)
        return rest

    def read_into(self, unreader: Any, buf: bytearray, stop: bool = False) -> None:
        """Read headers on until they are whole: gunicorn would look all of them through again after each piece."""
        looked = len(buf)
        super().read_into(unreader, buf, stop)
        while self.method and len(buf) <= HEAD_BYTES and _goes_on(buf, looked):
            looked = len(buf)
            super().read_into(unreader, buf)


def _goes_on(headers: bytearray, looked: int) -> bool:
    """Whether headers have no end yet, and no bare LF in what is new: gunicorn refuses that at once."""
    if headers.startswith(b"\r\n") or headers.find(b"\r\n\r\n", max(0, looked - 3)) >= 0:
        return False
    return headers.count(b"\n", looked) == headers.count(b"\r\n", max(0, looked - 1))


class Web(BaseApplication):  # type: ignore[misc]
    """The gateway under gunicorn; each worker process opens its own services after the fork.

    Args:
        config: the settings.
        bind: gunicorn's address, such as `fd://3`.
    """

    def __init__(self, config: Config, bind: str) -> None:
        self._config = config
        self._bind = bind
        super().__init__()

    def load_config(self) -> None:
        """Gunicorn's own settings."""
        settings: dict[str, Any] = {
            "bind": self._bind,
            "proc_name": "fl-gateway: web",
            "worker_class": "gthread",
            "workers": 1,
            "threads": self._config.web_threads,
            "timeout": 120,
            "graceful_timeout": 10,
            "keepalive": 5,
            "limit_request_field_size": HEADER_BYTES,
            "secure_scheme_headers": {},  # whose word counts is decided in gateway.auth.peer alone
            "forwarder_headers": "",
            "loglevel": "warning",
            "control_socket_disable": True,
            "pre_request": _close_after_unread_body,
            "post_worker_init": _end_streams_first,
            "worker_exit": _close,
        }
        for name, value in settings.items():
            if name in self.cfg.settings:
                self.cfg.set(name, value)

    def run(self) -> None:
        """Serve until a signal ends it."""
        arbiter = Arbiter(self)
        arbiter.systemd = True  # somebody else's socket, as systemd's is: its path must outlive a restart
        arbiter.run()

    def load(self) -> Flask:
        """The application, in a worker process."""
        keep_memory()
        RequestParser.mesg_class = _Head
        logging.getLogger("gunicorn.error").addFilter(repeats_nothing)
        self.app = create_app(open_services(self._config, part="web"))
        return self.app


def repeats_nothing(record: logging.LogRecord) -> bool:
    """Leave out what gunicorn repeats of a request or an error: a token, a link, a client's id (RULES 16, 30).

    Of a malformed request nothing is left, and of one that failed while it was answered the error's kind and place.
    """
    said = str(record.msg)
    if said.startswith(_FAILED) and record.exc_info:
        record.msg, record.args = f"{_FAILED}: {_kind_and_place(record.exc_info[1])}", ()
        record.exc_info = None
    return not said.startswith(_MALFORMED)


def _kind_and_place(error: BaseException | None) -> str:
    place = traceback.extract_tb(error.__traceback__)[-1] if error and error.__traceback__ else None
    where = f"{place.filename}:{place.lineno}" if place else "an unknown place"
    return f"unforeseen {type(error).__name__} at {where}"


def _close_after_unread_body(_worker: Any, message: Any) -> None:
    """Say `Connection: close` where a refused body stays unread.

    Gunicorn reads on for 64 KiB and closes, but says `keep-alive`: the client's next request would be lost.
    """
    wishes_close = message.should_close
    message.should_close = lambda: wishes_close() or _has_unread_body(message.body.reader)


def _has_unread_body(reader: Any) -> bool:
    return getattr(reader, "length", 0) > _DRAINED_BYTES or getattr(reader, "parser", None) is not None


def _end_streams_first(worker: Any) -> None:
    """Tell the streams when the process is asked to stop: gunicorn waits for every answer to end, for ten seconds."""
    streams: Streams = worker.app.app.extensions[STREAMS]
    stop = signal.getsignal(signal.SIGTERM)

    def stop_after_streams(number: int, frame: FrameType | None) -> None:
        streams.is_ending.set()
        if callable(stop):
            stop(number, frame)

    signal.signal(signal.SIGTERM, stop_after_streams)


def _close(_arbiter: Any, worker: Any) -> None:
    app = getattr(worker.app, "app", None)
    if app is not None:
        close_refusals(app)
        app.extensions[EXTENSION].close()
