"""`fl-gateway audit`: the log's commands; those that check offline load nothing of the gateway."""

from __future__ import annotations

import hashlib
import json
import sys
from pathlib import Path

import click

from audit.single_file import verifier_file
from audit.verify import main as run_verifier
from gateway.cli.lazy import LazyGroup

_COMMANDS = {
    "checkpoint": (
        "gateway.cli.audit_log:checkpoint",
        "Print the newest signed checkpoint; keep it: `verify --since` compares a later log with it.",
    ),
    "export": (
        "gateway.cli.audit_log:export",
        "Write the log as a bundle that an outsider can verify; nothing is repaired or judged.",
    ),
    "hammer": (
        "gateway.cli.audit_hammer:hammer",
        "Check proofs against one checkpoint, without a pause, while writers write; a gateway must be running.",
    ),
    "prove": (
        "gateway.cli.audit_log:prove",
        "Write the proof that ENTRY (its seq or its id) is in the log: a C2SP tlog-proof.",
    ),
    "rebuild": (
        "gateway.cli.audit_rebuild:rebuild",
        "Make the tree again from the entries, compare it with what is stored, and mend what is derived.",
    ),
}
_FILE = click.Path(exists=True, dir_okay=False, path_type=Path)
_AS_JSON = click.option("--json", "as_json", is_flag=True, help="Print JSON for machines.")


@click.group(cls=LazyGroup, deferred=_COMMANDS)
def audit() -> None:
    """The audit log."""


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
