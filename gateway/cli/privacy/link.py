"""`fl-gateway privacy link`: a link that opens a package once, to be given to the person."""

from __future__ import annotations

import json
from uuid import UUID

import click

from audit.draft import Personal
from gateway.cli.opening import open_console
from gateway.privacy import privacy_desk
from gateway.trail import SYSTEM

_CONSOLE = Personal(SYSTEM, "console")


@click.command()
@click.argument("request_id", type=click.UUID)
@click.option("--json", "as_json", is_flag=True, help="Print JSON for machines.")
def link(*, request_id: UUID, as_json: bool) -> None:
    """Make a link to the package of REQUEST_ID: it opens once, without a token, until the package is removed."""
    with open_console() as services:
        base = services.config.public_url.rstrip("/")
        if not base:
            raise click.UsageError("set FLG_PUBLIC_URL: a link names the address of the gateway")
        made = privacy_desk(services).packages.link(str(request_id), by=_CONSOLE)
    told = {"url": f"{base}/packages/{made.secret}", "expires_at": made.expires_at.isoformat()}
    click.echo(json.dumps(told) if as_json else "\n".join(f"{name}: {value}" for name, value in told.items()))
