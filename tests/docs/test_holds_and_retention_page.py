"""docs/holds-and-retention.md: its commands are given in order, its settings are taken, its tables are complete."""

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
from services.checkout import ROOT
from services.pages import blocks

from audit.draft import Personal
from gateway.app import create_app
from gateway.auth.refusals import close_refusals
from gateway.cli import main
from gateway.places import ClientBook
from gateway.privacy import privacy_desk
from gateway.retention import kinds, terms_of
from gateway.services import Services

PAGE = "holds-and-retention.md"
TEXT = (ROOT / "docs" / PAGE).read_text("utf-8")


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Home]:
    """An embedded gateway with the page's settings."""
    (settings,) = blocks(PAGE, "sh")
    with home_in(tmp_path / "home", None) as made:
        monkeypatch.chdir(made.directory)
        shown = dict(line.split("=", 1) for line in settings.splitlines())
        named = {name: value.strip('"') for name, value in shown.items()}
        for name, value in {**made.environment(), **named}.items():
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


def _client(services: Services) -> str:
    app = create_app(services)
    client = Federation(services, app.test_client()).register("a silo").client_id
    close_refusals(app)
    return client


def test_the_page_s_commands_do_what_it_says(home: Home) -> None:
    """Place, list, review, ask for the end; the machine is one person, so another one lifts it; then the schedule."""
    place, listing, review, release, show, look, run = _commands()
    with home.stores() as services:
        client = _client(services)

    placed = _give(place, client_id=client)
    (hold,) = json.loads(_give(f"{listing} --json"))
    told = [_give(command, hold_id=hold["id"]) for command in (review, release, release)]

    assert hold["id"] in placed
    assert (hold["scope"], hold["basis"], hold["review_at"]) == (
        ["client_updates"],
        "e",
        "2099-01-31T00:00:00Z",
    )
    assert "review 2099-06-30" in told[0]
    assert all("a second person has to agree" in line for line in told[1:])
    with home.stores() as services:
        second = Personal(_subject_of(services, _client(services)), "second")
        assert not privacy_desk(services).holds.release(hold["id"], by=second).is_active
    assert _give(listing) == "no hold\n"
    assert _give(f"{listing} --all").startswith(f"hold {hold['id']}: lifted ")
    assert "updates: at most 180 days, at least 1 day\n" in _give(show)
    assert "would be removed" in _give(look)
    assert json.loads(_give(f"{run} --json"))["applied"] is True


def _subject_of(services: Services, client: str) -> str:
    found = ClientBook(services).subject_of(client)
    assert found is not None
    return found


def test_a_person_that_is_not_there_gets_no_hold(home: Home) -> None:
    """One line, and exit 2."""
    place = _commands()[0].replace("$CLIENT_ID", "5f0f0d0e-0000-4000-8000-000000000000")

    refused = CliRunner().invoke(main, shlex.split(place))

    assert refused.exit_code == 2
    assert "no such client" in refused.output


def test_the_page_names_every_kind_and_every_event() -> None:
    """The tables of the page are those of the code."""
    (settings,) = blocks(PAGE, "sh")
    names = [kind.name for kind in kinds()]

    assert re.findall(r"^\| `([a-z]+)` \|", TEXT.split("## Retention")[1], re.MULTILINE) == names
    assert list(terms_of(settings.splitlines()[0].split("=", 1)[1].strip('"'))) == names
    assert set(re.findall(r"^\| `(hold\.[a-z_]+)` \|", TEXT, re.MULTILINE)) == {
        "hold.placed",
        "hold.reviewed",
        "hold.overdue",
        "hold.release_asked",
        "hold.lifted",
    }
