"""What the person at the keyboard sees: a live table on a terminal, else plain lines on standard error."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from typing import Protocol, TextIO

from rich.console import Console
from rich.live import Live
from rich.markup import escape
from rich.table import Table

from gateway.demo.outcome import RoundOutcome
from gateway.demo.plan import Plan


class RoundView(Protocol):
    """Takes the rounds as they end."""

    def add(self, outcome: RoundOutcome) -> None:
        """Show one more round."""


class Screen(Protocol):
    """Tells the story as it happens."""

    def chapter(self, title: str) -> None:
        """Begin a chapter."""

    def say(self, text: str) -> None:
        """Tell one fact."""

    def rounds(self, plan: Plan) -> AbstractContextManager[RoundView]:
        """Open the view of the training."""


def open_screen(*, is_live: bool) -> Screen:
    """The live screen on standard output, or plain lines on standard error."""
    return LiveScreen(Console()) if is_live else PlainScreen(sys.stderr)


class PlainScreen:
    """One line a fact; for pipes, logs and `--json`."""

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream

    def chapter(self, title: str) -> None:
        """Begin a chapter."""
        self._write(f"== {title}")

    def say(self, text: str) -> None:
        """Tell one fact."""
        self._write(f"   {text}")

    @contextmanager
    def rounds(self, plan: Plan) -> Iterator[RoundView]:
        """A line a round."""
        yield _Lines(self, plan)

    def _write(self, line: str) -> None:
        self._stream.write(line + "\n")
        self._stream.flush()


class _Lines:
    def __init__(self, screen: PlainScreen, plan: Plan) -> None:
        self._screen = screen
        self._plan = plan

    def add(self, outcome: RoundOutcome) -> None:
        """Say one round."""
        self._screen.say(
            f"round {outcome.number}/{self._plan.rounds}: {outcome.clients} clients, "
            f"accuracy {outcome.accuracy:.3f}, epsilon spent {epsilon_text(outcome.epsilon_spent)}, "
            f"{outcome.duration_s:.1f} s"
        )


class LiveScreen:
    """Chapters in colour, and a table that grows with the training."""

    def __init__(self, console: Console) -> None:
        self._console = console

    def chapter(self, title: str) -> None:
        """Begin a chapter."""
        self._console.print(f"\n[bold cyan]{escape(title)}[/]", highlight=False)

    def say(self, text: str) -> None:
        """Tell one fact."""
        self._console.print(f"  {escape(text)}", highlight=True)

    @contextmanager
    def rounds(self, plan: Plan) -> Iterator[RoundView]:
        """The table, drawn anew after each round."""
        table = Table(title=f"Training, unit {plan.unit.value}", title_justify="left")
        for heading in ("round", "clients", "accuracy", "", "epsilon spent", "seconds"):
            table.add_column(heading, justify="left" if not heading else "right")
        with Live(table, console=self._console, auto_refresh=False) as live:
            yield _Rows(table, live, plan)


class _Rows:
    def __init__(self, table: Table, live: Live, plan: Plan) -> None:
        self._table = table
        self._live = live
        self._plan = plan

    def add(self, outcome: RoundOutcome) -> None:
        """Add one row."""
        bar = "█" * round(20 * outcome.accuracy)
        self._table.add_row(
            f"{outcome.number}/{self._plan.rounds}",
            str(outcome.clients),
            f"{outcome.accuracy:.3f}",
            f"[green]{bar}[/]",
            epsilon_text(outcome.epsilon_spent),
            f"{outcome.duration_s:.1f}",
        )
        self._live.update(self._table, refresh=True)


def epsilon_text(epsilon: float | None) -> str:
    """An epsilon for people; a dash where none is claimed."""
    return "-" if epsilon is None else f"{epsilon:.3f}"
