"""`fl-gateway privacy export|erase`: answer an access or erasure request at the machine itself."""

from __future__ import annotations

import json
import os
import stat
import sys
from pathlib import Path
from typing import IO
from uuid import UUID

import click

from audit.draft import Personal
from compliance.erasures.commitment import hand_over
from compliance.packages.handing_out import Way
from compliance.requests.cases import Case, RequestType, Status
from gateway.auth.people.place import subject_of_user
from gateway.cli.opening import open_console
from gateway.places import ClientBook
from gateway.privacy import desk_parts, privacy_desk
from gateway.services import Services
from gateway.trail import SYSTEM

_CONSOLE = Personal(SYSTEM, "console")
_NEEDS = {
    Status.IN_REVIEW: "a second person's approval, in the console or over the API: this machine counts as one",
    Status.ON_HOLD: "the end of a legal hold: see fl-gateway privacy hold list; it goes on by itself then",
}
_AS_JSON = click.option("--json", "as_json", is_flag=True, help="Print JSON for machines.")


@click.command()
@click.argument("whose", metavar="CLIENT_ID|USER_ID")
@click.option(
    "-o", "--output", type=click.Path(dir_okay=False, path_type=Path), required=True, help="The ZIP file."
)
@click.option("--portable", is_flag=True, help="Only what the person may take along (Art. 20).")
@_AS_JSON
def export(*, whose: str, output: Path, portable: bool, as_json: bool) -> None:
    """Write everything that is kept of the person behind a client or an account (Art. 15, 20)."""
    kind = RequestType.PORTABILITY if portable else RequestType.ACCESS
    with open_console() as services:
        case = _carried_out(services, kind, whose)
        package = privacy_desk(services).packages.fetch(case.id, Way.CONSOLE)
        with services.blobs.reader(package.blob_id, package.key) as blob, _private(output) as file:
            for start in range(0, blob.size_bytes, 1 << 20):
                file.write(blob.read_at(start, min(1 << 20, blob.size_bytes - start)))
    _tell(case, {"package": str(output)}, as_json=as_json)


@click.command()
@click.argument("whose", metavar="CLIENT_ID|USER_ID")
@_AS_JSON
def erase(*, whose: str, as_json: bool) -> None:
    """Erase the person behind a client or an account (Art. 17); exit 1 while something must stay."""
    with open_console() as services:
        case = _carried_out(services, RequestType.ERASURE, whose)
    beside = {"receipt": case.receipt, "last_error": case.last_error, "needs": _NEEDS.get(case.status)}
    _tell(case, beside, as_json=as_json)
    if case.status is not Status.COMPLETED:
        sys.exit(1)


@click.command("commitment-key")
@click.argument("request_id", type=click.UUID)
@_AS_JSON
def commitment_key(*, request_id: UUID, as_json: bool) -> None:
    """Hand over, once, the key by which the person shows that the receipt of REQUEST_ID is about them."""
    with open_console() as services:
        given = hand_over(desk_parts(services), str(request_id), by=_CONSOLE)
    told = {"algorithm": "HMAC-SHA256", "key": given.key, "subject_id": given.subject_id}
    if as_json:
        click.echo(json.dumps(told))
        return
    for name, value in told.items():
        click.echo(f"{name}: {value}")


def _private(path: Path) -> IO[bytes]:
    """A file that nobody else on this machine can read, also if it was there before."""
    opened = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
    if stat.S_ISREG(os.fstat(opened).st_mode):
        os.fchmod(opened, 0o600)
    return os.fdopen(opened, "wb")


def _carried_out(services: Services, kind: RequestType, whose: str) -> Case:
    subject = ClientBook(services).subject_of(whose) or subject_of_user(services, whose)
    if subject is None:
        raise click.UsageError("there is no such client or account, or it was erased")
    desk = privacy_desk(services)
    case = desk.open(kind, subject, requested_by=_CONSOLE)
    return desk.run(desk.approve(case.id, by=_CONSOLE).id, patience_s=10.0)


def _tell(case: Case, beside: dict[str, str | None], *, as_json: bool) -> None:
    if as_json:
        click.echo(json.dumps({**case.public(), **beside}))
        return
    click.echo(f"request {case.id}: {case.status.value}")
    for name, value in beside.items():
        if value is not None:
            click.echo(f"{name}: {value}")
