"""`fl-gateway keys`: what keys there are, and how one follows another; works beside a running `serve`."""

from __future__ import annotations

import json
import re
import time
from datetime import datetime, timedelta

import click

from audit.checkpoint import NoteVerifier
from audit.key_succession import written_time
from compliance.keyring.keys import SigningKeyRow, SigningUse
from gateway.cli.opening import open_console
from gateway.key_rotation import (
    MASTER,
    Rotation,
    begin_announced,
    known_from,
    rotate_master_key,
    rotate_signing_key,
)
from gateway.services import Services

_USES = (MASTER, *(use.value for use in SigningUse))
_AS_JSON = click.option("--json", "as_json", is_flag=True, help="Print JSON for machines.")
_SPAN = re.compile(r"([0-9]{1,6})([dhms])")
_UNITS = {"d": "days", "h": "hours", "m": "minutes", "s": "seconds"}
_LOOK_S = 0.1


class _Span(click.ParamType[timedelta]):
    """A span of time, such as 30d, 12h, 90m or 60s."""

    name = "span"

    def convert(
        self, value: str | timedelta, param: click.Parameter | None, ctx: click.Context | None
    ) -> timedelta:
        """The span that a text spells."""
        if isinstance(value, timedelta):
            return value
        found = _SPAN.fullmatch(value)
        if not found:
            self.fail(f"{value!r} is no span of time: 30d, 12h, 90m, 60s", param, ctx)
        return timedelta(**{_UNITS[found[2]]: int(found[1])})


@click.group()
def keys() -> None:
    """The keys of the gateway: the master key, and those that sign the log, receipts, packages and tokens."""


@keys.command()
@click.argument("use", type=click.Choice(_USES))
@click.option(
    "--both-for",
    type=_Span(),
    default="30d",
    show_default=True,
    help="log: how long the old key signs beside the new one.",
)
@click.option(
    "--wait",
    type=_Span(),
    default="10s",
    show_default=True,
    help="log: how long to wait until the new key begins; a running sequencer takes it up anyway.",
)
@click.option(
    "--grace",
    type=_Span(),
    default="60s",
    show_default=True,
    help="master: how long a running process may still write under the key it knew.",
)
@click.option("--at-once", is_flag=True, help="token: the old key was stolen; everything it signed ends now.")
@_AS_JSON
def rotate(
    *, use: str, both_for: timedelta, wait: timedelta, grace: timedelta, at_once: bool, as_json: bool
) -> None:
    """Let a new key follow the one of USE; after a crash or a refusal, give the command again."""
    if at_once and use != SigningUse.TOKEN:
        raise click.UsageError("--at-once is for the key of tokens")
    with open_console() as services:
        if use == MASTER:
            done = rotate_master_key(services, grace_s=grace.total_seconds())
        else:
            done = rotate_signing_key(services, SigningUse(use), both_for=both_for, at_once=at_once)
            if use == SigningUse.LOG and not done.has_begun:
                done = _await_begin(services, done, wait.total_seconds())
    click.echo(json.dumps(_as_json(done)) if as_json else _told(done))


@keys.command("list")
@_AS_JSON
def show(*, as_json: bool) -> None:
    """List every key with what it does now; no key is shown itself, only its name."""
    with open_console() as services:
        found = [_master(n, kid) for n, kid in enumerate(services.keystore.master.kids)]
        for use in SigningUse:
            in_force = [row.kid for row in services.keystore.signing.in_force(use)]
            found += [_shown(services, row, in_force) for row in services.keystore.signing.rows(use)]
    if as_json:
        click.echo(json.dumps(found))
        return
    for key in found:
        since, where = key.get("since", ""), key.get("held_at", "")
        click.echo(
            f"{key['use']:<8} {key['kid']}  {since:<20}  {key['state']}{f'  {where}' if where else ''}"
        )


def _master(place: int, kid: str) -> dict[str, str]:
    return {"use": MASTER, "kid": kid, "state": "opens what is not wrapped anew yet" if place else "wraps"}


def _shown(services: Services, row: SigningKeyRow, in_force: list[str]) -> dict[str, str]:
    told = {"use": row.use.value, "kid": row.kid, "since": written_time(row.created_at)}
    told["state"] = _state(row, in_force)
    if row.use is SigningUse.LOG:
        told["vkey"] = NoteVerifier.of(services.origin, row.public).vkey
    return told | ({"held_at": row.held_at} if row.held_at else {})


def _state(row: SigningKeyRow, in_force: list[str]) -> str:
    if row.awaits is not None and row.use is SigningUse.TOKEN:
        return f"announced: signs from {_time(known_from(row))} on"
    if row.awaits is not None:
        return "announced: waits for its entry in the log"
    if row.kid not in in_force:
        return "retired"
    if row.use is SigningUse.TOKEN and row.kid != in_force[0]:
        return f"its tokens are good until {_time(row.retires_at)}"
    return "signs" if row.kid == in_force[0] else f"signs until {_time(row.retires_at)}"


def _await_begin(services: Services, done: Rotation, patience_s: float) -> Rotation:
    """Look until the sequencer has signed the announcement."""
    until_s = time.monotonic() + patience_s
    signing, use = services.keystore.signing, SigningUse(done.use)
    while not (has_begun := signing.waiting(use) is None) and time.monotonic() < until_s:
        time.sleep(_LOOK_S)
        begin_announced(services)
    return Rotation(done.use, done.old_kid, done.new_kid, has_begun, done.both_until)


def _as_json(done: Rotation) -> dict[str, object]:
    told: dict[str, object] = {
        "use": done.use,
        "old_kid": done.old_kid,
        "new_kid": done.new_kid,
        "has_begun": done.has_begun,
    }
    if done.use == MASTER:
        return told | {"rewrapped": done.rewrapped}
    return told | ({"both_until": _time(done.both_until)} if done.both_until else {})


def _told(done: Rotation) -> str:
    said = f"the {done.use} key {done.new_kid} follows {done.old_kid}"
    if done.use == MASTER:
        return (
            f"{said}; {done.rewrapped} secrets were wrapped anew. If FLG_MASTER_KEY names the old one, take it out "
            "and restart. Back the keys up now: older backups of them open with the old key alone"
        )
    if done.use == SigningUse.TOKEN and not done.has_begun:
        return f"{said} as soon as everybody can know it, in ten minutes. Back the keys up now"
    if done.use != SigningUse.LOG:
        return f"{said}. Back the keys up now"
    if not done.has_begun:
        return f"{said} as soon as the sequencer has signed its announcement"
    return f"{said}; both sign until {_time(done.both_until)}. Back the keys up now"


def _time(at: datetime | None) -> str:
    return written_time(at) if at else ""
