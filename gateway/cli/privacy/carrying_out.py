"""`fl-gateway privacy export|erase`: answer an access or erasure request at the machine itself."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import click

from audit.draft import Personal
from compliance.requests.cases import Case, RequestType, Status
from gateway.auth.people.place import subject_of_user
from gateway.cli.opening import open_console
from gateway.places import ClientBook
from gateway.privacy import privacy_desk
from gateway.services import Services
from gateway.trail import SYSTEM

_CONSOLE = Personal(SYSTEM, "console")
_AS_JSON = click.option("--json", "as_json", is_flag=True, help="Print JSON for machines.")


@click.command()
@click.argument("whose", metavar="CLIENT_ID|USER_ID")
@click.option(
    "-o", "--output", type=click.Path(dir_okay=False, path_type=Path), required=True, help="The ZIP file."
)
@_AS_JSON
def export(*, whose: str, output: Path, as_json: bool) -> None:
    """Write everything that is kept of the person behind a client or an account (Art. 15, 20)."""
    with open_console() as services:
        case = _carried_out(services, RequestType.ACCESS, whose)
        package = privacy_desk(services).package(case.id)
        with services.blobs.reader(package.blob_id, package.key) as blob, output.open("wb") as file:
            for start in range(0, blob.size_bytes, 1 << 20):
                file.write(blob.read_at(start, min(1 << 20, blob.size_bytes - start)))
    _tell(case, {"package": str(output)}, as_json=as_json)


@click.command()
@click.argument("whose", metavar="CLIENT_ID|USER_ID")
@_AS_JSON
def erase(*, whose: str, as_json: bool) -> None:
    """Erase the person behind a client or an account (Art. 17); exit 1 if something must stay until a round ends."""
    with open_console() as services:
        case = _carried_out(services, RequestType.ERASURE, whose)
    _tell(case, {"receipt": case.receipt}, as_json=as_json)
    if case.status is not Status.COMPLETED:
        sys.exit(1)


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
        click.echo(f"{name}: {value}")
