"""`fl-gateway client` on the embedded database."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from gateway.cli.client import client


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty working directory, with nothing configured."""
    monkeypatch.chdir(tmp_path)
    return tmp_path


def run(*arguments: str) -> Result:
    return CliRunner().invoke(client, arguments)


def test_a_client_is_added_listed_and_moved(folder: Path) -> None:
    """DESIGN, CLI: add prints {client_id, client_secret, api_key?}; a name is as good as the id."""
    added = json.loads(run("add", "hospital-a", "--role", "participant", "--json").stdout)
    auditor = json.loads(run("add", "auditor", "--role", "auditor", "--json").stdout)

    assert set(added) == {"client_id", "client_secret", "api_key"}
    assert set(auditor) == {"client_id", "client_secret"}
    for command, status in (("suspend", "suspended"), ("resume", "active"), ("revoke", "revoked")):
        assert json.loads(run(command, "hospital-a", "--json").stdout)["status"] == status
    listed = json.loads(run("list", "--json").stdout)
    assert [(row["name"], row["role"], row["status"]) for row in listed] == [
        ("hospital-a", "participant", "revoked"),
        ("auditor", "auditor", "active"),
    ]
    assert added["client_secret"] not in run("list").stdout


def test_wrong_usage_ends_with_2(folder: Path) -> None:
    """An unknown role, an unknown client, a move that is not allowed."""
    run("add", "a", "--role", "auditor")
    run("revoke", "a")

    assert run("add", "b", "--role", "king").exit_code == 2
    assert run("add", "", "--role", "auditor").exit_code == 2
    assert run("suspend", "nobody").exit_code == 2
    assert run("resume", "a").exit_code == 2


@pytest.mark.parametrize("command", ["add", "list", "suspend", "resume", "revoke"])
def test_every_command_has_help(command: str) -> None:
    """DESIGN: every command has --help."""
    assert "Usage:" in run(command, "--help").output
