"""docs/tokens.md: its commands work, and a JWT has the claims of its table."""

from __future__ import annotations

import base64
import json
import re
import shlex
from pathlib import Path

import pytest
from click.testing import CliRunner
from services.pages import blocks

from gateway.app import create_app
from gateway.auth.refusals import close_refusals
from gateway.cli import main
from gateway.config import Config
from gateway.parts.starting import recover
from gateway.services import open_services

PAGE = "tokens.md"


def test_the_page_s_commands_work_and_its_claims_are_the_token_s(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """From the client with JWTs to the change of their key."""
    monkeypatch.chdir(tmp_path)
    add, change, at_once = ("".join(block).splitlines() for block in blocks(PAGE, "console"))

    def run(line: str) -> str:
        result = CliRunner().invoke(main, shlex.split(line.removeprefix("$ fl-gateway ")))
        assert result.exit_code == 0, result.output
        return result.stdout

    run("$ fl-gateway db upgrade")
    services = open_services(Config(), part="console")
    recover(services)
    client = json.loads(run(add[0]))
    app = create_app(services)
    answer = app.test_client().post(
        "/oauth/token",
        data={"grant_type": "client_credentials"},
        auth=(client["client_id"], client["client_secret"]),
    )
    close_refusals(app)
    services.close()
    changed = [run(line) for line in (*change, *at_once)]

    part = answer.get_json()["access_token"].split(".")[1]
    claims = json.loads(base64.urlsafe_b64decode(part + "=" * (-len(part) % 4)))
    page = (Path(__file__).parents[2] / "docs" / PAGE).read_text("utf-8")
    table = page[page.index("| claim |") : page.index("The header has")]
    told = {name for row in re.findall(r"^\| (`.*?) \|", table, re.MULTILINE) for name in row.split(", ")}
    assert {f"`{name}`" for name in claims} | {"`cnf`"} == told
    assert "in ten minutes" in changed[0]
    assert "announced" in changed[1]
