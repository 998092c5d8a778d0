"""`fl-gateway privacy lift`: a person's data is used again (Art. 18(3), 21)."""

from __future__ import annotations

import json

import click

from audit.draft import SYSTEM, Personal
from gateway.cli.opening import open_console
from gateway.cli.privacy.words import Words
from gateway.restricting import lift_restriction


@click.command()
@click.argument("request_id", type=click.UUID)
@click.option(
    "--notice", type=Words(), required=True, help="What the person was told before; kept sealed in the log."
)
@click.option("--json", "as_json", is_flag=True, help="Print JSON for machines.")
def lift(*, request_id: object, notice: str, as_json: bool) -> None:
    """Lift a restriction that was carried out, or end an objection that the person withdrew."""
    with open_console() as services:
        case = lift_restriction(services, str(request_id), by=Personal(SYSTEM, "console"), notice=notice)
    click.echo(
        json.dumps(case.public()) if as_json else f"request {case.id}: its {case.type.value} is lifted"
    )
