"""docs/privacy-evidence.md: its commands and its program, as they stand there, on a model that a round made."""

from __future__ import annotations

import json
import re
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from living.driver import NOISED
from living.home import Home, clean_environment, home_in
from living.threads import local_gateway_in
from services.checkout import ROOT
from services.pages import blocks, run_shown

from gateway.api.audit import log_vkey
from gateway.parts.sequencing import sequencer_of

PAGE = (ROOT / "docs" / "privacy-evidence.md").read_text("utf-8")


@pytest.fixture
def home(tmp_path: Path) -> Iterator[Home]:
    """A gateway that made 1.1.0 with noise, and the keys that a reader got from elsewhere."""
    with home_in(tmp_path / "home") as made:
        with local_gateway_in(made) as gateway:
            gateway.add_model()
            person, number = gateway.register(), gateway.open_round(NOISED, planned_clients=1, min_clients=1)
            gateway.submit(person, number)
            gateway.await_end(number)
            jwks = gateway.http.get("/.well-known/jwks.json").text
            (made.directory / "jwks.json").write_text(jwks)
        with made.stores() as services:
            while sequencer_of(services).run_once():
                pass
            (made.directory / "log.vkey").write_text(log_vkey(services))
        yield made


def test_the_page_s_commands_and_program_run(home: Home) -> None:
    """Both documents in each form; then a reader checks every proof of the report's file."""
    shown = "".join(blocks("privacy-evidence.md", "console")).replace("$ ", "")
    (program,) = blocks("privacy-evidence.md", "python")
    (home.directory / "check.py").write_text(program)
    script = f"{shown}\n{sys.executable} check.py\n"

    done = run_shown(script, home.directory, clean_environment() | home.environment(), timeout_s=120)

    assert done.returncode == 0, done.stdout + done.stderr
    assert "the privacy report is whole and signed by this gateway" in done.stdout
    assert "proven_entries: 2" in done.stdout
    assert re.search(r"^\d+ privacy\.spent 1$", done.stdout, re.MULTILINE)
    assert re.search(r"^\d+ round\.completed 1$", done.stdout, re.MULTILINE)
    assert (home.directory / "report.html").read_text().count("<h2>") == 6
    assert "Record of processing" in (home.directory / "record.html").read_text()
    report = json.loads((home.directory / "report.json").read_text())
    assert report["accountant"]["agrees_with_log"] is True
    named = set(re.findall(r"`([a-z_]+)`", PAGE))
    assert (
        report.keys() - {"model_id", "version", "made_at", "planned_clients", "selection", "sampling_rate"}
        <= named
    )
