"""`fl-gateway privacy hold`: legal holds at the machine, which counts as one person: ending one takes another."""

from __future__ import annotations

import json
from collections.abc import Sequence
from datetime import UTC, datetime

import click

from audit.draft import SYSTEM, Personal
from compliance.keeping.hold import EVERYWHERE, Hold
from compliance.keeping.holds import MOST_HOLDS
from compliance.requests.reasons import Exemption
from gateway.auth.people.place import subject_of_user
from gateway.cli.opening import open_console
from gateway.cli.privacy.words import Words
from gateway.places import ClientBook
from gateway.privacy import privacy_desk
from gateway.services import Services

_CONSOLE = Personal(SYSTEM, "console")
_AS_JSON = click.option("--json", "as_json", is_flag=True, help="Print JSON for machines.")
_DAY = click.DateTime(["%Y-%m-%d"])
_LETTERS = click.Choice([letter.value for letter in Exemption])


@click.group()
def hold() -> None:
    """Legal holds: what must be kept although it would be erased or run out (Art. 17(3))."""


@hold.command()
@click.argument("whose", metavar="CLIENT_ID|USER_ID")
@click.option("--matter", type=Words(), required=True, help="The case or claim behind it; kept sealed.")
@click.option("--basis", type=_LETTERS, required=True, help="The letter of Art. 17(3).")
@click.option("--review", "review_at", type=_DAY, required=True, help="The day of its review, YYYY-MM-DD.")
@click.option("--scope", multiple=True, metavar="PLACE", help="A place that it covers; repeat it. None: all.")
@_AS_JSON
def place(
    *, whose: str, matter: str, basis: str, review_at: datetime, scope: Sequence[str], as_json: bool
) -> None:
    """Keep what a person has in some places, or in all."""
    with open_console() as services:
        placed = privacy_desk(services).holds.place(
            _subject(services, whose),
            matter=matter,
            scope=scope or (EVERYWHERE,),
            basis=Exemption(basis),
            review_at=review_at.replace(tzinfo=UTC),
            by=_CONSOLE,
        )
    _tell([placed], as_json=as_json)


@hold.command("list")
@click.option("--all", "everything", is_flag=True, help="Those that were lifted too.")
@_AS_JSON
def list_holds(*, everything: bool, as_json: bool) -> None:
    """List holds, those to be reviewed first first."""
    with open_console() as services:
        desk, found = privacy_desk(services).holds, list[Hold]()
        while more := desk.list(is_active=None if everything else True, offset=len(found)):
            found += more
            if len(more) < MOST_HOLDS:
                break
    _tell(found, as_json=as_json, many=True)


@hold.command()
@click.argument("hold_id", type=click.UUID)
@click.option("--until", type=_DAY, required=True, help="The day of the next review, YYYY-MM-DD.")
@_AS_JSON
def review(*, hold_id: object, until: datetime, as_json: bool) -> None:
    """Say that a hold's grounds still stand; who asked to end it is refused by this."""
    with open_console() as services:
        reviewed = privacy_desk(services).holds.review(
            str(hold_id), review_at=until.replace(tzinfo=UTC), by=_CONSOLE
        )
    _tell([reviewed], as_json=as_json)


@hold.command()
@click.argument("hold_id", type=click.UUID)
@_AS_JSON
def release(*, hold_id: object, as_json: bool) -> None:
    """Ask to end a hold, or agree with who asked for it; the same person never does both."""
    with open_console() as services:
        _tell([privacy_desk(services).holds.end(str(hold_id), by=_CONSOLE)], as_json=as_json)


def _subject(services: Services, whose: str) -> str:
    found = ClientBook(services).subject_of(whose) or subject_of_user(services, whose)
    if found is None:
        raise click.UsageError("there is no such client or account, or it was erased")
    return found


def _tell(found: Sequence[Hold], *, as_json: bool, many: bool = False) -> None:
    if as_json:
        shown = [one.public() for one in found]
        click.echo(json.dumps(shown if many else shown[0]))
        return
    for one in found:
        places = "everything" if EVERYWHERE in one.scope else ", ".join(one.scope)
        click.echo(f"hold {one.id}: {_state(one)}; covers {places}, Art. 17(3)({one.basis.value})")
    if not found:
        click.echo("no hold")


def _state(one: Hold) -> str:
    if one.lifted_at is not None:
        return f"lifted {one.lifted_at:%Y-%m-%d}"
    asked = ", its end was asked for: a second person has to agree" if one.release_asked_at else ""
    return f"active, review {one.review_at:%Y-%m-%d}{asked}"
