"""`fl-gateway client`: add, list, suspend, resume and revoke clients; works beside a running `serve`."""

from __future__ import annotations

import json
from typing import Any

import click

from gateway.auth.clients import Move, add_client, move_client
from gateway.auth.roster import ClientRecord, client_id_of, list_clients
from gateway.auth.scopes import BUNDLES, Role
from gateway.cli.opening import open_console

_ROLES = click.Choice([role.value for role in Role])
_AS_JSON = click.option("--json", "as_json", is_flag=True, help="Print JSON for machines.")
_PAGE = 200


@click.group("client")
def client() -> None:
    """The clients of the federation: who may come in, and as what."""


@client.command("add")
@click.argument("name")
@click.option("--role", type=_ROLES, required=True, help="What it may do.")
@_AS_JSON
def add(*, name: str, role: str, as_json: bool) -> None:
    """Add a client called NAME and print its id and secret, this once.

    Participants, edges and operators get an API key too, which registers devices and does nothing else.
    """
    if not 0 < len(name) <= 200:
        raise click.UsageError("NAME must have 1 to 200 characters")
    with open_console() as services:
        new = add_client(services, name, Role(role))
    told = {"client_id": new.client_id, "client_secret": new.client_secret}
    if new.api_key is not None:
        told["api_key"] = new.api_key
    if as_json:
        click.echo(json.dumps(told))
        return
    for label, value in told.items():
        click.echo(f"{label + ':':<15}{value}")
    click.echo(f"{'scopes:':<15}{' '.join(BUNDLES[Role(role)])}")
    click.echo("Keep the secrets now: they are not shown again.", err=True)


@client.command("list")
@_AS_JSON
def show(*, as_json: bool) -> None:
    """List the clients, oldest first."""
    with open_console() as services:
        found, number = [], 1
        while len(batch := list_clients(services, page=number, per_page=_PAGE)[0]) > 0:
            found += batch
            number += 1
    if as_json:
        click.echo(json.dumps([_told(record) for record in found]))
        return
    for record in found:
        click.echo(f"{record.client_id}  {record.role:<11}  {record.status:<9}  {record.name or '-'}")


@client.command("suspend")
@click.argument("client_name", metavar="CLIENT")
@_AS_JSON
def suspend(*, client_name: str, as_json: bool) -> None:
    """Shut CLIENT (an id or a name) out until it is resumed; its tokens fail at once."""
    _move(client_name, Move.SUSPEND, as_json=as_json)


@client.command("resume")
@click.argument("client_name", metavar="CLIENT")
@_AS_JSON
def resume(*, client_name: str, as_json: bool) -> None:
    """Let a suspended CLIENT (an id or a name) in again."""
    _move(client_name, Move.RESUME, as_json=as_json)


@client.command("revoke")
@click.argument("client_name", metavar="CLIENT")
@_AS_JSON
def revoke(*, client_name: str, as_json: bool) -> None:
    """End the access of CLIENT (an id or a name) for good; its tokens fail at once."""
    _move(client_name, Move.REVOKE, as_json=as_json)


def _move(client_name: str, move: Move, *, as_json: bool) -> None:
    with open_console() as services:
        client_id = client_id_of(services, client_name)
        status = move_client(services, client_id, move)
    if as_json:
        click.echo(json.dumps({"client_id": client_id, "status": status.value}))
    else:
        click.echo(f"{client_id} is {status.value}")


def _told(record: ClientRecord) -> dict[str, Any]:
    seen = record.last_seen_at
    return {
        "client_id": record.client_id,
        "subject_id": record.subject_id,
        "name": record.name,
        "role": record.role.value,
        "status": record.status.value,
        "registered_at": record.registered_at.isoformat(),
        "last_seen_at": seen.isoformat() if seen else None,
    }
