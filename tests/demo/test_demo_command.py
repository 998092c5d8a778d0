"""The command `fl-gateway demo`: what it refuses, and how it tells its story."""

from __future__ import annotations

import io
from pathlib import Path

from click.testing import CliRunner
from rich.console import Console

from gateway.cli.demo import demo
from gateway.demo.outcome import RoundOutcome
from gateway.demo.plan import Unit, make_plan
from gateway.demo.screen import LiveScreen, PlainScreen

ROUND = RoundOutcome(number=2, clients=10, accuracy=0.9125, loss=0.3, epsilon_spent=1.234, duration_s=0.61)


def test_a_directory_with_something_in_it_is_refused(tmp_path: Path) -> None:
    """`--keep` never mixes with what is there; wrong usage exits with 2."""
    (tmp_path / "precious").touch()

    said = CliRunner().invoke(demo, ["--keep", str(tmp_path)])

    assert said.exit_code == 2
    assert "not empty" in said.stderr
    assert [path.name for path in tmp_path.iterdir()] == ["precious"]


def test_an_impossible_budget_is_wrong_usage(tmp_path: Path) -> None:
    """Exit 2, with the reason, before any process starts."""
    said = CliRunner().invoke(demo, ["--epsilon", "0", "--keep", str(tmp_path / "new")])

    assert said.exit_code == 2
    assert "epsilon 0 cannot be planned" in said.stderr
    assert not (tmp_path / "new").exists()


def test_each_option_of_the_contract_is_there() -> None:
    """`--rounds --clients --epsilon --unit --no-dp --keep --json`."""
    said = CliRunner().invoke(demo, ["--help"])

    for option in ("--rounds", "--clients", "--epsilon", "--unit", "--no-dp", "--keep", "--json"):
        assert option in said.stdout
    assert "client" in said.stdout
    assert "record" in said.stdout


def test_plain_lines_tell_a_round_in_full() -> None:
    """Without a terminal: one line a round, no control characters."""
    stream = io.StringIO()
    screen = PlainScreen(stream)
    plan = make_plan(Unit.RECORD, rounds=12, clients=10, epsilon=3)

    screen.chapter("3  Training")
    with screen.rounds(plan) as view:
        view.add(ROUND)

    assert stream.getvalue() == (
        "== 3  Training\n   round 2/12: 10 clients, accuracy 0.912, epsilon spent 1.234, 0.6 s\n"
    )


def test_the_live_table_shows_each_round() -> None:
    """On a terminal: a table of round, clients, accuracy and epsilon spent."""
    stream = io.StringIO()
    screen = LiveScreen(Console(file=stream, width=100, force_terminal=True))
    plan = make_plan(Unit.RECORD, rounds=12, clients=10, epsilon=3)

    with screen.rounds(plan) as view:
        view.add(ROUND)

    for cell in ("2/12", "10", "0.912", "1.234"):
        assert cell in stream.getvalue()


def test_markup_in_a_text_is_shown_and_not_obeyed() -> None:
    """What the gateway says may contain brackets."""
    stream = io.StringIO()

    LiveScreen(Console(file=stream, width=100)).say("[red]found[/red] at [0]")

    assert "[red]found[/red] at [0]" in stream.getvalue()
