"""`fl-gateway doctor`: looks at every setting and store, or compares rows and blobs, and says what to mend."""

from __future__ import annotations

import json
import sys
from dataclasses import asdict

import click

from gateway.cli.opening import answered, open_console
from gateway.config import load_config
from gateway.doctor import Comparison, Finding, compare, examine

_SHOWN = 20


@click.command()
@click.option("--blobs", is_flag=True, help="Compare rows and blobs instead.")
@click.option("--deep", is_flag=True, help="With --blobs: read every blob, decrypt or hash it.")
@click.option("--json", "as_json", is_flag=True, help="Print JSON for machines.")
def doctor(*, blobs: bool, deep: bool, as_json: bool) -> None:
    """Check settings and stores, and say what to mend; exit 1 if anything is to be mended.

    RISK marks what works and is less safe than it could be.

    With --blobs: rows whose blob is missing, of the wrong size or (--deep) damaged, and blobs that no row names.
    """
    if deep and not blobs:
        raise click.UsageError("--deep goes with --blobs")
    if blobs:
        _compare(deep=deep, as_json=as_json)
    else:
        _examine(as_json=as_json)


def _examine(*, as_json: bool) -> None:
    with answered():
        findings = examine(load_config())
    if as_json:
        click.echo(json.dumps([asdict(found) for found in findings]))
    else:
        for found in findings:
            click.echo(f"{_mark(found)}  {found.name + ':':<17}{found.said}")
    sys.exit(0 if all(found.is_good for found in findings) else 1)


def _mark(found: Finding) -> str:
    if not found.is_good:
        return "MEND"
    return "RISK" if found.is_risky else "ok  "


def _compare(*, deep: bool, as_json: bool) -> None:
    with open_console() as services:
        found = compare(services, deep=deep)
    if as_json:
        click.echo(json.dumps(asdict(found)))
    else:
        _tell(found)
    sys.exit(1 if found.lacks else 0)


def _tell(found: Comparison) -> None:
    click.echo(f"{found.rows} rows name blobs, {found.blobs} blobs are kept")
    for lack in found.lacks:
        click.echo(f"MEND  {lack.row}: blob {lack.blob}: {lack.what}")
    if found.lacks:
        click.echo("put these blobs back from a backup: docs/backup.md")
    else:
        click.echo("every row has its blob")
    for blob in found.nameless[:_SHOWN]:
        click.echo(f"no row names {blob.name} ({blob.size_bytes} bytes, {blob.age_s / 3600:.1f} h old)")
    if len(found.nameless) > _SHOWN:
        click.echo(f"and {len(found.nameless) - _SHOWN} more (--json lists all)")
    if found.nameless:
        click.echo("the worker removes what no row names after FLG_BLOB_GRACE_S")
