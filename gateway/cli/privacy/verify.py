"""`fl-gateway privacy verify`: check what was handed out, offline: packages, receipts, statements and reports."""

from __future__ import annotations

import base64
import json
import sys
import zipfile
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import click

from audit.checkpoint import NoteVerifier
from audit.errors import AuditError
from compliance.erasures import receipt
from compliance.errors import ComplianceError
from compliance.evidence import model_report
from compliance.evidence.proving import NotProven, verify_ledger
from compliance.jws import BadJws, type_of
from compliance.packages.proving import verify_proofs
from compliance.packages.verifying import verify_package
from compliance.requests import statements

_AS_JSON = click.option("--json", "as_json", is_flag=True, help="Print JSON for machines.")
_FILE = click.Path(exists=True, dir_okay=False, path_type=Path)
_ED25519_BYTES = 32
_LONGEST_TEXT = 1 << 28
_SIGNED: Mapping[str, tuple[str, Callable[[str, Mapping[str, bytes]], dict[str, Any]]]] = {
    receipt.TYPE: ("erasure receipt", receipt.verify),
    statements.TYPE: ("statement", statements.verify_statement),
    model_report.TYPE: ("privacy report", model_report.verify_report),
}


class _OneKey(Mapping[str, bytes]):
    """One key that stands for any name, as `--key` gives it."""

    def __init__(self, public: bytes) -> None:
        self._public = public

    def __getitem__(self, _kid: str) -> bytes:
        return self._public

    def __iter__(self) -> Iterator[str]:
        return iter(())

    def __len__(self) -> int:
        return 1


@click.command()
@click.argument("file", type=_FILE)
@click.option("--jwks", type=_FILE, help="The gateway's /.well-known/jwks.json, saved beforehand.")
@click.option("--key", "key_hex", help="One key of jwks.json instead, 64 hex digits.")
@click.option("--vkey", type=_FILE, help="The log's key: also check each proof in a package or report.")
@_AS_JSON
def verify(*, file: Path, jwks: Path | None, key_hex: str | None, vkey: Path | None, as_json: bool) -> None:
    """Check a package, an erasure receipt, a statement or a privacy report; exit 1 if it was changed."""
    keys = _keys(jwks, key_hex)
    try:
        check = _check_package if zipfile.is_zipfile(file) else _check_text
        told = check(file, keys, _log(vkey))
    except (ComplianceError, BadJws, NotProven) as error:
        problem = {"ok": False, "problem": str(error)}
        click.echo(json.dumps(problem) if as_json else f"it does not verify: {error}")
        sys.exit(1)
    if as_json:
        click.echo(json.dumps({"ok": True, "problem": None, **told}))
        return
    click.echo(f"the {told['kind']} is whole and signed by this gateway")
    for name, value in told.items():
        click.echo(f"{name}: {value if isinstance(value, str | int) else json.dumps(value)}")


def _check_package(file: Path, keys: Mapping[str, bytes], log: NoteVerifier | None) -> dict[str, Any]:
    manifest = verify_package(file, keys)
    told: dict[str, Any] = {"kind": "package", "files": len(manifest.files)}
    if log is not None:
        told["proven_entries"] = verify_proofs(file, log)
    return told


def _check_text(file: Path, keys: Mapping[str, bytes], log: NoteVerifier | None) -> dict[str, Any]:
    """A compact JWS; or a report in JSON, which carries its own."""
    text = _read(file)
    report = _report(text)
    signed = text if report is None else str(report.pop("signature", ""))
    kind, check = _SIGNED.get(type_of(signed), ("", _refuse))
    facts = check(signed, keys)
    if report is not None and report != facts:
        raise BadJws("the report is not the one that was signed")
    if log is None:
        return {"kind": kind, **facts}
    if check is not model_report.verify_report:
        raise click.UsageError(f"--vkey checks packages and privacy reports; this is another kind: {kind}")
    return {"kind": kind, **facts, "proven_entries": verify_ledger(facts, log)}


def _log(vkey: Path | None) -> NoteVerifier | None:
    try:
        return None if vkey is None else NoteVerifier.parse(vkey.read_text().strip())
    except (AuditError, UnicodeDecodeError) as error:
        raise click.UsageError(f"--vkey: {error}") from error


def _read(file: Path) -> str:
    try:
        with file.open("rb") as opened:
            return opened.read(_LONGEST_TEXT).decode().strip()
    except UnicodeDecodeError as error:
        raise BadJws("it is neither a package nor a signed text") from error


def _report(text: str) -> dict[str, Any] | None:
    try:
        found = json.loads(text) if text.startswith("{") else None
    except (ValueError, RecursionError) as error:
        raise BadJws("it is neither a package nor a signed text") from error
    return found if isinstance(found, dict) else None


def _refuse(_text: str, _keys: Mapping[str, bytes]) -> dict[str, Any]:
    raise BadJws("it is neither a package nor a receipt, statement or report")


def _keys(jwks: Path | None, key_hex: str | None) -> Mapping[str, bytes]:
    if (jwks is None) == (key_hex is None):
        raise click.UsageError("give --jwks FILE or --key HEX")
    try:
        if key_hex is not None:
            return _OneKey(_checked(bytes.fromhex(key_hex)))
        listed = json.loads(jwks.read_bytes())["keys"] if jwks else []
        return {one["kid"]: _checked(_decoded(one["x"])) for one in listed if one.get("crv") == "Ed25519"}
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise click.UsageError("--key is 64 hex digits, --jwks a file of keys (RFC 7517)") from error


def _checked(public: bytes) -> bytes:
    if len(public) != _ED25519_BYTES:
        raise ValueError("an Ed25519 key has 32 bytes")
    return public


def _decoded(part: str) -> bytes:
    return base64.urlsafe_b64decode(part + "=" * (-len(part) % 4))
