"""docs/people.md: its commands are given in order, and who they add signs in with what they print."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from pathlib import Path

import pytest
from click.testing import CliRunner
from living.home import Home, home_in
from services.pages import blocks
from staff import Browser, Member

from gateway.app import create_app
from gateway.auth.people.openid_settings import read_provider
from gateway.auth.people.person import list_people
from gateway.auth.refusals import close_refusals
from gateway.cli import main
from gateway.config import Config

PAGE = "people.md"


def commands() -> list[str]:
    """Every command of the page, in order."""
    shown = "".join(blocks(PAGE, "console"))
    return re.findall(r"^\$ fl-gateway (.*)$", shown, re.MULTILINE)


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Home]:
    """An embedded gateway with the page's provider, and the working directory of who types."""
    with home_in(tmp_path / "home") as made:
        monkeypatch.chdir(made.directory)
        for name, value in made.environment().items():
            monkeypatch.setenv(name, value)
        monkeypatch.setenv("FLG_OPENID_PROVIDER", blocks(PAGE, "json")[0])
        Path("password.txt").write_text("a horse of another colour\n")
        Path("other.txt").write_text("another horse entirely\n")
        Path("provider.secret").write_text("secret\n")
        yield made


def give(command: str) -> str:
    """What a command prints; it must succeed."""
    done = CliRunner().invoke(main, command.split())
    assert done.exit_code == 0, (command, done.output)
    return done.output


def test_the_page_s_commands_do_what_it_says(home: Home) -> None:
    """Add; sign in with what was printed; change, suspend, resume and revoke; add somebody of the provider."""
    add, *others = commands()
    told = dict(re.findall(r"^(\w+): +(\S.*)$", give(add), re.MULTILINE))

    with home.stores() as services:
        app = create_app(services)
        ada = Member(services, "ada", told["user_id"], "", told["totp_secret"])
        signed_in = Browser(app.test_client()).sign_in(ada).status_code
        close_refusals(app)
    output = [give(command) for command in others]

    assert signed_in == 303
    assert told["totp_uri"].startswith("otpauth://totp/fl-gateway:ada?secret=")
    assert told["scopes"] == "privacy:export privacy:erase privacy:manage privacy:hold"
    assert "ada" in output[0]
    with home.stores() as services:
        people = {person.name: person for person in list_people(services)}
    assert (people["ada"].status, people["ada"].role) == ("revoked", "auditor")
    assert (people["grace"].has_password, people["grace"].has_provider) == (False, True)


def test_the_page_s_provider_can_be_read() -> None:
    """The setting as it stands there."""
    (text,) = blocks(PAGE, "json")

    provider = read_provider(Config(openid_provider=text))

    assert provider is not None
    assert provider.issuer == json.loads(text)["issuer"]
    assert (provider.scopes, "RS256" in provider.algorithms) == (("openid",), True)
