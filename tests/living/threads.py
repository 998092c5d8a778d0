"""The same gateway inside the test's own process: its parts are threads, HTTP needs no socket; it starts in a moment.

For what a promise says of code and stores. What it says of processes is tested with `living.processes`.
"""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager

import httpx
from living.driver import Driver
from living.home import Home

from gateway.app import create_app
from gateway.auth.refusals import close_refusals
from gateway.config import load_config
from gateway.parts.forwarding import run_forwarder
from gateway.parts.sequencing import run_sequencer
from gateway.parts.starting import recover
from gateway.parts.working import run_worker
from gateway.services import Services, open_services

PARTS = {"worker": run_worker, "sequencer": run_sequencer, "forwarder": run_forwarder}


class LocalGateway(Driver):
    """The gateway in threads on a home; `start` some or all of its parts, `stop` it, start it again."""

    def __init__(self, home: Home) -> None:
        super().__init__(home)
        self._stop = threading.Event()
        self._running = ExitStack()
        self._web: Services | None = None

    def web_services(self) -> Services:
        """The stores of the web part."""
        assert self._web is not None
        return self._web

    def start(self, *parts: str) -> LocalGateway:
        """Start the web part, which recovers first, and the parts of these names (all if none is named)."""
        self._stop.clear()
        with self.home.stores() as services:
            recover(services)
        self._start_web()
        for part in parts or PARTS:
            self._start_part(part)
        return self

    def stop(self) -> None:
        """End every part in order."""
        self._stop.set()
        self._running.close()

    def _start_web(self) -> None:
        services = self._web = open_services(load_config(self.home.environment()), part="web")
        self._running.callback(services.close)
        app = create_app(services)
        self._running.callback(close_refusals, app)
        transport = httpx.WSGITransport(app=app, raise_app_exceptions=True)
        self._http = httpx.Client(transport=transport, base_url="http://127.0.0.1")
        self._running.callback(self._http.close)

    def _start_part(self, part: str) -> None:
        services = open_services(load_config(self.home.environment()), part=part)
        self._running.callback(services.close)
        thread = threading.Thread(target=PARTS[part], args=(services, self._stop), name=part)
        thread.start()
        self._running.callback(thread.join)


@contextmanager
def local_gateway_in(home: Home, *parts: str) -> Iterator[LocalGateway]:
    """A gateway in threads on the home."""
    gateway = LocalGateway(home)
    try:
        yield gateway.start(*parts)
    finally:
        gateway.stop()
