"""docs/erasure.md: its commands are given in order, its tables are complete, its program opens a real commitment."""

from __future__ import annotations

import json
import re
import shlex
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner
from federation import Federation, file_of, tensors
from living.home import home_in
from services.checkout import ROOT
from services.pages import blocks

from compliance.erasures.receipt import ErasureReceipt
from compliance.jws import verify_compact
from gateway.app import create_app
from gateway.auth.refusals import close_refusals
from gateway.cli import main
from gateway.parts.starting import recover
from gateway.privacy import desk_parts, privacy_desk
from gateway.services import Services

PAGE = "erasure.md"
TEXT = (ROOT / "docs" / PAGE).read_text("utf-8")


def test_the_page_s_commands_work_in_its_order(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """From the way back to the verified receipt, on an embedded gateway with a client that took part."""
    shown = re.findall(r"^\$ fl-gateway (.*)$", "".join(blocks(PAGE, "console")), re.MULTILINE)
    with home_in(tmp_path / "home", None) as home, home.stores() as services:
        monkeypatch.chdir(home.directory)
        for name, value in home.environment().items():
            monkeypatch.setenv(name, value)
        federation, client = _prepared(services)
        request_id, told = "", list[str]()
        for line in shown:
            command, _, target = line.partition(" > ")
            words = shlex.split(command.replace("CLIENT_ID", client).replace("REQUEST_ID", request_id))
            done = CliRunner().invoke(main, words)
            assert done.exit_code == 0, (command, done.output)
            if target:
                Path(target).write_text(done.stdout)
                request_id = json.loads(done.stdout)["id"]
            federation.sequence()
            told.append(done.output)
        receipt = json.loads(Path("erased.json").read_text())["receipt"]
        keys = {row.kid: row.public for row in services.keystore.public_keys()}
    claims = verify_compact(receipt, "fl-erasure+jwt", keys)
    given = dict(line.split(": ") for line in told[2].splitlines())

    assert [" version 1.0.0," in told[at] for at in (0, -1)] == [True, True]
    assert "proven" in told[4]
    assert _program()(claims, given["key"], given["subject_id"])
    assert not _program()(claims, given["key"], given["subject_id"][::-1])


def test_the_page_tells_every_place_and_member(tmp_path: Path) -> None:
    """What a receipt can say is on the page."""
    places, receipt = TEXT.index("## The places"), TEXT.index("## The receipt")
    told_places = set(re.findall(r"^\| `(\w+)` \|", TEXT[places:receipt], re.MULTILINE))
    members = set(re.findall(r"`(\w+)`", TEXT[receipt:]))
    with home_in(tmp_path / "home", None) as home, home.stores() as services:
        names = {place.name for place in desk_parts(services).places} | set(
            privacy_desk(services).holds.names
        )

    assert names <= told_places
    assert {*ErasureReceipt.__dataclass_fields__, "left", "log"} <= members


def _prepared(services: Services) -> tuple[Federation, str]:
    """A client whose update was counted; the parts of `serve` that matter are driven by hand."""
    recover(services)
    app = create_app(services)
    federation = Federation(services, app.test_client())
    federation.add_model()
    silo = federation.register("a silo")
    federation.open_round(planned_clients=1)
    federation.submit(silo, file_of(tensors(0.5)))
    federation.work()
    federation.sequence()
    close_refusals(app)
    return federation, silo.client_id


def _program() -> Callable[[dict[str, Any], str, str], bool]:
    (program,) = blocks(PAGE, "python")
    names: dict[str, Any] = {}
    exec(program, names)  # noqa: S102 - the page's own program
    return names["is_about"]  # type: ignore[no-any-return]
