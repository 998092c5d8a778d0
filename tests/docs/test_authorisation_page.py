"""What docs/authorisation.md shows: its program runs, its settings are taken, its defaults are the defaults."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from threading import Thread

import pytest
from click.testing import CliRunner
from flask import Flask
from services.checkout import ROOT
from services.pages import blocks
from werkzeug.serving import make_server

from gateway.app import create_app
from gateway.auth.clients import NewClient, add_client
from gateway.auth.rate_limits import parse_limits
from gateway.auth.refusals import close_refusals
from gateway.auth.roster import public_key_of
from gateway.auth.scopes import Role
from gateway.auth.windows import Limit
from gateway.cli import main
from gateway.cli.opening import prepared_services
from gateway.config import Config
from gateway.services import Services

PAGE = "authorisation.md"
_SECONDS = {"second": 1, "minute": 60, "hour": 3600, "day": 86_400}


@pytest.fixture
def services(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Services]:
    """The embedded stores, in the working directory."""
    monkeypatch.chdir(tmp_path)
    opened = prepared_services(Config(), part="console")
    yield opened
    opened.close()


@pytest.fixture
def hospital(services: Services) -> NewClient:
    """The client of the page's example."""
    return add_client(services, "hospital-a", Role.PARTICIPANT)


@contextmanager
def _listening(app: Flask) -> Iterator[str]:
    """The application behind a socket of this machine; its URL."""
    server = make_server("127.0.0.1", 0, app)
    thread = Thread(target=server.serve_forever)
    thread.start()
    yield f"http://127.0.0.1:{server.server_port}"
    server.shutdown()
    thread.join()
    server.server_close()


def test_the_shown_program_registers_a_key_and_changes_it(
    services: Services,
    hospital: NewClient,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """As it stands there, over HTTP."""
    app = create_app(services)
    form, auth = {"grant_type": "client_credentials"}, (hospital.client_id, hospital.client_secret)
    token = app.test_client().post("/oauth/token", data=form, auth=auth).json["access_token"]
    monkeypatch.setenv("TOKEN", token)
    (program,) = blocks(PAGE, "python")

    with _listening(app) as url:
        monkeypatch.setenv("GATEWAY_URL", url)
        exec(compile(program, PAGE, "exec"), {})  # noqa: S102 - our own page

    assert "second key" in capsys.readouterr().out
    assert public_key_of(services, hospital.client_id) is not None
    close_refusals(app)


def test_the_shown_command_gives_a_new_api_key(services: Services, hospital: NewClient) -> None:
    """With the members that the page shows."""
    (block,) = [block for block in blocks(PAGE, "console") if "--rotate-api-key" in block]
    command, shown = block.removeprefix("$ fl-gateway ").split("\n", 1)

    done = CliRunner().invoke(main, command.split())

    assert done.exit_code == 0, done.output
    told = json.loads(done.stdout)
    assert set(told) == set(json.loads(shown))
    assert told["client_id"] == hospital.client_id
    assert told["api_key"] not in (hospital.api_key, "")


def test_the_shown_limits_are_taken_and_the_shown_defaults_are_the_defaults() -> None:
    """The block of settings, and the table of classes."""
    (block,) = blocks(PAGE, "sh")
    (shown,) = re.findall(r"export FLG_RATE_LIMITS='([^']+)'", block)
    text = (ROOT / "docs" / PAGE).read_text("utf-8")
    rows = re.findall(r"^\| `(\w+)` \| (\d+)/(\w+) \|", text, re.MULTILINE)

    assert parse_limits(shown)["models"] == Limit(20, 60)
    assert {name: Limit(int(count), _SECONDS[period]) for name, count, period in rows} == parse_limits("")
