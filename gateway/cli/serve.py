"""`fl-gateway serve`, and the parts that it is made of as commands of their own."""

from __future__ import annotations

import logging
import signal
import sys
import threading
from collections.abc import Callable
from functools import partial

import click

from audit.events import EventType
from gateway.cli.opening import open_console
from gateway.config import load_config
from gateway.services import Services
from gateway.supervisor import Supervisor, bind, end_with_parent, part_command, url_of, wait_until_ready

PARTS = ("web", "worker", "sequence", "forward")
_PARENT = click.option("--parent-fd", type=int, hidden=True, help="End when this pipe's other end is closed.")


@click.command()
@click.option("--host", default="127.0.0.1", show_default=True, help="Address to listen on.")
@click.option(
    "--port", type=click.IntRange(0, 65535), default=8080, show_default=True, help="0 takes a free port."
)
@click.option("--only", type=click.Choice(["web"]), help="Serve HTTP alone; run the other parts elsewhere.")
@click.option("--fd", type=int, hidden=True, help="An inherited listening socket.")
@_PARENT
def serve(*, host: str, port: int, only: str | None, fd: int | None, parent_fd: int | None) -> None:
    """Run the gateway: web, worker, sequencer and forwarder in one process tree.

    Prints one line `ready http://…` once it answers.
    """
    _log_to_stderr()
    if only == "web":
        _serve_web(host, port, fd, parent_fd)
    else:
        _serve_all(host, port)


@click.command()
@_PARENT
def worker(*, parent_fd: int | None) -> None:
    """Freeze cohorts, aggregate, publish; see privacy requests through."""
    from gateway.parts import run_worker

    _run_part("worker", run_worker, parent_fd)


@click.command()
@_PARENT
def sequence(*, parent_fd: int | None) -> None:
    """Order new audit entries into the log and sign checkpoints."""
    from gateway.parts import run_sequencer

    _run_part("sequencer", run_sequencer, parent_fd)


@click.command()
@_PARENT
def forward(*, parent_fd: int | None) -> None:
    """Deliver the log to every SIEM sink."""
    from gateway.parts import run_forwarder

    _run_part("forwarder", run_forwarder, parent_fd)


def _serve_all(host: str, port: int) -> None:
    stop = _stop_on_signals()
    with open_console(part="serve") as services:
        _recover_and_note(services, "all")
        try:
            listening = bind(host, port)
        except OSError as error:
            click.echo(f"fl-gateway: {host}:{port} cannot be listened on: {error.strerror}", err=True)
            sys.exit(2)
        fd = listening.fileno()
        commands = {
            "web": part_command("serve --only web", "--fd", str(fd)),
            **{part: part_command(part) for part in PARTS[1:]},
        }
        Supervisor(commands, (fd,)).run(stop, started=partial(_announce, url_of(listening), stop))
        listening.close()
        services.trail.note(EventType.SERVER_STOPPED, mode="all")


def _serve_web(host: str, port: int, fd: int | None, parent_fd: int | None) -> None:
    from gateway.web import Web

    config = load_config()
    if parent_fd is not None:
        end_with_parent(parent_fd)
    if fd is not None:
        Web(config, f"fd://{fd}").run()
        return
    with open_console(part="web") as services:
        _recover_and_note(services, "web")
    listening = bind(host, port)
    stop = threading.Event()
    threading.Thread(target=_announce, args=(url_of(listening), stop), daemon=True).start()
    Web(config, f"fd://{listening.fileno()}").run()


def _recover_and_note(services: Services, mode: str) -> None:
    from gateway.parts import recover

    recover(services)
    services.trail.note(EventType.SERVER_STARTED, mode=mode)


def _announce(url: str, stop: threading.Event) -> None:
    if wait_until_ready(url, stop):
        click.echo(f"ready {url}")
        sys.stdout.flush()


def _run_part(part: str, run: Callable[[Services, threading.Event], None], parent_fd: int | None) -> None:
    from gateway.parts import recover

    _log_to_stderr()
    stop = _stop_on_signals()
    if parent_fd is not None:
        end_with_parent(parent_fd)
    with open_console(part=part) as services:
        if parent_fd is None:
            recover(services)
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
