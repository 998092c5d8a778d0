"""Checks offline that the entries which a package shows are in the log: each by its own proof."""

from __future__ import annotations

import json
import tarfile
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from audit.checkpoint import NoteVerifier
from audit.errors import AuditError
from audit.proof import check_entry_proof, parse_proof
from compliance.errors import BadPackage
from compliance.packages.own_entries import ENTRIES, PROOFS


def verify_proofs(path: Path, log: NoteVerifier) -> int:
    """Check that every entry of a package that was verified before is in the log; says how many there are.

    Raises:
        BadPackage: a proof is missing or does not hold, or proves another entry than the one that is shown.
    """
    count = 0
    with zipfile.ZipFile(path) as package:
        if ENTRIES not in package.namelist():
            return 0
        proofs = _proofs(package)
        for shown in _entries(package):
            _check(shown["seq"], shown["stored"], next(proofs, ""), log)
            count += 1
        if next(proofs, None) is not None:
            raise BadPackage(PROOFS, "there is a proof for no entry")
    return count


def _check(seq: int, stored: str, proof: str, log: NoteVerifier) -> None:
    try:
        entry = check_entry_proof(parse_proof(proof), log)
    except AuditError as error:
        raise BadPackage(f"{PROOFS}/{seq}.tlog-proof", str(error)) from error
    if entry.canonical.decode() != stored:
        raise BadPackage(ENTRIES, f"entry {seq} is not the one that its proof carries")


def _entries(package: zipfile.ZipFile) -> Iterator[dict[str, Any]]:
    """The rows, which stand one on a line."""
    with package.open(ENTRIES) as lines:
        for line in lines:
            row = line.strip().removesuffix(b",")
            if row not in (b"[", b"]"):
                yield json.loads(row)


def _proofs(package: zipfile.ZipFile) -> Iterator[str]:
    """The proofs in the order of their entries."""
    for name in package.namelist():
        if not name.startswith(f"{PROOFS}/"):
            continue
        if not name.endswith(".tar"):
            yield package.read(name).decode()
            continue
        with package.open(name) as stream, tarfile.open(fileobj=stream, mode="r|") as archive:
            for member in archive:
                content = archive.extractfile(member)
                yield content.read().decode() if content else ""
