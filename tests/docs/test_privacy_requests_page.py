"""docs/privacy-requests.md: its commands are given in order, its tables are complete, its terms are the code's."""

from __future__ import annotations

import json
import re
import shlex
from datetime import UTC, datetime
from pathlib import Path

import pytest
from click.testing import CliRunner, Result
from federation import Federation
from living.home import home_in
from services.checkout import ROOT
from services.pages import blocks

from compliance.requests.cases import MOVES, RequestType
from compliance.requests.deadlines import Calendar, due_at, read_calendar
from compliance.requests.reasons import Exemption, Refusal
from gateway.app import create_app
from gateway.auth.refusals import close_refusals
from gateway.cli import main
from gateway.parts.starting import recover
from gateway.services import Services

PAGE = "privacy-requests.md"
TEXT = (ROOT / "docs" / PAGE).read_text("utf-8")
EASTER = "2026-04-03,2026-04-06"


def test_the_page_s_commands_work_in_its_order(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """From the first request to the statement, on an embedded gateway with the page's settings."""
    (settings,) = blocks(PAGE, "sh")
    shown = re.findall(r"^\$ fl-gateway (.*)$", "".join(blocks(PAGE, "console")), re.MULTILINE)
    with home_in(tmp_path / "home", None) as home, home.stores() as services:
        monkeypatch.chdir(home.directory)
        for name, value in {**home.environment(), **dict(re.findall("(.*)=(.*)", settings))}.items():
            monkeypatch.setenv(name, value)
        client, request_id, states = _prepared(services), "", []
        for line in shown:
            command, _, target = line.partition(" > ")
            done = _run(command.replace("CLIENT_ID", client).replace("REQUEST_ID", request_id))
            if target:
                Path(target).write_text(done.stdout)
            if told := re.match(r"request (\S+): \w+, (\w+)", done.output):
                request_id = told[1]
                states.append(told[2])

    assert " ".join(states) == (
        "received received received received awaiting_identity in_review on_hold in_review completed "
        "received refused received received withdrawn received completed"
    )


def test_the_page_tells_every_move_ground_and_type() -> None:
    """What can be done is on the page, and what is on the page can be done."""
    moves, refusals = TEXT.index("| from | move | to |"), TEXT.index("| reason | when |")
    told_moves = re.findall(r"^\| [^|]+ \| `(\w+)` \|", TEXT[moves:refusals], re.MULTILINE)
    told_grounds = re.findall(r"^\| `(\w+)` \|", TEXT[refusals:], re.MULTILINE)

    assert set(told_moves) == {*MOVES, "take", "extend"}
    assert told_grounds == list(Refusal)
    assert set(re.findall(r"`([a-e])` ", TEXT[refusals:])) == set(Exemption)
    assert all(f"`{kind}`" in TEXT[: TEXT.index("## Take")] for kind in RequestType)


def test_the_page_s_terms_are_the_code_s() -> None:
    """Its table of days, row by row."""
    rows = re.findall(r"^\| (\d\S+) \| (\d\S{9})(?:; with \D+(\S+))? \| (\S+) \|$", TEXT, re.MULTILINE)

    assert len(rows) == 5
    for received, due, with_holidays, extended in rows:
        at = datetime.fromisoformat(received).replace(tzinfo=UTC)
        assert due_at(at, Calendar()).date().isoformat() == due
        assert due_at(at, Calendar(), is_extended=True).date().isoformat() == extended
        if with_holidays:
            assert due_at(at, read_calendar("UTC", EASTER)).date().isoformat() == with_holidays


def _prepared(services: Services) -> str:
    """A silo, and the keys that the page's last command checks with, as a person saves them."""
    recover(services)
    app = create_app(services)
    http = app.test_client()
    client: str = Federation(services, http).register("a silo").client_id
    Path("jwks.json").write_text(json.dumps(http.get("/.well-known/jwks.json").get_json()))
    close_refusals(app)
    return client


def _run(command: str) -> Result:
    done = CliRunner().invoke(main, shlex.split(command))
    assert done.exit_code == 0, (command, done.output)
    return done
