"""`fl-gateway privacy`: data-protection requests at the machine itself, and checks of what was handed out."""

from __future__ import annotations

import click

from gateway.cli.privacy.carrying_out import erase, export
from gateway.cli.privacy.verify import verify


@click.group()
def privacy() -> None:
    """Data-protection requests (GDPR)."""


for command in (export, erase, verify):
    privacy.add_command(command)
