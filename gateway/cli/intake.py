"""`fl-gateway intake`: one command that stops all intake, and one that opens it again."""

from __future__ import annotations

import json

import click

from audit.reading import reading
from gateway.cli.opening import open_console
from gateway.rounds.intake_switch import Intake, intake_of, resume_intake, stop_intake

_AS_JSON = click.option("--json", "as_json", is_flag=True, help="Print JSON for machines.")


@click.group()
def intake() -> None:
    """Whether updates and new rounds are taken at all."""


@intake.command()
@_AS_JSON
def stop(*, as_json: bool) -> None:
    """Take no update and open no round, at once, until `intake resume`."""
    with open_console() as services:
        _print(stop_intake(services), as_json=as_json)


@intake.command()
@_AS_JSON
def resume(*, as_json: bool) -> None:
    """Take updates and open rounds again."""
    with open_console() as services:
        _print(resume_intake(services), as_json=as_json)


@intake.command()
@_AS_JSON
def status(*, as_json: bool) -> None:
    """Show how the switch stands."""
    with open_console() as services, reading(services.engine) as conn:
        found = intake_of(conn)
    _print(found, as_json=as_json)


def _print(found: Intake, *, as_json: bool) -> None:
    said, since = "open" if found.is_open else "stopped", found.since
    if as_json:
        click.echo(json.dumps({"status": said, "since": since.isoformat() if since else None}))
    else:
        click.echo(f"intake {said}" + (f" since {since:%Y-%m-%d %H:%M:%S}Z" if since else ""))
