"""docs/packages.md: its commands are given in order, and its tables name what is there."""

from __future__ import annotations

import json
import re
import shlex
import zipfile
from collections.abc import Iterator
from pathlib import Path

import pytest
from click.testing import CliRunner
from federation import Federation, file_of, tensors
from living.home import Home, home_in
from services.checkout import ROOT
from services.pages import blocks
from sqlalchemy import select

from audit.reading import reading
from compliance.requests.cases import RequestType
from compliance.tables import privacy_requests
from gateway.api.audit import log_vkey
from gateway.app import create_app
from gateway.auth.refusals import close_refusals
from gateway.cli import main

PAGE = "packages.md"
TEXT = (ROOT / "docs" / PAGE).read_text("utf-8")


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Home]:
    """An embedded gateway with an address; commands are typed in its folder."""
    with home_in(tmp_path / "home") as made:
        monkeypatch.chdir(made.directory)
        for name, value in {**made.environment(), "FLG_PUBLIC_URL": "https://gateway.example"}.items():
            monkeypatch.setenv(name, value)
        yield made


def _commands() -> list[str]:
    shown = "".join(blocks(PAGE, "console"))
    return re.findall(r"^\$ fl-gateway (.*)$", shown, re.MULTILINE)


def _give(command: str, **named: str) -> str:
    for name, value in named.items():
        command = command.replace(f"${name.upper()}", value)
    done = CliRunner().invoke(main, shlex.split(command))
    assert done.exit_code == 0, (command, done.output)
    return done.output


def _took_part(home: Home) -> str:
    """A client that took part in a round; the log's key is saved."""
    with home.stores() as services:
        app = create_app(services)
        federation = Federation(services, app.test_client())
        federation.add_model()
        federation.open_round(planned_clients=1)
        silo = federation.register("a silo")
        federation.submit(silo, file_of(tensors(0.5)))
        federation.work()
        federation.sequence()
        Path("log.vkey").write_text(log_vkey(services))
        close_refusals(app)
    return silo.client_id


def _save_keys(home: Home) -> None:
    """As the page says, when what is to be verified was made."""
    with home.stores() as services:
        app = create_app(services)
        Path("jwks.json").write_bytes(app.test_client().get("/.well-known/jwks.json").data)
        close_refusals(app)


def _answered(home: Home, kind: RequestType) -> str:
    query = select(privacy_requests.c.id).where(privacy_requests.c.type == kind.value)
    with home.stores() as services, reading(services.engine) as conn:
        found: str = conn.execute(query).scalar_one()
    return found


def test_the_page_s_commands_do_what_it_says(home: Home) -> None:
    """Export, take along, link, verify: package, proofs and receipt."""
    export, take_along, link, verify, prove, check_receipt = _commands()
    client_id = _took_part(home)

    _give(export, client_id=client_id)
    assert Path("package.zip").stat().st_mode & 0o077 == 0, "others on this machine must not read it"
    _give(take_along, client_id=client_id)
    _save_keys(home)
    made = _give(link, request_id=_answered(home, RequestType.ACCESS))
    whole, proven = _give(verify), json.loads(_give(f"{prove} --json"))
    _give(f"privacy erase {client_id}")
    with home.stores() as services, reading(services.engine) as conn:
        receipt = select(privacy_requests.c.receipt).where(privacy_requests.c.receipt.is_not(None))
        Path("receipt.jws").write_text(conn.execute(receipt).scalar_one())
    _save_keys(home)
    told = _give(check_receipt)

    assert re.search(r"^url: https://gateway\.example/packages/\S{43}$", made, re.MULTILINE)
    assert "the package is whole" in whole
    assert proven["proven_entries"] > 0
    assert "the erasure receipt is whole" in told
    _check_paths(Path("package.zip"), Path("portable.zip"))


def _check_paths(package: Path, portable: Path) -> None:
    """The page's tables name each table, and each path but those of what nobody has."""
    with zipfile.ZipFile(package) as whole, zipfile.ZipFile(portable) as cut:
        names, taken = whole.namelist(), cut.namelist()
    tables = {Path(name).stem for name in names if name.startswith("data/")}
    listed = TEXT.split("| table | rows |")[1].split("\n\n")[0]
    always = set(re.findall(r"^\| `(\w+)` \* \|", listed, re.MULTILINE))
    assert always <= tables <= set(re.findall(r"`(\w+)`", listed))
    for path in ("README.html", "article-15.json", "audit/checkpoint", "manifest.json", "manifest.sig"):
        assert path in names
        assert f"`{path}`" in TEXT
    assert {name.partition("/")[0] for name in taken} == {
        "README.html",
        "portability",
        "updates",
        "schemas",
        "manifest.json",
        "manifest.sig",
    }
