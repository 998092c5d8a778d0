"""`fl-gateway client`: add, list, change, suspend, resume and revoke clients; works beside a running `serve`."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import click

from gateway.auth.client_changes import ClientChange, change_client
from gateway.auth.client_keys import rotate_api_key
from gateway.auth.clients import Move, add_client, move_client
from gateway.auth.proof.terms import ADDABLE, TokenFormat
from gateway.auth.roster import AuthMethod, ClientRecord, client_id_of, list_clients
from gateway.auth.scopes import NOT_BY_NAME, Role, ScopeRefused, given_by_name, scopes_with
from gateway.cli.opening import open_console

_ROLES = click.Choice([role.value for role in Role])
_METHODS = click.Choice([method.value for method in ADDABLE])
_FORMATS = click.Choice([token_format.value for token_format in TokenFormat])
_KEYS = click.option(
    "--jwks",
    "key_file",
    type=click.Path(path_type=Path, dir_okay=False),
    help="File with its public keys, a JWK set.",
)
_SUBJECT = click.option(
    "--subject-dn", help="Subject of its certificate as RFC 4514 writes it, such as CN=silo-a,O=Hospital."
)
_REDIRECTS = click.option(
    "--redirect-uri",
    "redirect_uris",
    multiple=True,
    help="Where codes of people may be sent, compared exactly; repeat it.",
)
_AS_JSON = click.option("--json", "as_json", is_flag=True, help="Print JSON for machines.")
_PAGE = 200
_LONGEST_KEY_SET = 1 << 18


@click.group("client")
def client() -> None:
    """The clients of the federation: who may come in, and as what."""


@client.command("add")
@click.argument("name")
@click.option("--role", type=_ROLES, required=True, help="What it may do.")
@click.option(
    "--auth",
    type=_METHODS,
    default=AuthMethod.CLIENT_SECRET.value,
    show_default=True,
    help="How it proves itself.",
)
@_KEYS
@_SUBJECT
@click.option(
    "--token",
    "token_format",
    type=_FORMATS,
    default=TokenFormat.OPAQUE.value,
    show_default=True,
    help="What its access tokens are.",
)
@_REDIRECTS
@click.option(
    "--scope",
    "extra",
    multiple=True,
    metavar="SCOPE",
    help="A scope beyond the role's, given by name, such as audit:reveal; repeat it.",
)
@_AS_JSON
def add(*, name: str, role: str, auth: str, key_file: Path | None, as_json: bool, **terms: Any) -> None:
    """Add a client called NAME and print its id and its secret, if it has one, this once.

    Participants, edges and operators get an API key too, which registers devices and does nothing else.
    """
    if not 0 < len(name) <= 200:
        raise click.UsageError("NAME must have 1 to 200 characters")
    jwks = _key_set(key_file)
    with open_console() as services:
        try:
            new = add_client(services, name, Role(role), auth=AuthMethod(auth), jwks=jwks, **terms)
        except ScopeRefused:
            raise click.UsageError(NOT_BY_NAME) from None
    secrets = {"client_secret": new.client_secret, "api_key": new.api_key}
    told = {"client_id": new.client_id} | {label: value for label, value in secrets.items() if value}
    if as_json:
        click.echo(json.dumps(told))
        return
    for label, value in told.items():
        click.echo(f"{label + ':':<15}{value}")
    given = given_by_name(Role(role), terms["extra"])
    click.echo(f"{'scopes:':<15}{' '.join(scopes_with(Role(role), given))}")
    if len(told) > 1:
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
        click.echo(
            f"{record.client_id}  {record.role:<11}  {record.status:<9}  {_harmless(record.name or '-')}"
        )


@client.command("change")
@click.argument("client_name", metavar="CLIENT")
@_KEYS
@_SUBJECT
@click.option("--rotate-secret", "rotates_secret", is_flag=True, help="Give it a new secret.")
@click.option("--rotate-api-key", "rotates_api_key", is_flag=True, help="Give it a new API key.")
@_REDIRECTS
@click.option("--no-redirect-uris", is_flag=True, help="Let it act for people no more.")
@_AS_JSON
def change(
    *,
    client_name: str,
    key_file: Path | None,
    subject_dn: str | None,
    rotates_secret: bool,
    rotates_api_key: bool,
    redirect_uris: tuple[str, ...],
    no_redirect_uris: bool,
    as_json: bool,
) -> None:
    """Change what CLIENT (an id or a name) proves itself with, or where codes of people may be sent.

    What is given takes the place of all there was; with another proof, or without redirect URIs, its tokens fail
    at once.
    """
    if redirect_uris and no_redirect_uris:
        raise click.UsageError("--redirect-uri and --no-redirect-uris exclude each other")
    wished = redirect_uris if redirect_uris or no_redirect_uris else None
    asked = ClientChange(_key_set(key_file), subject_dn, rotates_secret, wished)
    if rotates_api_key and asked.names:
        raise click.UsageError(
            "--rotate-api-key stands alone: if one of two changes failed, a secret would be lost"
        )
    with open_console() as services:
        client_id = client_id_of(services, client_name)
        if rotates_api_key:
            secrets = {"api_key": rotate_api_key(services, client_id)}
        else:
            secret = change_client(services, client_id, asked)
            secrets = {"client_secret": secret} if secret else {}
    changed = ["api_key"] if rotates_api_key else asked.names
    if as_json:
        click.echo(json.dumps({"client_id": client_id, "changed": changed, **secrets}))
        return
    click.echo(f"{client_id} has another {', another '.join(changed)}")
    for label, value in secrets.items():
        click.echo(f"{label + ':':<15}{value}")
    if secrets:
        click.echo("Keep the secrets now: they are not shown again.", err=True)


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


def _key_set(path: Path | None) -> Any:
    """The JSON value in the file; None without one."""
    if path is None:
        return None
    try:
        if path.stat().st_size > _LONGEST_KEY_SET:
            raise click.UsageError(f"{path} is too long for a JWK set")
        return json.loads(path.read_text("utf-8"))
    except OSError as error:
        raise click.UsageError(f"{path} cannot be read: {error.strerror}") from None
    except (ValueError, RecursionError):
        raise click.UsageError(f"{path} is no JSON, hence no JWK set") from None


def _move(client_name: str, move: Move, *, as_json: bool) -> None:
    with open_console() as services:
        client_id = client_id_of(services, client_name)
        status = move_client(services, client_id, move)
    if as_json:
        click.echo(json.dumps({"client_id": client_id, "status": status.value}))
    else:
        click.echo(f"{client_id} is {status.value}")


def _harmless(name: str) -> str:
    """A name as a terminal may see it: devices choose theirs freely."""
    return "".join(letter if letter.isprintable() else "?" for letter in name)


def _told(record: ClientRecord) -> dict[str, Any]:
    seen = record.last_seen_at
    return {
        "client_id": record.client_id,
        "subject_id": record.subject_id,
        "name": record.name,
        "role": record.role.value,
        "status": record.status.value,
        "auth_method": record.auth_method.value,
        "token_format": record.token_format,
        "redirect_uris": list(record.redirect_uris),
        "registered_at": record.registered_at.isoformat(),
        "last_seen_at": seen.isoformat() if seen else None,
    }
