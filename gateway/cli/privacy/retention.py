"""`fl-gateway privacy retention`: what the schedule says, what it would remove now, and the run itself."""

from __future__ import annotations

import json

import click

from gateway.cli.opening import open_console
from gateway.privacy import desk_parts
from gateway.retention import retention as retention_of
from gateway.retention import schedule_shown, told

_AS_JSON = click.option("--json", "as_json", is_flag=True, help="Print JSON for machines.")


@click.group()
def retention() -> None:
    """How long each kind of data is kept (FLG_RETENTION)."""


@retention.command()
@_AS_JSON
def show(*, as_json: bool) -> None:
    """Show the terms in force, beside the least that each kind must be kept."""
    with open_console() as services:
        lines = schedule_shown(services.config.retention)
    if as_json:
        click.echo(json.dumps(lines))
        return
    for line in lines:
        most = "until erasure" if line["most_days"] is None else f"at most {_days(line['most_days'])}"
        click.echo(f"{line['category']}: {most}, at least {_days(line['least_days'])}")


@retention.command()
@click.option("--apply", "applies", is_flag=True, help="Remove it; without this nothing is changed.")
@_AS_JSON
def run(*, applies: bool, as_json: bool) -> None:
    """Say what is over its time and would go now, or remove it."""
    with open_console() as services:
        schedule = retention_of(services, desk_parts(services))
        found = schedule.run() if applies else schedule.look()
    if as_json:
        click.echo(json.dumps({"applied": applies, "data": [over.public() for over in found]}))
        return
    for over in found:
        click.echo(told(over, applied=applies))
    if not found:
        click.echo("no kind of data has a term: see FLG_RETENTION")


def _days(count: int) -> str:
    return f"{count} day{'' if count == 1 else 's'}"
