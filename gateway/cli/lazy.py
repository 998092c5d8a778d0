"""Groups whose commands are loaded when they are named; help has a line of each and loads none (decision 0166)."""

from __future__ import annotations

import importlib
from collections.abc import Mapping
from typing import Any

import click

Deferred = Mapping[str, tuple[str, str]]
"""Commands by name: where each is, as `module:attribute`, and the first sentence of its own help."""


class LazyGroup(click.Group):
    """A group that says of some commands only where they are.

    Args:
        deferred: the commands that are loaded when they are named.
        settings: what any group of Click takes.
    """

    def __init__(self, *, deferred: Deferred, **settings: Any) -> None:
        super().__init__(**settings)
        self.deferred = deferred

    def list_commands(self, ctx: click.Context) -> list[str]:
        """Every command, in order."""
        return sorted([*super().list_commands(ctx), *self.deferred])

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        """The command of that name."""
        if cmd_name not in self.deferred:
            return super().get_command(ctx, cmd_name)
        module, _, attribute = self.deferred[cmd_name][0].partition(":")
        command: click.Command = getattr(importlib.import_module(module), attribute)
        return command

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        """The command that is meant; of an unknown one, which may be meant: Click knows of loaded ones alone."""
        try:
            return super().resolve_command(ctx, args)
        except click.NoSuchCommand as error:
            names = self.list_commands(ctx)
            raise click.NoSuchCommand(error.command_name, possibilities=names, ctx=ctx) from None

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """Write the lines as Click does, those of commands that are not loaded from here."""
        told = {name: click.Command(name, help=line) for name, (_, line) in self.deferred.items()}
        click.Group(commands={**self.commands, **told}).format_commands(ctx, formatter)
