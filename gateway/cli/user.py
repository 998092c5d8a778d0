"""`fl-gateway user`: add, list, change, suspend, resume, revoke people of the staff; works beside a running `serve`."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import click

from gateway.auth.people.accounts import (
    Account,
    Move,
    Proofs,
    add_person,
    change_person,
    move_person,
    user_id_of,
)
from gateway.auth.people.openid_settings import read_provider
from gateway.auth.people.passwords import LONGEST, SHORTEST, BadPassword, Passwords
from gateway.auth.people.person import STAFF, BadName, PersonRecord, list_people
from gateway.auth.scopes import NOT_BY_NAME, Role, ScopeRefused, scopes_with
from gateway.cli.opening import open_console
from gateway.services import Services

_ROLES = click.Choice(sorted(role.value for role in STAFF))
_SCOPES = click.option(
    "--scope",
    "extra",
    multiple=True,
    metavar="SCOPE",
    help="A scope beyond the role's, given by name, such as audit:reveal; repeat it.",
)
_AS_JSON = click.option("--json", "as_json", is_flag=True, help="Print JSON for machines.")
_PASSWORD_FILE = click.option(
    "--password-file",
    type=click.Path(path_type=Path, exists=True, dir_okay=False, allow_dash=True),
    help="File whose first line is the password; - reads standard input.",
)
_SUBJECT = click.option(
    "--openid-subject", metavar="SUB", help="Who the person is to the OpenID provider (its claim `sub`)."
)


@click.group("user")
def user() -> None:
    """The people of the staff: who may sign in, and as what."""


@user.command("add")
@click.argument("name")
@click.option("--role", type=_ROLES, required=True, help="What the person may do.")
@_PASSWORD_FILE
@_SUBJECT
@click.option("--no-totp", is_flag=True, help="No second factor: a password alone lets the person in.")
@_SCOPES
@_AS_JSON
def add(
    *,
    name: str,
    role: str,
    password_file: Path | None,
    openid_subject: str | None,
    no_totp: bool,
    extra: tuple[str, ...],
    as_json: bool,
) -> None:
    """Add a person who signs in as NAME, and print the secret of the second factor, this once.

    The password is asked for on a terminal, or read from a file. A person with --openid-subject needs none.
    """
    password = _password(password_file, is_needed=openid_subject is None)
    with open_console() as services, _usage():
        proofs = Proofs(password, not no_totp, _outside(services, openid_subject))
        added = add_person(services, name, Role(role), proofs, passwords=Passwords(), extra=extra)
    _tell(added, as_json=as_json)
    if password is not None and no_totp:
        click.echo("Without a second factor, whoever learns the password is let in.", err=True)


@user.command("change")
@click.argument("user_name", metavar="USER")
@click.option("--role", type=_ROLES, help="Another role.")
@click.option("--new-password", is_flag=True, help="Ask for a new password on this terminal.")
@_PASSWORD_FILE
@click.option("--new-totp", "totp", flag_value="new", default=None, help="A new second factor.")
@click.option("--no-totp", "totp", flag_value="none", help="No second factor any more.")
@_SUBJECT
@_SCOPES
@click.option("--no-scopes", is_flag=True, help="Take away every scope that was given by name.")
@_AS_JSON
def change(
    *,
    user_name: str,
    role: str | None,
    new_password: bool,
    password_file: Path | None,
    totp: str | None,
    openid_subject: str | None,
    extra: tuple[str, ...],
    no_scopes: bool,
    as_json: bool,
) -> None:
    """Change how USER (an id or a name) signs in, or as what; its sessions and tokens end at once.

    Scopes that are given take the place of those given before; another role begins without any.
    """
    if extra and no_scopes:
        raise click.UsageError("--scope and --no-scopes exclude each other")
    password = _password(password_file, is_needed=new_password)
    with open_console() as services, _usage():
        has_totp = None if totp is None else totp == "new"
        proofs = Proofs(password, has_totp, _outside(services, openid_subject))
        user_id = user_id_of(services, user_name)
        new_role = Role(role) if role else None
        given = extra if extra or no_scopes else None
        changed = change_person(services, user_id, proofs, role=new_role, passwords=Passwords(), extra=given)
    _tell(changed, as_json=as_json)


@user.command("list")
@_AS_JSON
def show(*, as_json: bool) -> None:
    """List the people, oldest first."""
    with open_console() as services:
        found = list_people(services)
    if as_json:
        click.echo(json.dumps([_told(record) for record in found]))
        return
    for record in found:
        ways = " ".join(_ways(record))
        click.echo(
            f"{record.user_id}  {record.role:<8}  {record.status:<9}  {ways:<20}  {record.name or '-'}"
        )


@user.command("suspend")
@click.argument("user_name", metavar="USER")
@_AS_JSON
def suspend(*, user_name: str, as_json: bool) -> None:
    """Shut USER (an id or a name) out until resumed; sessions and tokens end at once."""
    _move(user_name, Move.SUSPEND, as_json=as_json)


@user.command("resume")
@click.argument("user_name", metavar="USER")
@_AS_JSON
def resume(*, user_name: str, as_json: bool) -> None:
    """Let a suspended USER (an id or a name) sign in again."""
    _move(user_name, Move.RESUME, as_json=as_json)


@user.command("revoke")
@click.argument("user_name", metavar="USER")
@_AS_JSON
def revoke(*, user_name: str, as_json: bool) -> None:
    """End the access of USER (an id or a name) for good; sessions and tokens end at once."""
    _move(user_name, Move.REVOKE, as_json=as_json)


def _move(user_name: str, move: Move, *, as_json: bool) -> None:
    with open_console() as services:
        user_id = user_id_of(services, user_name)
        status = move_person(services, user_id, move)
    if as_json:
        click.echo(json.dumps({"user_id": user_id, "status": status.value}))
    else:
        click.echo(f"{user_id} is {status.value}")


class _usage:  # noqa: N801 - reads as a word of the `with` statement
    """What a person may mend in the command becomes a usage error (exit 2)."""

    def __enter__(self) -> None:
        """Begin."""

    def __exit__(self, _kind: object, error: BaseException | None, _trace: object) -> None:
        if isinstance(error, BadName | BadPassword):
            raise click.UsageError(str(error)) from None
        if isinstance(error, ScopeRefused):
            raise click.UsageError(NOT_BY_NAME) from None


def _password(path: Path | None, *, is_needed: bool) -> str | None:
    """The password from its file, or from the terminal where there is one."""
    if path is not None:
        with click.open_file(str(path), "rb") as lines:
            line = bytes(lines.readline(4096))
        try:
            return line.decode().rstrip("\r\n")
        except UnicodeDecodeError:
            raise click.UsageError("the password's file must be UTF-8") from None
    if not is_needed:
        return None
    if not sys.stdin.isatty():
        raise click.UsageError("there is no terminal to ask for the password: give --password-file")
    asked: str = click.prompt(
        f"Password ({SHORTEST} to {LONGEST} characters)", hide_input=True, confirmation_prompt=True
    )
    return asked


def _outside(services: Services, subject: str | None) -> tuple[str, str] | None:
    """The person at the configured provider."""
    if subject is None:
        return None
    provider = read_provider(services.config)
    if provider is None:
        raise click.UsageError("--openid-subject needs FLG_OPENID_PROVIDER")
    return provider.issuer, subject


def _tell(account: Account, *, as_json: bool) -> None:
    told = {"user_id": account.user_id}
    if account.totp_secret is not None and account.totp_uri is not None:
        told |= {"totp_secret": account.totp_secret, "totp_uri": account.totp_uri}
    if as_json:
        click.echo(json.dumps(told))
        return
    for label, value in told.items():
        click.echo(f"{label + ':':<13}{value}")
    click.echo(f"{'scopes:':<13}{' '.join(scopes_with(account.role, account.extra))}")
    if account.totp_secret is not None:
        click.echo("Put the secret into an authenticator app now: it is not shown again.", err=True)


def _told(record: PersonRecord) -> dict[str, Any]:
    seen = record.last_seen_at
    return {
        "user_id": record.user_id,
        "subject_id": record.subject_id,
        "name": record.name,
        "role": record.role.value,
        "status": record.status.value,
        "signs_in_with": _ways(record),
        "extra_scopes": [*record.extra],
        "added_at": record.added_at.isoformat(),
        "last_seen_at": seen.isoformat() if seen else None,
    }


def _ways(record: PersonRecord) -> list[str]:
    facts = {"password": record.has_password, "totp": record.has_second_factor, "openid": record.has_provider}
    return [name for name, is_so in facts.items() if is_so]
