"""`fl-gateway audit`: export the log, verify a bundle offline, prove one entry."""

from __future__ import annotations

import hashlib
import json
import sys
from pathlib import Path

import click

from audit.bundle import export_bundle
from audit.errors import AuditError
from audit.events import EventType
from audit.reading import reading
from audit.single_file import verifier_file
from audit.store import entry_by_id, latest_checkpoint
from audit.tree import prove as make_proof
from audit.verifier.progress import on_terminal
from audit.verify import main as run_verifier
from gateway.api.audit import log_vkey
from gateway.cli.audit_hammer import hammer
from gateway.cli.audit_rebuild import rebuild
from gateway.cli.opening import open_console

_FILE = click.Path(exists=True, dir_okay=False, path_type=Path)
_OUTPUT = click.option(
    "-o", "--output", type=click.Path(dir_okay=False, path_type=Path), required=True, help="The bundle (ZIP)."
)
_AS_JSON = click.option("--json", "as_json", is_flag=True, help="Print JSON for machines.")


@click.group()
def audit() -> None:
    """The audit log."""


audit.add_command(hammer)
audit.add_command(rebuild)


@audit.command()
@_OUTPUT
@_AS_JSON
def export(*, output: Path, as_json: bool) -> None:
    """Write the log as a bundle that an outsider can verify; nothing is repaired or judged."""
    with open_console() as services:
        try:
            entries = export_bundle(
                services.engine,
                output,
                log_vkey(services),
                quorum=services.config.witness_quorum,
                progress=on_terminal(),
            )
        except AuditError as error:
            raise click.UsageError(str(error)) from error
        services.trail.note(EventType.AUDIT_EXPORTED, entries=entries, format="bundle")
    told = {"bundle": str(output), "entries": entries}
    click.echo(json.dumps(told) if as_json else f"{entries} entries in {output}")


@audit.command()
@click.argument("bundle", type=_FILE)
@click.option("--vkey", type=_FILE, help="The log's key, from a source you trust.")
@click.option("--since", type=_FILE, help="An older checkpoint that this log must continue.")
@click.option("--receipt", "receipts", multiple=True, help="A receipt, or a file with one; repeat it.")
@click.option("--jwks", type=_FILE, help="The receipt keys: a JWKS, or one in PEM.")
@click.option(
    "--witness",
    "witnesses",
    multiple=True,
    metavar="VKEY|FILE",
    help="The key of a witness who must have cosigned the log, or a file of such keys; repeat it.",
)
@click.option("--quorum", type=int, help="How many witnesses must have; default: all given.")
@_AS_JSON
def verify(
    *,
    bundle: Path,
    vkey: Path | None,
    since: Path | None,
    receipts: tuple[str, ...],
    jwks: Path | None,
    witnesses: tuple[str, ...],
    quorum: int | None,
    as_json: bool,
) -> None:
    """Check a BUNDLE offline; exit 1 and name the first bad entry if it does not verify.

    The same as `python -m audit.verify`, which needs nothing else of the gateway.
    """
    named = {"--vkey": vkey, "--since": since, "--jwks": jwks, "--quorum": quorum}
    arguments = [word for name, value in named.items() if value is not None for word in (name, str(value))]
    arguments += [word for receipt in receipts for word in ("--receipt", receipt)]
    arguments += [word for witness in witnesses for word in ("--witness", witness)]
    sys.exit(run_verifier([*arguments, *(["--json"] if as_json else []), str(bundle)]))


@audit.command()
@click.option(
    "-o",
    "--output",
    type=click.Path(dir_okay=False, path_type=Path),
    required=True,
    help="The file, such as verify.pyz.",
)
@_AS_JSON
def verifier(*, output: Path, as_json: bool) -> None:
    """Write the verifier as one file, for an auditor who has Python and the package `cryptography`.

    Equal versions give equal bytes: compare the SHA-256 with that of somebody else's.
    """
    data = verifier_file()
    output.write_bytes(data)
    told = {"file": str(output), "size_bytes": len(data), "sha256": hashlib.sha256(data).hexdigest()}
    click.echo(json.dumps(told) if as_json else f"{output}: SHA-256 {told['sha256']}")


@audit.command()
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


@audit.command()
@_AS_JSON
def checkpoint(*, as_json: bool) -> None:
    """Print the newest signed checkpoint; keep it: `verify --since` compares a later log with it."""
    with open_console() as services, reading(services.engine) as conn:
        note = latest_checkpoint(conn)
    if note is None:
        click.echo("nothing was signed yet", err=True)
        sys.exit(1)
    click.echo(json.dumps({"checkpoint": note}) if as_json else note, nl=as_json)
