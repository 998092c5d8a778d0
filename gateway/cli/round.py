"""`fl-gateway round`: see the rounds, and end one's intake."""

from __future__ import annotations

import json
from typing import Any

import click

from gateway.cli.opening import open_console
from gateway.rounds.closing import close_round
from gateway.rounds.record import Round, list_rounds
from gateway.storage.database import reading

_AS_JSON = click.option("--json", "as_json", is_flag=True, help="Print JSON for machines.")


@click.group("round")
def round_() -> None:
    """Training rounds."""


@round_.command()
@click.option("--last", default=20, show_default=True, type=click.IntRange(1, 1000), help="How many.")
@_AS_JSON
def status(*, last: int, as_json: bool) -> None:
    """Show the last rounds, the newest first."""
    with open_console() as services, reading(services.engine) as conn:
        found, _ = list_rounds(conn, limit=last, offset=0)
    if as_json:
        click.echo(json.dumps([_told(one) for one in found]))
        return
    for one in found:
        end = one.failure or one.result_version or f"until {one.deadline:%Y-%m-%d %H:%M:%S}Z"
        click.echo(f"round {one.round_number:<6}{one.status.value:<12}base {one.base_version:<10}{end}")


@round_.command()
@click.argument("number", type=int)
@_AS_JSON
def close(*, number: int, as_json: bool) -> None:
    """End the intake of round NUMBER: what came is aggregated, or the round fails below its minimum."""
    with open_console() as services:
        closed = close_round(services, number)
    click.echo(json.dumps(_told(closed)) if as_json else f"round {number} takes no more updates")


def _told(one: Round) -> dict[str, Any]:
    return {
        "round_number": one.round_number,
        "status": one.status.value,
        "base_version": one.base_version,
        "result_version": one.result_version,
        "num_updates": one.num_updates,
        "deadline": one.deadline.isoformat(),
        "failure": one.failure,
    }
