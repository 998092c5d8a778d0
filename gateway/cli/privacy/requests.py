"""`fl-gateway privacy requests`: open, look at and move data-protection requests at the machine itself."""

from __future__ import annotations

import json
from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any

import click

from audit.draft import Personal
from compliance.requests.cases import Case, RequestType, Status
from compliance.requests.desk import PrivacyDesk
from compliance.requests.listing import CaseFilter
from compliance.requests.reasons import Exemption, Refusal
from gateway.auth.people.place import subject_of_user
from gateway.cli.opening import open_console
from gateway.cli.privacy.words import Words
from gateway.places import ClientBook
from gateway.privacy import privacy_desk
from gateway.services import Services
from gateway.trail import SYSTEM

_CONSOLE = Personal(SYSTEM, "console")
_AS_JSON = click.option("--json", "as_json", is_flag=True, help="Print JSON for machines.")
_VERSION = click.option("--version", type=int, help="The version you have read; another one is refused.")
_TYPES = click.Choice([kind.value for kind in RequestType])
_MOST = 200


@click.group()
def requests() -> None:
    """The requests themselves: their states, their owners, their clock."""


@requests.command("open")
@click.argument("kind", metavar="TYPE", type=_TYPES)
@click.argument("whose", metavar="CLIENT_ID|USER_ID", required=False)
@click.option(
    "--reference",
    type=Words(200),
    help="A silo's own name of a person whom the gateway cannot identify (Art. 11).",
)
@click.option("--silo", metavar="CLIENT_ID", help="The silo that knows the person behind --reference.")
@click.option(
    "--received",
    type=click.DateTime(["%Y-%m-%d", "%Y-%m-%dT%H:%M:%S%z"]),
    help="The day on which it reached you, if that was before today.",
)
@click.option("--correction", metavar="JSON", help="What a rectification puts right, as a JSON object.")
@_AS_JSON
def open_request(
    *,
    kind: str,
    whose: str | None,
    reference: str | None,
    silo: str | None,
    received: datetime | None,
    correction: str | None,
    as_json: bool,
) -> None:
    """Take a request down: about a client or an account, or about somebody whom only a silo knows."""
    if (reference is None) != (silo is None) or (whose is None) == (silo is None):
        raise click.UsageError("name a client or an account, or --reference with --silo")
    with open_console() as services:
        desk = privacy_desk(services)
        case = desk.open(
            kind,
            _subject(services, whose or silo or ""),
            requested_by=_CONSOLE,
            received_at=_moment(desk, received),
            reference=reference,
            correction=_correction(correction),
        )
        _tell(desk, case, as_json=as_json)


@requests.command("list")
@click.option(
    "--status", type=click.Choice([status.value for status in Status]), help="Only those in a state."
)
@click.option("--type", "kind", type=_TYPES, help="Only those of a type.")
@click.option("--unowned", is_flag=True, help="Only those that nobody has in hand.")
@_AS_JSON
def list_requests(*, status: str | None, kind: str | None, unowned: bool, as_json: bool) -> None:
    """List the requests, those due first first."""
    wanted = CaseFilter(
        status=Status(status) if status else None,
        type=RequestType(kind) if kind else None,
        is_owned=False if unowned else None,
    )
    with open_console() as services:
        desk = privacy_desk(services)
        found, total = desk.page(wanted, limit=_MOST)
        told = [_facts(desk, case) for case in found]
    if as_json:
        click.echo(json.dumps({"data": told, "total": total}))
        return
    for facts in told:
        clock = "" if facts["days_left"] is None else " due {due_at}  {days_left} days left".format(**facts)
        click.echo(("{id}  {type:<13} {status:<17}".format(**facts) + clock).rstrip())
    click.echo(f"{total} request{'' if total == 1 else 's'}")


@requests.command()
@click.argument("case_id", metavar="REQUEST_ID", type=click.UUID)
@_AS_JSON
def show(*, case_id: object, as_json: bool) -> None:
    """Show a request as it stands."""
    with open_console() as services:
        desk = privacy_desk(services)
        _tell(desk, desk.show(str(case_id)), as_json=as_json)


@requests.command()
@click.argument("case_id", metavar="REQUEST_ID", type=click.UUID)
def statement(*, case_id: object) -> None:
    """Print the signed statement about a person whom the gateway cannot identify."""
    with open_console() as services:
        click.echo(privacy_desk(services).statement(str(case_id)))


def _moving(name: str, meaning: str) -> None:
    """A command for a move that needs nothing beside the request."""

    @requests.command(name, help=meaning)
    @click.argument("case_id", metavar="REQUEST_ID", type=click.UUID)
    @_VERSION
    @_AS_JSON
    def move(*, case_id: object, version: int | None, as_json: bool) -> None:
        _move(lambda desk: getattr(desk, name)(str(case_id), by=_CONSOLE, version=version), as_json=as_json)


for _name, _meaning in (
    ("take", "Take a request in hand: you answer for it."),
    ("identify", "Ask the person for proof of who they are; the clock stands still."),
    ("review", "Look at a request: the person is known, and the clock goes on."),
    ("withdraw", "End a request that the person takes back."),
    ("resume", "Take up a request that rested."),
):
    _moving(_name, _meaning)


@requests.command()
@click.argument("case_id", metavar="REQUEST_ID", type=click.UUID)
@_VERSION
@_AS_JSON
def approve(*, case_id: object, version: int | None, as_json: bool) -> None:
    """Approve a request, and have it carried out once enough people have."""

    def approved(desk: PrivacyDesk) -> Case:
        return desk.run(desk.approve(str(case_id), by=_CONSOLE, version=version).id, patience_s=10.0)

    _move(approved, as_json=as_json)


@requests.command()
@click.argument("case_id", metavar="REQUEST_ID", type=click.UUID)
@click.argument("reason", type=click.Choice([reason.value for reason in Refusal]))
@click.option(
    "--exemption",
    type=click.Choice([letter.value for letter in Exemption]),
    help="With `exempt`: the letter of Art. 17(3).",
)
@click.option("--note", type=Words(), help="What else is to be remembered; it is kept sealed.")
@_VERSION
@_AS_JSON
def refuse(
    *,
    case_id: object,
    reason: str,
    exemption: str | None,
    note: str | None,
    version: int | None,
    as_json: bool,
) -> None:
    """Refuse a request on one of the grounds that the GDPR knows."""
    letter = Exemption(exemption) if exemption else None

    def refused(desk: PrivacyDesk) -> Case:
        ground = Refusal(reason)
        return desk.refuse(
            str(case_id), by=_CONSOLE, reason=ground, exemption=letter, note=note or "", version=version
        )

    _move(refused, as_json=as_json)


@requests.command()
@click.argument("case_id", metavar="REQUEST_ID", type=click.UUID)
@click.option("--reason", type=Words(), required=True, help="Why it rests; it is kept sealed.")
@_VERSION
@_AS_JSON
def hold(*, case_id: object, reason: str, version: int | None, as_json: bool) -> None:
    """Let a request rest; its clock does not."""
    _move(lambda desk: desk.hold(str(case_id), by=_CONSOLE, reason=reason, version=version), as_json=as_json)


@requests.command()
@click.argument("case_id", metavar="REQUEST_ID", type=click.UUID)
@click.option(
    "--reason", type=Words(), required=True, help="Why the answer takes so long; it is kept sealed."
)
@click.option(
    "--notice", type=Words(), required=True, help="How and when you told the person so; it is kept sealed."
)
@_VERSION
@_AS_JSON
def extend(*, case_id: object, reason: str, notice: str, version: int | None, as_json: bool) -> None:
    """Let the answer be due three months after receipt: once, and inside the first month."""
    _move(
        lambda desk: desk.extend(str(case_id), by=_CONSOLE, reason=reason, notice=notice, version=version),
        as_json=as_json,
    )


def _move(move: Callable[[PrivacyDesk], Case], *, as_json: bool) -> None:
    with open_console() as services:
        desk = privacy_desk(services)
        _tell(desk, move(desk), as_json=as_json)


def _subject(services: Services, whose: str) -> str:
    found = ClientBook(services).subject_of(whose) or subject_of_user(services, whose)
    if found is None:
        raise click.UsageError("there is no such client or account, or it was erased")
    return found


def _moment(desk: PrivacyDesk, received: datetime | None) -> datetime | None:
    """A day without a time begins in the controller's zone."""
    if received is None or received.tzinfo is not None:
        return received
    return desk.calendar.start_of(received.date())


def _correction(text: str | None) -> dict[str, Any] | None:
    if text is None:
        return None
    try:
        found = json.loads(text)
    except ValueError:
        found = None
    if not isinstance(found, dict):
        raise click.UsageError("--correction must be a JSON object")
    return found


def _facts(desk: PrivacyDesk, case: Case) -> dict[str, Any]:
    given, needed = desk.approvals_given(case), desk.approvals_needed(case)
    return {
        **case.public(),
        "days_left": desk.days_left(case),
        "approvals_given": given,
        "approvals_needed": needed,
    }


def _tell(desk: PrivacyDesk, case: Case, *, as_json: bool) -> None:
    facts = _facts(desk, case)
    if as_json:
        click.echo(json.dumps(facts))
        return
    click.echo(f"request {case.id}: {case.type.value}, {case.status.value}")
    if case.is_open:
        due = case.due_at.astimezone(UTC).isoformat(timespec="seconds")
        click.echo(f"due {due}, {facts['days_left']} days left{' (paused)' if case.paused_at else ''}")
    if facts["approvals_given"] < facts["approvals_needed"]:
        click.echo(f"approvals: {facts['approvals_given']} of {facts['approvals_needed']}")
    if case.duplicate_of:
        click.echo(f"like the open request {case.duplicate_of}")
