"""`fl-gateway privacy requests` on the embedded database: what is owed to a person is said in words."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from gateway.cli.client import client
from gateway.cli.privacy import privacy


@pytest.fixture
def silo(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """A client, in an empty working directory with nothing configured."""
    monkeypatch.chdir(tmp_path)
    added = CliRunner().invoke(client, ["add", "silo", "--role", "participant", "--json"])
    return str(json.loads(added.stdout)["client_id"])


def run(*arguments: str) -> Result:
    return CliRunner().invoke(privacy, arguments)


def test_what_the_person_is_told_is_not_empty(silo: str) -> None:
    """Art. 12(3), 18(3): no extension without reason and notice, no lifting without notice, no rest without reason."""
    case = json.loads(run("requests", "open", "access", silo, "--json").stdout)["id"]

    refused = [
        run("requests", "extend", case, "--reason", " ", "--notice", "a letter"),
        run("requests", "extend", case, "--reason", "complex", "--notice", ""),
        run("requests", "extend", case, "--reason", "x" * 2001, "--notice", "a letter"),
        run("requests", "hold", case, "--reason", ""),
        run("lift", case, "--notice", " "),
        run("requests", "open", "access", "--reference", " ", "--silo", silo),
    ]

    assert [result.exit_code for result in refused] == [2] * len(refused)
    assert all("characters" in result.stderr for result in refused)
    shown = json.loads(run("requests", "show", case, "--json").stdout)
    assert (shown["version"], shown["is_extended"], shown["status"]) == (1, False, "received")


def test_a_closed_request_has_no_days_left(silo: str) -> None:
    """The list is for people: a request that was answered shows its state and no clock."""
    case = json.loads(run("requests", "open", "access", silo, "--json").stdout)["id"]
    open_line = run("requests", "list").stdout.splitlines()[0]
    run("requests", "withdraw", case)

    closed_line = run("requests", "list").stdout.splitlines()[0]

    assert "days left" in open_line
    assert "withdrawn" in closed_line
    assert "None" not in closed_line


def test_an_erasure_that_two_must_approve_says_what_it_waits_for(
    silo: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The machine is one person: its word is the first approval, and whoever typed it learns who must come next."""
    monkeypatch.setenv("FLG_ERASURE_APPROVALS", "2")

    told = run("erase", silo)

    assert told.exit_code == 1
    assert "in_review" in told.stdout
    assert "needs: a second person's approval" in told.stdout


def test_an_erasure_that_a_hold_stops_says_so(silo: str) -> None:
    """Exit 1 alone would leave the officer guessing what must happen first."""
    run("hold", "place", silo, "--matter", "claim", "--basis", "e", "--review", "2099-01-01")

    told = run("erase", silo)

    assert told.exit_code == 1
    assert "on_hold" in told.stdout
    assert "needs: the end of a legal hold" in told.stdout
