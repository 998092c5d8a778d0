"""`fl-gateway audit export|prove|checkpoint`: what the log of this gateway hands out."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import click

from audit.bundle import export_bundle
from audit.errors import AuditError
from audit.events import EventType
from audit.reading import reading
from audit.store import entry_by_id, latest_checkpoint
from audit.tree import prove as make_proof
from audit.verifier.progress import on_terminal
from gateway.cli.opening import open_console
from gateway.log_key import log_keys

_OUTPUT = click.option(
    "-o", "--output", type=click.Path(dir_okay=False, path_type=Path), required=True, help="The bundle (ZIP)."
)
_AS_JSON = click.option("--json", "as_json", is_flag=True, help="Print JSON for machines.")


@click.command()
@_OUTPUT
@_AS_JSON
def export(*, output: Path, as_json: bool) -> None:
    """Write the log as a bundle that an outsider can verify; nothing is repaired or judged."""
    with open_console() as services:
        try:
            entries = export_bundle(
                services.engine,
                output,
                log_keys(services).vkey,
                quorum=services.config.witness_quorum,
                progress=on_terminal(),
            )
        except AuditError as error:
            raise click.UsageError(str(error)) from error
        services.trail.note(EventType.AUDIT_EXPORTED, entries=entries, format="bundle")
    told = {"bundle": str(output), "entries": entries}
    click.echo(json.dumps(told) if as_json else f"{entries} entries in {output}")


@click.command()
@click.argument("entry")
@click.option(
    "-o", "--output", type=click.Path(dir_okay=False, path_type=Path), help="Where to; default: print it."
)
@_AS_JSON
def prove(*, entry: str, output: Path | None, as_json: bool) -> None:
    """Write the proof that ENTRY (its seq or its id) is in the log: a C2SP tlog-proof."""
    with open_console() as services, reading(services.engine) as conn:
        stored = None if entry.isdigit() else entry_by_id(conn, entry)
        seq = int(entry) if entry.isdigit() else (stored.seq if stored else None)
        proof = None if seq is None else make_proof(conn, seq, services.config.quorum_shown)
    if proof is None:
        click.echo("there is no such entry in the signed log (yet)", err=True)
        sys.exit(1)
    if output is not None:
        output.write_text(proof.text(), "utf-8")
    if as_json:
        click.echo(json.dumps({"seq": seq, "proof": proof.text()}))
    elif output is None:
        click.echo(proof.text(), nl=False)


@click.command()
@_AS_JSON
def checkpoint(*, as_json: bool) -> None:
    """Print the newest signed checkpoint; keep it: `verify --since` compares a later log with it."""
    with open_console() as services, reading(services.engine) as conn:
        note = latest_checkpoint(conn)
    if note is None:
        click.echo("nothing was signed yet", err=True)
        sys.exit(1)
    click.echo(json.dumps({"checkpoint": note}) if as_json else note, nl=as_json)
