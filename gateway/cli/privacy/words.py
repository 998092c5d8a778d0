"""What somebody says on the command line, within the limits that the API has: never nothing, and never a book."""

from __future__ import annotations

import click


class Words(click.ParamType[str]):
    """A text that says something.

    Args:
        most: how many characters it may have.
    """

    name = "text"

    def __init__(self, most: int = 2000) -> None:
        self.most = most

    def convert(self, value: str, param: click.Parameter | None, ctx: click.Context | None) -> str:
        """The text, without the blanks around it."""
        found = value.strip()
        if not 0 < len(found) <= self.most:
            self.fail(f"say it in 1 to {self.most} characters", param, ctx)
        return found
