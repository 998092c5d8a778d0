"""`fl-gateway privacy`: data-protection requests at the machine itself, and checks of what was handed out."""

from __future__ import annotations

import click

from gateway.cli.privacy.carrying_out import commitment_key, erase, export
from gateway.cli.privacy.evidence import records, report
from gateway.cli.privacy.hold import hold
from gateway.cli.privacy.lift import lift
from gateway.cli.privacy.link import link
from gateway.cli.privacy.requests import requests
from gateway.cli.privacy.retention import retention
from gateway.cli.privacy.verify import verify


@click.group()
def privacy() -> None:
    """Data-protection requests (GDPR)."""


for command in (
    export,
    link,
    erase,
    commitment_key,
    requests,
    report,
    records,
    verify,
    hold,
    lift,
    retention,
):
    privacy.add_command(command)
