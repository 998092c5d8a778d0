"""What the code offers is documented: commands, options, settings, event types, error codes."""

from __future__ import annotations

import re
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import fields

import click
import pytest
from services.checkout import ROOT, files

from audit.events import EventType
from gateway.cli import main
from gateway.config import PREFIX, Config


def _pages() -> str:
    return "\n".join(path.read_text() for path in files() if path.suffix == ".md")


def _commands(command: click.Command, path: str = "fl-gateway") -> Iterator[tuple[str, click.Command]]:
    """The full name of every command and group, and the command itself."""
    yield path, command
    if isinstance(command, click.Group):
        context = click.Context(command)
        for name in command.list_commands(context):
            child = command.get_command(context, name)
            assert child is not None
            yield from _commands(child, f"{path} {name}")


def test_every_command_stands_on_some_page() -> None:
    """A command that no page shows is one that nobody finds."""
    pages = _pages()

    leaves = [path for path, command in _commands(main) if not isinstance(command, click.Group)]
    unshown = [path for path in leaves if path not in pages]

    assert unshown == []


def test_every_command_and_option_explains_itself() -> None:
    """`--help` says what each command and each option is for."""
    commands = list(_commands(main))

    silent = [path for path, command in commands if not command.help]
    unexplained = [
        (path, option.name)
        for path, command in commands
        for option in command.params
        if isinstance(option, click.Option) and not option.hidden and not option.help
    ]

    assert silent == []
    assert unexplained == []


def test_every_event_type_stands_on_its_page() -> None:
    """Whoever reads the log can look up each event (docs/events.md)."""
    page = (ROOT / "docs" / "events.md").read_text()

    undocumented = [event.value for event in EventType if f"`{event.value}`" not in page]

    assert undocumented == []


@pytest.mark.parametrize(("page", "table"), [("operator.md", "settings"), ("errors.md", "errors")])
def test_a_page_has_the_table_made_from_the_code(page: str, table: str) -> None:
    """Every setting and every error code is documented, because its table is made from the code."""
    text = (ROOT / "docs" / page).read_text()

    assert f"<!-- table: {table} -->" in text


def test_the_tables_are_up_to_date() -> None:
    """`make docs` has been run since the last change of a setting, an error code or an event type."""
    check = subprocess.run(
        [sys.executable, "docs/tables.py", "--check"], cwd=ROOT, capture_output=True, text=True, check=False
    )

    assert (check.returncode, check.stdout, check.stderr) == (0, "", "")


def test_no_page_names_a_setting_that_does_not_exist() -> None:
    """A setting that was renamed is renamed in every page; each may be given as a file (`FLG_X_FILE`)."""
    settings = {PREFIX + setting.name.upper() for setting in fields(Config)}

    named = {name.removesuffix("_FILE") for name in re.findall(r"\bFLG_[A-Z0-9_]*[A-Z0-9]\b", _pages())}

    assert named - settings == set()
