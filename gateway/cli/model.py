"""`fl-gateway model`: the first model of a lineage, its versions, and the way back to an earlier one."""

from __future__ import annotations

import json
from collections.abc import Iterator
from decimal import Decimal, InvalidOperation
from pathlib import Path
from typing import Any
from uuid import UUID

import click

from aggregation.errors import BadFormat
from audit.reading import reading
from compliance.erasures.progress import Progress
from gateway.cli.opening import open_console
from gateway.influence import versions_before
from gateway.paths import insist_version
from gateway.places import ClientBook
from gateway.privacy import privacy_desk
from gateway.rounds.lineage import ModelVersion, list_versions
from gateway.rounds.publishing import ModelWish, add_model
from gateway.rounds.publishing import promote as make_current
from gateway.services import Services

_AS_JSON = click.option("--json", "as_json", is_flag=True, help="Print JSON for machines.")


class _Positive(click.ParamType[Decimal]):
    name = "decimal"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Decimal:
        try:
            number = Decimal(str(value))
        except InvalidOperation:
            self.fail(f"{value} is no decimal number", param, ctx)
        if not (number.is_finite() and number > 0):
            self.fail(f"{value} is not above 0", param, ctx)
        return number


@click.group()
def model() -> None:
    """Models and their versions."""


@model.command()
@click.argument("file", type=click.Path(exists=True, dir_okay=False, path_type=Path))
@click.option("--name", default="model", show_default=True, help="What the lineage is called.")
@click.option("--epsilon", type=_Positive(), help="Privacy budget of the lineage.")
@click.option("--delta", type=_Positive(), help="Delta of the budget.")
@_AS_JSON
def add(*, file: Path, name: str, epsilon: Decimal | None, delta: Decimal | None, as_json: bool) -> None:
    """Register the safetensors FILE as the first model of a lineage."""
    if (epsilon is None) != (delta is None):
        raise click.UsageError("--epsilon and --delta go together")
    with open_console() as services:
        try:
            made = add_model(services, _chunks(file), None, ModelWish(name, epsilon, delta))
        except BadFormat as error:
            raise click.UsageError(f"{file}: {error}") from error
    _print(made, as_json=as_json)


@model.command("list")
@_AS_JSON
def show(*, as_json: bool) -> None:
    """List the versions, the newest first."""
    with open_console() as services, reading(services.engine) as conn:
        found, _ = list_versions(conn, limit=1000, offset=0)
    if as_json:
        click.echo(json.dumps([_told(version) for version in found]))
        return
    for version in found:
        made_by = "uploaded" if version.round_number is None else f"round {version.round_number}"
        accuracy = "" if version.accuracy is None else f"  accuracy {version.accuracy:.4f}"
        click.echo(f"{version.version:<10}{made_by:<12}{version.checksum[:16]}{accuracy}")


@model.command()
@click.argument("version")
@_AS_JSON
def promote(*, version: str, as_json: bool) -> None:
    """Make VERSION the base of its lineage's next round: a roll-back, or forward again."""
    with open_console() as services:
        chosen = make_current(services, insist_version(version))
    _print(chosen, as_json=as_json)


@model.command()
@click.option(
    "--before-client", "client_id", type=click.UUID, help="A client, and all others of the same person."
)
@click.option(
    "--before-erasure", "request_id", type=click.UUID, help="The request of an erasure that has ended."
)
@_AS_JSON
def rollback(*, client_id: UUID | None, request_id: UUID | None, as_json: bool) -> None:
    """Go back, in each model, to the last version before the first round that counted a person's update."""
    if (client_id is None) == (request_id is None):
        raise click.UsageError("give either --before-client or --before-erasure")
    with open_console() as services:
        versions = _before_client(services, client_id) if client_id else _before_erasure(services, request_id)
        chosen = [make_current(services, version) for version in versions]
    if as_json:
        click.echo(json.dumps([_told(version) for version in chosen]))
        return
    for version in chosen:
        _print(version, as_json=False)
    if not chosen:
        click.echo(
            "nothing that is kept tells of a model that counted an update of this person: nothing was changed"
        )


def _before_client(services: Services, client_id: UUID) -> list[str]:
    subject = ClientBook(services).subject_of(str(client_id))
    if subject is None:
        raise click.UsageError("there is no such client, or it was erased: use --before-erasure")
    return versions_before(services, subject)


def _before_erasure(services: Services, request_id: UUID | None) -> list[str]:
    case = privacy_desk(services).show(str(request_id))
    lines = Progress.read(case.before).models
    return sorted({line.version_before for line in lines if line.version_before is not None})


def _chunks(file: Path) -> Iterator[bytes]:
    with file.open("rb") as stream:
        while chunk := stream.read(1 << 20):
            yield chunk


def _told(version: ModelVersion) -> dict[str, Any]:
    return {
        "model_id": version.model_id,
        "version": version.version,
        "checksum": version.checksum,
        "size_bytes": version.size_bytes,
        "round_number": version.round_number,
        "accuracy": version.accuracy,
        "loss": version.loss,
    }


def _print(version: ModelVersion, *, as_json: bool) -> None:
    if as_json:
        click.echo(json.dumps(_told(version)))
    else:
        click.echo(f"model {version.model_id} version {version.version}, SHA-256 {version.checksum}")
