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

from gateway.cli.opening import open_console
from gateway.config import Config, load_config
from gateway.listening import bind, bind_path, named, url_of, wait_until_ready
from gateway.services import Services, open_services
from gateway.starting import note_start, note_stop
from gateway.supervisor import Supervisor, end_with_parent, part_command

SERVERS = ("gunicorn", "granian")
PARTS = ("web", "worker", "sequence", "forward")
_PARENT = click.option("--parent-fd", type=int, hidden=True, help="End when this pipe's other end is closed.")


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
@click.option("--fd", type=int, hidden=True, help="An inherited listening socket.")
@_PARENT
def serve(
    *,
    host: str,
    port: int,
    path: Path | None,
    server: str,
    only: str | None,
    fd: int | None,
    parent_fd: int | None,
) -> None:
    """Run the gateway: web, worker, sequencer and forwarder in one process tree.

    Prints one line `ready http://…` or `ready unix:/PATH` once it answers.
    """
    _log_to_stderr()
    _insist_on_server(server, on_socket=path is not None or fd is not None)
    if fd is not None:
        _serve_as_part(server, fd, parent_fd)
        return
    with named(_bound(host, port, path)) as listening:
        if only == "web":
            _serve_web(server, listening)
        else:
            _serve_all(server, listening)


@click.command()
@_PARENT
def worker(*, parent_fd: int | None) -> None:
    """Freeze cohorts, aggregate, publish; see privacy requests through."""
    from gateway.parts.working import run_worker

    _run_part("worker", run_worker, parent_fd)


@click.command()
@_PARENT
def sequence(*, parent_fd: int | None) -> None:
    """Order new audit entries into the log and sign checkpoints."""
    from gateway.parts.sequencing import run_sequencer

    _run_part("sequencer", run_sequencer, parent_fd)


@click.command()
@click.option("--from", "first", type=click.IntRange(0), help="Deliver once more from this seq on, and end.")
@click.option("--to", "last", type=click.IntRange(0), help="With --from: the last seq; default: the newest.")
@click.option("--sink", help="With --from: to this sink alone; default: to all.")
@_PARENT
def forward(*, first: int | None, last: int | None, sink: str | None, parent_fd: int | None) -> None:
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
    _run_part("forwarder", run_forwarder, parent_fd)


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
    stop = _stop_on_signals()
    with open_console(part="serve") as services:
        _recover_and_note(services, "all")
        began_s = time.monotonic()
        fd = listening.fileno()
        commands = {
            "web": part_command("serve --only web", "--server", server, "--fd", str(fd)),
            **{part: part_command(part) for part in PARTS[1:]},
        }
        Supervisor(commands, (fd,)).run(stop, started=partial(_announce, url_of(listening), stop))
        note_stop(services, "all", time.monotonic() - began_s)


def _serve_as_part(server: str, fd: int, parent_fd: int | None) -> None:
    if parent_fd is not None:
        end_with_parent(parent_fd)
    _run_web(server, load_config(), socket.socket(fileno=fd))


def _serve_web(server: str, listening: socket.socket) -> None:
    with open_console(part="web") as services:
        _recover_and_note(services, "web")
        config = services.config
    stop, began_s, process = threading.Event(), time.monotonic(), os.getpid()
    threading.Thread(target=_announce, args=(url_of(listening), stop), daemon=True).start()
    try:
        _run_web(server, config, listening)
    finally:
        if os.getpid() == process:  # what it forked ends through here too
            with closing(open_services(config, part="web")) as services:
                note_stop(services, "web", time.monotonic() - began_s)


def _run_web(server: str, config: Config, listening: socket.socket) -> None:
    if server == "granian":
        from gateway.web_granian import GranianWeb

        GranianWeb(config, listening).run()
    else:
        from gateway.web import Web

        Web(config, f"fd://{listening.detach()}").run()


def _recover_and_note(services: Services, mode: str) -> None:
    from gateway.parts.starting import recover

    recover(services)
    note_start(services, mode)


def _announce(url: str, stop: threading.Event) -> None:
    if wait_until_ready(url, stop):
        click.echo(f"ready {url}")
        sys.stdout.flush()


def _run_part(part: str, run: Callable[[Services, threading.Event], None], parent_fd: int | None) -> None:
    _log_to_stderr()
    stop = _stop_on_signals()
    if parent_fd is not None:
        end_with_parent(parent_fd)
    with open_console(part=part) as services:
        if parent_fd is not None:  # its parent has recovered, and says when it all starts and ends
            run(services, stop)
            return
        _recover_and_note(services, part)
        began_s = time.monotonic()
        run(services, stop)
        note_stop(services, part, time.monotonic() - began_s)


def _stop_on_signals() -> threading.Event:
    stop = threading.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: stop.set())
    return stop


def _log_to_stderr() -> None:
    logging.basicConfig(
        level=logging.WARNING, format="%(asctime)s %(levelname)s %(name)s: %(message)s", stream=sys.stderr
    )
