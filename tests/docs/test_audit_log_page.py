"""docs/audit-log.md: the auditor's commands are given as they stand there, on a log that witnesses cosigned."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

import pytest
from click.testing import CliRunner
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from living.driver import BARE
from living.home import Home, clean_environment, home_in
from living.threads import local_gateway_in
from services.checkout import ROOT
from services.pages import blocks, run_shown

from audit.checkpoint import parse_note
from audit.cosignature import CosignatureSigner
from audit.store import add_cosignature, newest_checkpoint
from audit.verifier.verdict import Verdict
from gateway.api.audit import log_vkey
from gateway.cli import main
from gateway.parts.sequencing import sequencer_of

PAGE = (ROOT / "docs" / "audit-log.md").read_text("utf-8")
WITNESSES = [CosignatureSigner(f"w{number}.example", Ed25519PrivateKey.generate()) for number in range(3)]
COMMANDS = [
    line.removeprefix("$ ")
    for block in blocks("audit-log.md", "console")
    for line in block.splitlines()
    if line.startswith(("$ fl-gateway audit export", "$ fl-gateway audit veri", "$ python "))
]


@pytest.fixture
def home(tmp_path: Path) -> Iterator[Home]:
    """What the page's auditor holds: the log's key, an old checkpoint, a receipt, the keys of witnesses."""
    with home_in(tmp_path / "home") as made:
        folder = made.directory
        with local_gateway_in(made) as gateway:
            gateway.add_model()
            person, number = gateway.register(), gateway.open_round(BARE, planned_clients=1, min_clients=1)
            (folder / "last-year.checkpoint").write_text(gateway.checkpoint(), "utf-8")
            (folder / "receipt.txt").write_text(gateway.submit(person, number)["receipt"])
            gateway.await_end(number)
        with made.stores() as services:
            while sequencer_of(services).run_once():
                pass  # the thread may have been stopped before the last entries
        with made.stores() as services, services.engine.begin() as conn:
            newest = newest_checkpoint(conn)
            assert newest is not None
            for witness in WITNESSES:
                line = witness.cosign(parse_note(newest.note).text, services.clock())
                add_cosignature(conn, newest.size, witness.name, line, services.clock())
            (folder / "log.vkey").write_text(log_vkey(services))
        (folder / "first-witness.vkey").write_text(WITNESSES[0].vkey)
        (folder / "more-witnesses.txt").write_text("\n".join(one.vkey for one in WITNESSES[1:]))
        yield made


def test_the_page_s_commands_verify_the_log_in_every_way_shown(home: Home) -> None:
    """Export, verify, the one file, the module, and witnesses: each as it stands there, in order."""
    done = run_shown(
        "\n".join(COMMANDS), home.directory, clean_environment() | home.environment(), timeout_s=240
    )

    assert done.returncode == 0, done.stdout + done.stderr
    assert len(COMMANDS) == 6
    assert done.stdout.count("\nVERIFIED: ") == 3
    assert done.stdout.count('"ok": true') == 1
    assert "proven, seq" in done.stdout
    assert "cosigned by 3 witnesses" in done.stdout


def test_the_page_names_every_option_and_every_finding() -> None:
    """What `--help` tells and what `--json` prints stands on the page."""
    shown = CliRunner().invoke(main, ["audit", "verify", "--help"]).output
    options, told = re.findall(r"(?m)^  (--[a-z]+)", shown), Verdict(ok=True, checks=()).public()

    assert len(options) == 7
    assert {f"`{option}" for option in options} <= set(re.findall(r"`--[a-z]+", PAGE))
    assert told.keys() - {"origin", "size", "root"} <= set(re.findall(r"`([a-z_]+)`", PAGE))
