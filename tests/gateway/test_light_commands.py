"""A command loads what it uses: help and offline checks nothing of the gateway, a look into the stores no web stack."""

from __future__ import annotations

import inspect
import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import click
import pytest
from click.testing import CliRunner

from gateway.cli import main
from gateway.cli.lazy import LazyGroup
from gateway.cli.opening import migrate
from gateway.config import Config

HEAVY = {
    "alembic", "authlib", "babel", "boto3", "dp_accounting", "flask", "gateway.api", "gateway.console", "httpx",
    "jinja2", "numpy", "pika", "prometheus_client", "psycopg", "pydantic", "redis", "rich", "werkzeug",
}  # fmt: skip
_RUN = """
import contextlib, io, json, sys
from gateway.cli import main

for command in sys.argv[1:]:
    with contextlib.redirect_stdout(io.StringIO()):
        main(command.split(), prog_name="fl-gateway", standalone_mode=False)
print(json.dumps(sorted(sys.modules)))
"""


def _loaded(directory: Path, *commands: str) -> set[str]:
    """The modules of a process that has given these commands."""
    done = subprocess.run(
        [sys.executable, "-c", _RUN, *commands],
        cwd=directory,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return set(json.loads(done.stdout))


def test_help_and_offline_checks_load_nothing_of_the_gateway(tmp_path: Path) -> None:
    """An auditor's `audit verify` and anybody's `--help` are there at once."""
    commands = ("--help", "audit --help", "audit verify --help", "privacy --help", "witness --help")

    loaded = _loaded(tmp_path, *commands)

    assert "audit.verify" in loaded
    assert not loaded & (HEAVY | {"sqlalchemy", "compliance", "gateway.config"})


def test_a_look_into_the_stores_loads_no_web_stack(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Nor Alembic, since the schema is current, nor the drivers of servers that are not configured, nor numpy."""
    monkeypatch.chdir(tmp_path)
    migrate(Config())

    loaded = _loaded(
        tmp_path,
        "client add silo-a --role participant --json",
        "client list",
        "keys list",
        "keys rotate master --grace 0s",
        "db upgrade",
        "siem status",
        "intake status",
    )

    assert {"gateway.services", "gateway.auth.clients"} <= loaded
    assert not loaded & HEAVY


def _lazy_groups(command: click.Command) -> Iterator[LazyGroup]:
    if isinstance(command, LazyGroup):
        yield command
        for name in command.deferred:
            if found := command.get_command(click.Context(command), name):
                yield from _lazy_groups(found)


def test_the_lines_of_help_are_those_of_the_commands_themselves() -> None:
    """A group shows its commands without loading them; what it shows is what each would say."""
    groups = list(_lazy_groups(main))

    told = {(group.name, name): line for group in groups for name, (_, line) in group.deferred.items()}

    assert {group.name for group in groups} >= {"main", "audit", "privacy"}
    for group in groups:
        for name in group.deferred:
            command = group.get_command(click.Context(group), name)
            assert command is not None
            first = inspect.cleandoc(command.help or "").split("\n\n")[0]
            assert told[group.name, name] == " ".join(first.split())


@pytest.mark.parametrize(
    ("words", "meant"), [("cleint", "client"), ("audit exprot", "export"), ("audit veryfy", "verify")]
)
def test_who_misspells_a_command_is_told_which_was_meant(words: str, meant: str) -> None:
    """As Click tells it of commands that are loaded."""
    told = CliRunner().invoke(main, words.split(), prog_name="fl-gateway")

    assert told.exit_code == 2
    assert f"Did you mean '{meant}'?" in told.stderr


def test_what_a_test_starts_keeps_what_it_compiled() -> None:
    """The commands that tests start would otherwise compile all our modules, each of them again."""
    question = [sys.executable, "-c", "import sys; print(sys.dont_write_bytecode)"]

    answer = subprocess.run(question, capture_output=True, text=True, check=True).stdout

    assert answer.strip() == "False"
