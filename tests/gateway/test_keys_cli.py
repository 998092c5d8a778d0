"""`fl-gateway keys`: what it prints, refuses, and makes of a word that it does not know."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from audit.events import EventType
from gateway.cli import main
from gateway.config import Config
from gateway.key_rotation import begin_announced
from gateway.parts.sequencing import sequencer_of
from gateway.parts.starting import recover
from gateway.services import open_services

Run = Callable[..., Result]


@pytest.fixture
def run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Run:
    """Gives a command to a gateway on the embedded defaults that was started once, and has a checkpoint."""
    monkeypatch.chdir(tmp_path)

    def give(*words: str) -> Result:
        return CliRunner().invoke(main, list(words))

    assert give("db", "upgrade").exit_code == 0
    sequence()
    return give


def sequence() -> None:
    """What a running sequencer does."""
    services = open_services(Config(), part="sequencer")
    recover(services)
    services.trail.note(EventType.SERVER_STOPPED, mode="web")
    sequencer_of(services).run_once()
    begin_announced(services)
    services.close()


def test_the_next_key_of_tokens_waits_until_everybody_can_know_it(run: Run) -> None:
    """It is in jwks.json at once and signs ten minutes later; the list says from when on."""
    first = json.loads(run("keys", "rotate", "token", "--json").stdout)
    told = run("keys", "rotate", "token").stdout
    states = [
        key["state"] for key in json.loads(run("keys", "list", "--json").stdout) if key["use"] == "token"
    ]

    assert first["has_begun"] is False
    assert first["new_kid"] in told
    assert "in ten minutes" in told
    assert states[0].startswith("announced: signs from 20")
    assert states[1] == "signs"


def test_a_stolen_key_of_tokens_is_replaced_at_once(run: Run) -> None:
    """Only for tokens: what other keys signed must stay good."""
    done = json.loads(run("keys", "rotate", "token", "--at-once", "--json").stdout)
    refused = run("keys", "rotate", "receipt", "--at-once")
    states = [
        key["state"] for key in json.loads(run("keys", "list", "--json").stdout) if key["use"] == "token"
    ]

    assert done["has_begun"] is True
    assert (refused.exit_code, states) == (2, ["signs", "retired"])


def test_without_a_sequencer_the_new_log_key_begins_later(run: Run) -> None:
    """The command does not wait for ever; the next start of a sequencer goes on."""
    first = json.loads(run("keys", "rotate", "log", "--both-for", "12h", "--wait", "0s", "--json").stdout)
    between = json.loads(run("keys", "list", "--json").stdout)
    sequence()
    after = json.loads(run("keys", "list", "--json").stdout)

    def states(found: list[dict[str, str]]) -> list[str]:
        return [key["state"] for key in found if key["use"] == "log"]

    assert (first["has_begun"], first["both_until"][-1]) == (False, "Z")
    assert states(between) == ["announced: waits for its entry in the log", "signs"]
    assert states(after) == ["signs", f"signs until {first['both_until']}"]


def test_the_list_shows_names_and_no_key(run: Run) -> None:
    """Of each key what it does now; of the log's, what auditors need."""
    listed, told = run("keys", "list"), json.loads(run("keys", "list", "--json").stdout)
    master = Path("keys/master.key").read_text()

    assert [key["use"] for key in told] == ["master", "log", "receipt", "package", "token"]
    assert told[1]["vkey"].endswith("=") or "+" in told[1]["vkey"]
    assert all(key["kid"] in listed.stdout for key in told)
    assert master not in listed.stdout


def test_the_master_key_is_rotated_and_the_old_one_opens_nothing(run: Run) -> None:
    """Everything goes on with the new one."""
    old = Path("keys/master.key").read_text()

    done = run("keys", "rotate", "master", "--grace", "0s", "--json")

    assert done.exit_code == 0, done.output
    assert json.loads(done.stdout)["rewrapped"] > 0
    assert Path("keys/master.key").read_text() != old
    assert run("keys", "rotate", "receipt").exit_code == 0


@pytest.mark.parametrize("span", ["30", "-1d", "1w", "", "1.5d", "9999999d"])
def test_a_span_of_another_form_is_wrong_usage(run: Run, span: str) -> None:
    """Exit 2, with an example of the right one."""
    told = run("keys", "rotate", "log", "--both-for", span)

    assert told.exit_code == 2
    assert "30d" in told.output
