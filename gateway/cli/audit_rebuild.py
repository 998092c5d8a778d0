"""`fl-gateway audit rebuild`: the tree made again from the entries, compared, and mended where it is derived."""

from __future__ import annotations

import json
import sys
from dataclasses import asdict

import click

from audit.events import EventType
from audit.tiles.rebuild import Rebuilding, rebuild_tiles
from gateway.cli.opening import open_console

_EVERY = 100_000


@click.command()
@click.option("--json", "as_json", is_flag=True, help="Print JSON for machines.")
def rebuild(*, as_json: bool) -> None:
    """Make the tree again from the entries, compare it with what is stored, and mend what is derived.

    Entries are never changed. Exit 1 if anything differed: what was mended is fit for use again, and a wrong leaf
    hash or a root that nobody signed is a finding.
    """
    from gateway.parts.sequencing import log_writer

    with open_console() as services, log_writer(services) as engine:
        found = rebuild_tiles(engine, services.state.last_checkpoint(), progress=_tell)
        services.trail.note(
            EventType.AUDIT_REBUILT,
            entries=found.entries,
            tiles=found.tiles,
            count=found.bad_leaves + len(found.bad_tiles),
        )
    if as_json:
        click.echo(json.dumps({**asdict(found), "is_good": found.is_good}))
    else:
        for line in _said(found):
            click.echo(line)
    sys.exit(0 if found.is_good else 1)


def _tell(entries: int) -> None:
    if entries % _EVERY == 0:
        click.echo(f"{entries} entries compared", err=True)


def _said(found: Rebuilding) -> list[str]:
    said = [f"{found.entries} entries and {found.tiles} tiles compared"]
    if found.missing is not None:
        said.append(f"entry {found.missing} is missing: nothing behind it was compared, nothing was written")
    said += [f"entry {seq}: the stored leaf hash is not that of its text" for seq in found.first_bad_leaves]
    if found.bad_leaves > len(found.first_bad_leaves):
        said.append(f"and {found.bad_leaves - len(found.first_bad_leaves)} more entries")
    if found.packed:
        said.append(
            f"{found.packed} tiles of leaf hashes, which only make proofs faster, were lacking: written"
        )
    mended = "written anew" if found.is_mended else "left as it is"
    said += [f"tile {level}/{tile} differed: {mended}" for level, tile in found.bad_tiles]
    if found.is_signed is False:
        said.append("the entries do not give the root that was signed: verify a bundle (docs/audit-log.md)")
    if found.is_good:
        said.append("all is as it was signed" if found.is_signed else "all is as it should be")
    return said
