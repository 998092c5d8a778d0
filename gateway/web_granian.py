"""The WSGI server for large uploads: granian, on a Unix socket behind the TLS front and nowhere else.

It hands on whatever headers came, so only the front may speak to it (decision 0094).
"""

from __future__ import annotations

import os
import signal
import socket
import threading
from collections.abc import Callable
from multiprocessing.util import Finalize
from typing import Any

from granian import Granian
from granian.constants import HTTPModes, Interfaces
from granian.log import LogLevels
from granian.net import SocketHolder  # type: ignore[attr-defined]

from gateway.app import create_app
from gateway.auth.refusals import close_refusals
from gateway.config import Config, forget_settings
from gateway.listening import BACKLOG
from gateway.services import EXTENSION, open_services
from gateway.steady_memory import keep_memory

Wsgi = Callable[[dict[str, Any], Any], Any]
GRACE_S = 10
_RUNTIME_THREADS = 1  # they move bytes; requests have blocking threads
_LOG = {  # to standard error: on standard output stands the line `ready …` alone
    "version": 1,
    "disable_existing_loggers": False,
    "formatters": {"line": {"format": "%(asctime)s %(levelname)s %(name)s: %(message)s"}},
    "handlers": {"stderr": {"class": "logging.StreamHandler", "formatter": "line"}},
    "loggers": {"_granian": {"handlers": ["stderr"], "propagate": False}},
}


class GranianWeb(Granian):  # type: ignore[misc, valid-type]
    """The gateway under granian: one worker process, which opens its own services after the fork.

    Args:
        config: the settings.
        listening: the Unix socket, bound by the parent.
    """

    def __init__(self, config: Config, listening: socket.socket) -> None:
        super().__init__(
            "gateway",
            interface=Interfaces.WSGI,
            http=HTTPModes.http1,
            process_name="fl-gateway: web",
            websockets=False,
            blocking_threads=config.web_threads,
            runtime_threads=_RUNTIME_THREADS,
            backlog=BACKLOG,
            workers_kill_timeout=GRACE_S,
            log_level=LogLevels.error,
            log_dictconfig=_LOG,
        )
        self._config = config
        self._listening = listening
        self._alive, self._held = os.pipe()

    def run(self) -> None:
        """Serve until a signal ends it."""
        self.serve(target_loader=self._load, wrap_loader=False)

    def _init_shared_socket(self) -> None:
        """Take the parent's socket instead of binding one: a restart then refuses nobody."""
        self._sso = self._listening
        self._sfd = self._listening.fileno()
        self._shd = SocketHolder(self._sfd, True, BACKLOG)  # type: ignore[call-arg]

    def _load(self) -> Wsgi:
        """The application, in the worker process."""
        os.close(self._held)
        threading.Thread(target=_end_with, args=(self._alive,), name="parent-watch", daemon=True).start()
        forget_settings()  # granian copies the environment into every request's
        keep_memory()
        app = create_app(open_services(self._config, part="web"))

        def close() -> None:
            close_refusals(app)
            app.extensions[EXTENSION].close()

        Finalize(app, close, exitpriority=1)
        return app.wsgi_app


def _end_with(alive: int) -> None:
    """Stop this worker once granian's first process is gone: nobody else would."""
    os.read(alive, 1)
    os.kill(os.getpid(), signal.SIGTERM)
