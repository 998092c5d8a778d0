"""`fl-gateway backup` and `fl-gateway restore`: a consistent set of database and blobs, and the way back."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import Any

import click
from rich.console import Console
from rich.progress import DownloadColumn, Progress, SpinnerColumn, TextColumn, TransferSpeedColumn

from gateway.backup.archive import Manifest
from gateway.backup.blobs import Progress as Told
from gateway.backup.errors import BadBackup
from gateway.backup.restoring import Restored, Wish, check, insist_empty
from gateway.backup.restoring import restore as restore_backup
from gateway.backup.writing import back_up, back_up_keys, silent
from gateway.cli.opening import answered, open_console, owner_engine
from gateway.config import load_config

_FILE = click.Path(exists=True, dir_okay=False, path_type=Path)
_NEW_FILE = click.Path(dir_okay=False, path_type=Path)
_AS_JSON = click.option("--json", "as_json", is_flag=True, help="Print JSON for machines.")
FINDING_EXIT = 1


@click.command()
@click.option("-o", "--output", type=_NEW_FILE, required=True, help="The file to write (ZIP).")
@click.option(
    "--keys", is_flag=True, help="Back up the key store alone; keep that file for days, and elsewhere."
)
@_AS_JSON
def backup(*, output: Path, keys: bool, as_json: bool) -> None:
    """Write the database and its blobs into one file, beside a running gateway.

    The master key and the state are never in a backup. Exits 1 if blobs that a row names are missing.
    """
    with open_console() as services, _shown() as progress:
        made = (back_up_keys if keys else back_up)(services, output, progress)
    told = _facts(made) | {"backup": str(output)}
    if as_json:
        click.echo(json.dumps(told))
    else:
        blobs = "" if keys else f" and {made.blobs} blobs ({made.vanished} erased meanwhile)"
        click.echo(f"{made.rows} rows{blobs} in {output}")
    if made.missing:
        click.echo(f"fl-gateway: {made.missing} blobs that rows name are missing from the store", err=True)
        sys.exit(FINDING_EXIT)


@click.command()
@click.argument("file", type=_FILE)
@click.option(
    "--log", "bundle", type=_FILE, help="A newer bundle of the log: what it has beyond is replayed."
)
@click.option("--keys", type=_FILE, help="A backup of the keys, if the key store is lost too.")
@click.option("--check", "only_check", is_flag=True, help="Read the backup through, and write nothing.")
@click.option("--new-origin", is_flag=True, help="Let the log end where signed entries are missing.")
@click.option(
    "--old-log", type=_NEW_FILE, help="Where the bundle of a log that ends goes; default: beside FILE."
)
@click.option(
    "--without-state", is_flag=True, help="The state is lost for ever: restore what can be without it."
)
@_AS_JSON
def restore(
    *,
    file: Path,
    bundle: Path | None,
    keys: Path | None,
    only_check: bool,
    new_origin: bool,
    old_log: Path | None,
    without_state: bool,
    as_json: bool,
) -> None:
    """Restore the backup FILE into an empty database; what was erased or spent since then stays so.

    Stop the gateway first. Exits 1 if the backup is damaged; the same command may be given again after a crash.
    """
    wish = Wish(file, bundle, keys, old_log, new_origin, without_state)
    try:
        if only_check:
            _check(wish, as_json=as_json)
        else:
            _restore(wish, as_json=as_json)
    except BadBackup as error:
        click.echo(f"fl-gateway: {error}", err=True)
        sys.exit(FINDING_EXIT)


def _check(wish: Wish, *, as_json: bool) -> None:
    with _shown() as progress:
        manifest = check(wish.backup, wish.keys, progress)
    facts = _facts(manifest)
    click.echo(json.dumps(facts) if as_json else f"sound: {manifest.rows} rows and {manifest.blobs} blobs")


def _restore(wish: Wish, *, as_json: bool) -> None:
    damage: BadBackup | None = None
    with answered(), owner_engine(load_config()) as owner:
        insist_empty(owner)  # before it is migrated
    with open_console(migrates=True) as services, owner_engine(services.config) as owner:
        try:
            with _shown() as progress:
                done = restore_backup(services, wish, owner=owner, progress=progress)
        except BadBackup as error:
            damage = error
    if damage:
        raise damage
    click.echo(json.dumps(_result(done)) if as_json else _text(done))


def _facts(manifest: Manifest) -> dict[str, Any]:
    facts = asdict(manifest) | {"rows": manifest.rows, "blobs": manifest.blobs}
    return {name: value for name, value in facts.items() if name != "members"}


def _result(done: Restored) -> dict[str, Any]:
    return {
        "rows": done.rows,
        "blobs": done.blobs,
        "erased_people": done.erased_people,
        "erased_keys": done.erased_keys,
        "spends": done.spends,
        "replayed": done.replayed,
        "origin": done.course.origin,
        "succeeds": done.course.old.origin if done.course.old else None,
        "old_log": str(done.old_log) if done.old_log else None,
        "failed_rounds": list(done.failed_rounds),
        "lost_updates": done.lost_updates,
        "to_do_again": done.to_do_again,
    }


def _text(done: Restored) -> str:
    lines = [
        f"{done.rows} rows and {done.blobs} blobs restored; {done.erased_people} erased people stayed erased, "
        f"{done.spends} spends stayed spent"
    ]
    if done.course.old is None:
        lines.append(f"the log {done.course.origin} goes on; {done.replayed} entries were replayed")
    else:
        old = done.course.old
        lines.append(f"the log {old.origin} ended at {old.size} entries; {done.course.origin} succeeds it")
        if done.old_log:
            lines.append(
                f"keep {done.old_log}: receipts and checkpoints of the old log are checked against it"
            )
    if done.failed_rounds:
        numbers = ", ".join(map(str, done.failed_rounds))
        lines.append(f"failed, so that their clients send again: round {numbers}")
    lines += [
        f"since the backup, to be done again: {what} ({count})" for what, count in done.to_do_again.items()
    ]
    return "\n".join(lines)


@contextmanager
def _shown() -> Iterator[Told]:
    """A progress bar on a terminal; nothing elsewhere."""
    console = Console(stderr=True)
    if not console.is_terminal:
        yield silent
        return
    columns = (SpinnerColumn(), TextColumn("{task.description}"), DownloadColumn(), TransferSpeedColumn())
    with Progress(*columns, console=console, transient=True) as bar:
        task = bar.add_task("", total=None)
        yield lambda what, done: bar.update(task, description=what, advance=done)
