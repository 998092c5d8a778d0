"""`fl-gateway demo`: the whole story in a minute, on this machine, with nothing configured."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import click

from gateway.demo.errors import DemoError, UnplannableRun
from gateway.demo.outcome import DemoOutcome
from gateway.demo.plan import Unit, make_plan
from gateway.demo.run import insist, run_demo
from gateway.demo.screen import open_screen

NEGATIVE_EXIT, USAGE_EXIT = 1, 2


@click.command()
@click.option(
    "--rounds", default=12, show_default=True, type=click.IntRange(1, 100), help="Rounds of training."
)
@click.option(
    "--clients", default=10, show_default=True, type=click.IntRange(1, 35), help="Silos that take part."
)
@click.option(
    "--epsilon", default=3.0, show_default=True, type=float, help="Privacy budget of the whole run."
)
@click.option(
    "--unit",
    default=Unit.RECORD.value,
    show_default=True,
    type=click.Choice([Unit.RECORD.value, Unit.CLIENT.value]),
    help="Whose presence the noise hides.",
)
@click.option("--no-dp", "is_open", is_flag=True, help="Train without noise and without a privacy claim.")
@click.option(
    "--keep",
    type=click.Path(file_okay=False, path_type=Path),
    help="Work in this directory, which must be new or empty, and keep the gateway's stores.",
)
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object at the end.")
def demo(
    *, rounds: int, clients: int, epsilon: float, unit: str, is_open: bool, keep: Path | None, as_json: bool
) -> None:
    """Train with silos, audit the run, find a forgery, erase a silo: in about a minute, on this machine."""
    if keep is not None and keep.exists() and any(keep.iterdir()):
        raise click.UsageError(f"{keep} is not empty: name a new directory")
    screen = open_screen(is_live=sys.stdout.isatty() and not as_json)
    try:
        plan = make_plan(
            Unit.NONE if is_open else Unit(unit), rounds=rounds, clients=clients, epsilon=epsilon
        )
        outcome = run_demo(plan, screen, keep=keep)
        click.echo(json.dumps(outcome.summary()) if as_json else _closing_words(outcome))
        insist(outcome)
    except DemoError as error:
        click.echo(f"fl-gateway: {error}", err=True)
        sys.exit(USAGE_EXIT if isinstance(error, UnplannableRun) else NEGATIVE_EXIT)


def _closing_words(outcome: DemoOutcome) -> str:
    audit, erasure = outcome.audit, outcome.erasure
    papers = {
        "report": outcome.report,
        "audit bundle": audit.bundle,
        "forged copy": audit.forged,
        "bundle after the erasure": erasure.bundle,
        "exported data": erasure.package,
        "erasure receipt": erasure.receipt,
    }
    final = outcome.training.final
    width = max(len(name) for name in papers)
    said = f"\naccuracy {final.accuracy:.3f} on held-out data, in {outcome.duration_s:.0f} s. Written:"
    return "\n".join([said, *(f"  {name:<{width}}  {path}" for name, path in papers.items())])
