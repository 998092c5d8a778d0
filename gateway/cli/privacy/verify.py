"""`fl-gateway privacy verify`: check what was handed out, offline."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import click

from compliance.errors import BadPackage
from compliance.packages.export import verify_package

_AS_JSON = click.option("--json", "as_json", is_flag=True, help="Print JSON for machines.")


@click.command()
@click.argument("package", type=click.Path(exists=True, dir_okay=False, path_type=Path))
@click.option("--key", "key_hex", required=True, help="The package key of jwks.json, 64 hex digits.")
@_AS_JSON
def verify(*, package: Path, key_hex: str, as_json: bool) -> None:
    """Check an export package against its signed manifest; exit 1 if it was changed."""
    try:
        key = bytes.fromhex(key_hex)
    except ValueError as error:
        raise click.UsageError("--key must be 64 hex digits") from error
    try:
        verify_package(package, key)
    except BadPackage as error:
        told = f"the package does not verify: {error}"
        click.echo(json.dumps({"ok": False, "problem": str(error)}) if as_json else told)
        sys.exit(1)
    told = "the package is whole and signed by this key"
    click.echo(json.dumps({"ok": True, "problem": None}) if as_json else told)
