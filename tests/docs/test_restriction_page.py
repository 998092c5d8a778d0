"""docs/restriction.md: its commands are given in order, and what they did can be seen."""

from __future__ import annotations

import json
import re
import shlex
from collections.abc import Iterator
from pathlib import Path

import pytest
from click.testing import CliRunner
from federation import Federation
from living.home import Home, home_in
from services.pages import blocks

from gateway.app import create_app
from gateway.auth.refusals import close_refusals
from gateway.auth.roster import client_record
from gateway.cli import main


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Home]:
    """An embedded gateway, its settings in the environment."""
    with home_in(tmp_path / "home", None) as made:
        monkeypatch.chdir(made.directory)
        for name, value in made.environment().items():
            monkeypatch.setenv(name, value)
        yield made


def _commands() -> list[str]:
    shown = "".join(blocks("restriction.md", "console"))
    return [line.partition(" > ")[0] for line in re.findall(r"^\$ fl-gateway (.*)$", shown, re.MULTILINE)]


def _give(command: str, **named: str) -> str:
    for name, value in named.items():
        command = command.replace(f"${name.upper()}", value)
    done = CliRunner().invoke(main, shlex.split(command))
    assert done.exit_code == 0, (command, done.output)
    return done.output


def test_the_page_s_commands_do_what_it_says(home: Home) -> None:
    """Restrict, and lift it; put a name right."""
    restrict, approve, lift, rectify = _commands()
    with home.stores() as services:
        app = create_app(services)
        client = Federation(services, app.test_client()).register("a silo").client_id
        close_refusals(app)

    case = json.loads(_give(restrict, client_id=client))["id"]
    told = [_give(command, request_id=case) for command in (approve, lift)]
    correction = json.loads(_give(rectify, client_id=client))["id"]
    _give(approve, request_id=correction)

    assert "completed" in told[0]
    assert "its restriction is lifted" in told[1]
    with home.stores() as services:
        record = client_record(services, client)
    assert (record.name, record.platform) == ("ward 3", "linux")
