"""`fl-gateway privacy verify`: whatever the desk handed out is checked offline, and nothing else passes for it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from compliance.evidence.model_report import signed_report
from compliance.jws import sign_compact
from compliance.keyring.keys import SigningKey
from compliance.requests import statements
from gateway.cli import main

KEY = SigningKey("0123456789abcdef", Ed25519PrivateKey.from_private_bytes(b"k" * 32))
HEX = KEY.private.public_key().public_bytes_raw().hex()
REPORT = {"model_id": "m", "version": "1.1.0", "epsilon": "1.5"}


def check(folder: Path, content: str | bytes, *words: str) -> Result:
    """What the command says of a file with that content."""
    path = folder / "file"
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    return CliRunner().invoke(main, ["privacy", "verify", str(path), "--json", *(words or ("--key", HEX))])


def signed(typ: str, **facts: Any) -> str:
    """A JWS of the gateway's key."""
    return sign_compact(typ, facts, KEY)


def test_a_statement_and_a_report_verify(tmp_path: Path) -> None:
    """A statement is a bare JWS; a report in JSON carries its own."""
    statement = check(tmp_path, signed(statements.TYPE, case_id="c") + "\n")
    report = check(tmp_path, json.dumps(signed_report(REPORT, KEY)))

    assert (statement.exit_code, json.loads(statement.output)["kind"]) == (0, "statement")
    assert (report.exit_code, json.loads(report.output)["kind"]) == (0, "privacy report")


def test_a_report_that_says_something_else_than_its_signature_is_found(tmp_path: Path) -> None:
    """The members that people read are those that were signed."""
    forged = {**signed_report(REPORT, KEY), "epsilon": "0.1"}

    done = check(tmp_path, json.dumps(forged))

    assert done.exit_code == 1
    assert "not the one that was signed" in json.loads(done.output)["problem"]


@pytest.mark.parametrize(
    "content",
    [
        "",
        "nothing",
        "a.b.c",
        "{",
        "{}",
        "[1]",
        b"\xff\xfe",
        b"PK\x03\x04 no zip",
        signed("fl-receipt+jwt", entry_id="x"),
        signed(statements.TYPE, case_id="c")[:-4] + "AAAA",
        "[" * 100_000,
    ],
)
def test_what_is_none_of_them_does_not_verify(tmp_path: Path, content: str | bytes) -> None:
    """One line and exit 1, never a traceback; a receipt of an update is the log verifier's."""
    done = check(tmp_path, content)

    assert done.exit_code == 1, done.output
    assert json.loads(done.output)["ok"] is False


@pytest.mark.parametrize("words", [("--key", "xy"), ("--key", "00" * 31), ("--jwks", "KEYS"), ("--as", "x")])
def test_keys_that_are_none_are_wrong_usage(tmp_path: Path, words: tuple[str, ...]) -> None:
    """Exit 2: the file was not judged."""
    (tmp_path / "keys").write_text('{"keys": [{"crv": "Ed25519"}]}')
    named = tuple(str(tmp_path / "keys") if word == "KEYS" else word for word in words)

    assert check(tmp_path, signed(statements.TYPE), *named).exit_code == 2
