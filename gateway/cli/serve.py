"""`fl-gateway serve`, and the parts that it is made of as commands of their own."""

from __future__ import annotations

import logging
import os
import signal
import socket
import sys
import threading
import time
from collections.abc import Callable
from contextlib import closing
from functools import partial
from importlib.util import find_spec
from pathlib import Path

import click
from setproctitle import setproctitle

from gateway.cli.opening import open_console
from gateway.config import Config, load_config
from gateway.listening import bind, bind_path, named, url_of, wait_until_ready
from gateway.services import Services, open_services
from gateway.starting import note_start, note_stop
from gateway.supervisor import Supervisor, run_apart

SERVERS = ("gunicorn", "granian")
Run = Callable[[Services, threading.Event], None]


@click.command()
@click.option("--host", default="127.0.0.1", show_default=True, help="Address to listen on.")
@click.option(
    "--port", type=click.IntRange(0, 65535), default=8080, show_default=True, help="0 takes a free port."
)
@click.option(
    "--socket",
    "path",
    type=click.Path(path_type=Path, dir_okay=False),
    help="Listen on a Unix socket of this path (mode 0660) instead of an address.",
)
@click.option(
    "--server",
    type=click.Choice(SERVERS),
    default=SERVERS[0],
    show_default=True,
    help="WSGI server; granian takes large uploads faster, and only on --socket, behind nginx.",
)
@click.option("--only", type=click.Choice(["web"]), help="Serve HTTP alone; run the other parts elsewhere.")
def serve(
    *,
    host: str,
    port: int,
    path: Path | None,
    server: str,
    only: str | None,
) -> None:
    """Run the gateway: web, worker, sequencer and forwarder in one process tree.

    Prints one line `ready http://…` or `ready unix:/PATH` once it answers.
    """
    _log_to_stderr()
    _insist_on_server(server, on_socket=path is not None)
    with named(_bound(host, port, path)) as listening:
        if only == "web":
            _serve_web(server, listening)
        else:
            _serve_all(server, listening)


@click.command()
def worker() -> None:
    """Freeze cohorts, aggregate, publish; see privacy requests through."""
    from gateway.parts.working import run_worker

    _run_part("worker", run_worker)


@click.command()
def sequence() -> None:
    """Order new audit entries into the log and sign checkpoints."""
    from gateway.parts.sequencing import run_sequencer

    _run_part("sequencer", run_sequencer)


@click.command()
@click.option("--from", "first", type=click.IntRange(0), help="Deliver once more from this seq on, and end.")
@click.option("--to", "last", type=click.IntRange(0), help="With --from: the last seq; default: the newest.")
@click.option("--sink", help="With --from: to this sink alone; default: to all.")
def forward(*, first: int | None, last: int | None, sink: str | None) -> None:
    """Deliver the log to every SIEM sink.

    With --from the entries from there on are delivered once more; the sinks' own cursors stay where they are.
    """
    from gateway.cli.siem import replay_once
    from gateway.parts.forwarding import run_forwarder

    if first is not None:
        replay_once(first, last, sink)
        return
    if last is not None or sink is not None:
        raise click.UsageError("--to and --sink say more about --from: add it")
    _run_part("forwarder", run_forwarder)


def _insist_on_server(server: str, *, on_socket: bool) -> None:
    """Granian passes on whatever headers it is given: nobody but the TLS front may speak to it."""
    if server != "granian":
        return
    if not on_socket:
        raise click.UsageError("--server granian listens on a Unix socket alone: add --socket PATH")
    if find_spec("granian") is None:
        raise click.UsageError(
            "--server granian needs the extra `server`: pip install 'fl-gateway[server]', or leave it out"
        )


def _bound(host: str, port: int, path: Path | None) -> socket.socket:
    try:
        return bind(host, port) if path is None else bind_path(path.absolute())
    except OSError as error:
        where = f"{host}:{port}" if path is None else path
        click.echo(f"fl-gateway: {where} cannot be listened on: {error.strerror or error}", err=True)
        sys.exit(2)


def _serve_all(server: str, listening: socket.socket) -> None:
    from gateway.parts.forwarding import run_forwarder
    from gateway.parts.sequencing import run_sequencer
    from gateway.parts.working import run_worker

    stop, began_s = _stop_on_signals(), time.monotonic()
    web = _web(server)
    parts: dict[str, Callable[[], object]] = {
        "web": lambda: web(load_config(), listening),
        "worker": partial(_be_part, "worker", run_worker),
        "sequence": partial(_be_part, "sequencer", run_sequencer),
        "forward": partial(_be_part, "forwarder", run_forwarder),
    }
    if status := run_apart(lambda: _note("serve", lambda services: _recover_and_note(services, "all"))):
        sys.exit(status)
    Supervisor(parts, partial(_announce, url_of(listening), threading.Event())).run(stop)
    lasted_s = time.monotonic() - began_s
    sys.exit(run_apart(lambda: _note("serve", lambda services: note_stop(services, "all", lasted_s))))


def _note(part: str, write: Callable[[Services], None]) -> None:
    with open_console(part=part) as services:
        write(services)


def _serve_web(server: str, listening: socket.socket) -> None:
    setproctitle("fl-gateway: web")
    with open_console(part="web") as services:
        _recover_and_note(services, "web")
        config = services.config
    stop, began_s, process = threading.Event(), time.monotonic(), os.getpid()
    threading.Thread(target=_announce, args=(url_of(listening), stop), daemon=True).start()
    try:
        _web(server)(config, listening)
    finally:
        if os.getpid() == process:  # what it forked ends through here too
            with closing(open_services(config, part="web")) as services:
                note_stop(services, "web", time.monotonic() - began_s)


def _web(server: str) -> Callable[[Config, socket.socket], None]:
    """What serves HTTP on a socket until a signal ends it."""
    if server == "granian":
        from gateway.web_granian import GranianWeb

        return lambda config, listening: GranianWeb(config, listening).run()
    from gateway.web import Web

    return lambda config, listening: Web(config, f"fd://{listening.detach()}").run()


def _recover_and_note(services: Services, mode: str) -> None:
    from gateway.parts.starting import recover

    recover(services)
    note_start(services, mode)


def _announce(url: str, stop: threading.Event) -> None:
    if wait_until_ready(url, stop):
        click.echo(f"ready {url}")
        sys.stdout.flush()


def _run_part(part: str, run: Run) -> None:
    """A part as a command of its own."""
    _log_to_stderr()
    stop = _stop_on_signals()
    with open_console(part=part) as services:
        _recover_and_note(services, part)
        began_s = time.monotonic()
        run(services, stop)
        note_stop(services, part, time.monotonic() - began_s)


def _be_part(part: str, run: Run) -> None:
    """A part of the tree: its parent has recovered, and says when it all starts and ends."""
    stop = _stop_on_signals()
    with open_console(part=part) as services:
        run(services, stop)


def _stop_on_signals() -> threading.Event:
    stop = threading.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: stop.set())
    return stop


def _log_to_stderr() -> None:
    logging.basicConfig(
        level=logging.WARNING, format="%(asctime)s %(levelname)s %(name)s: %(message)s", stream=sys.stderr
    )
