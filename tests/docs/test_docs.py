"""The documentation tells the truth: its links lead somewhere, and its commands exist."""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import click
import pytest
from services.checkout import ROOT, files

_FENCE = re.compile(r"^```(\w*)[^\n]*\n(.*?)^```", re.MULTILINE | re.DOTALL)
_LINK = re.compile(r"!?\[[^\]]*\]\(([^)\s]+)(?:\s+\"[^\"]*\")?\)")
_ENDS_OF_COMMAND = {"|", "||", "&&", ";", ">", ">>", "<", "&", "2>", "2>&1"}


@dataclass(frozen=True, slots=True)
class Command:
    """A command line that a page shows to its reader."""

    page: str
    words: tuple[str, ...]

    def __str__(self) -> str:
        return f"{self.page}: {' '.join(self.words)}"


def _pages() -> list[Path]:
    return [path for path in files() if path.suffix == ".md"]


def _name(page: Path) -> str:
    return str(page.relative_to(ROOT))


def _prose(page: Path) -> str:
    return re.sub(r"`[^`\n]*`", "", _FENCE.sub("", page.read_text()))


def _anchors(page: Path) -> set[str]:
    """The anchors of a page's headings, as GitHub makes them."""
    headings = re.findall(r"^#+\s+(.*?)\s*$", _FENCE.sub("", page.read_text()), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


@pytest.mark.parametrize("page", _pages(), ids=_name)
def test_every_link_leads_somewhere(page: Path) -> None:
    """A relative link names a file that exists, and a heading in it."""
    links = [link for link in _LINK.findall(_prose(page)) if not re.match(r"[a-z]+:", link)]

    dead = [link for link in links if not _leads_somewhere(page, link)]

    assert dead == []


def _leads_somewhere(page: Path, link: str) -> bool:
    file, _, anchor = link.partition("#")
    target = (page.parent / file).resolve() if file else page
    if not target.exists() or not target.is_relative_to(ROOT):
        return False
    return not anchor or target.suffix != ".md" or anchor in _anchors(target)


def _shown_commands() -> Iterator[Command]:
    """The `fl-gateway` commands in the shell blocks of every page, continuation lines joined."""
    for page in _pages():
        for language, block in _FENCE.findall(page.read_text()):
            if language not in {"console", "bash", "sh"}:
                continue
            for line in block.replace("\\\n", " ").splitlines():
                if line.removeprefix("$ ").startswith("fl-gateway"):
                    yield Command(_name(page), _words(line.removeprefix("$ ")))


def _words(line: str) -> tuple[str, ...]:
    """The words of the first command on a line, without the program's name."""
    words = shlex.split(line, comments=True)
    end = next((i for i, word in enumerate(words) if word in _ENDS_OF_COMMAND), len(words))
    return tuple(words[1:end])


@pytest.mark.parametrize("command", list(_shown_commands()), ids=str)
def test_every_command_shown_exists(command: Command) -> None:
    """The command, and each of its options, is one that the program knows."""
    problem = _problem(command.words)

    assert problem == ""


def _problem(words: tuple[str, ...]) -> str:
    """What the program would not understand in a command line, or nothing."""
    from gateway.cli import main

    found: click.Command = main
    options = _options(found)
    for word in words:
        if word.startswith("-"):
            if (option := word.partition("=")[0]) not in options:
                return f"{found.name} has no option {option}"
        elif isinstance(found, click.Group):
            if (named := found.get_command(click.Context(found), word)) is None:
                return f"{found.name} has no command {word}"
            found = named
            options |= _options(found)
    needs_more = isinstance(found, click.Group) and not words[-1].startswith("-")
    return f"{found.name} needs a subcommand" if needs_more else ""


def _options(command: click.Command) -> set[str]:
    named = (name for parameter in command.params for name in (*parameter.opts, *parameter.secondary_opts))
    return {"-h", "--help", *(name for name in named if name.startswith("-"))}
