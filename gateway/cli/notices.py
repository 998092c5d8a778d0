"""`fl-gateway notices`: whether the targets of notices take one, and what became of those that were filed."""

from __future__ import annotations

import json
import sys
from typing import Any
from uuid import uuid4

import click
from sqlalchemy import select

from audit.events import Severity
from audit.reading import reading
from gateway.cli.opening import open_console
from gateway.notices.letter import Letter
from gateway.notices.notice import NoticeKind
from gateway.notices.targets import NamedTarget, parse_targets
from gateway.services import Services
from gateway.tables import notices as table

_AS_JSON = click.option("--json", "as_json", is_flag=True, help="Print JSON for machines.")
_SHOWN = 50


@click.group()
def notices() -> None:
    """Notices by e-mail or webhook: of deadlines, budgets, lags and certificates."""


@notices.command()
@_AS_JSON
def test(*, as_json: bool) -> None:
    """Send a trial notice to every target; exit 1 if one did not take it. Nothing is kept of it."""
    with open_console() as services:
        told = [_tried(services, named) for named in parse_targets(services.config, services.clock)]
    if as_json:
        click.echo(json.dumps(told))
    elif not told:
        click.echo("FLG_NOTICES is empty: nobody is told anything")
    for one in () if as_json else told:
        click.echo(f"{one['target']}: {'taken' if one['ok'] else 'NOT taken: ' + one['problem']}")
    sys.exit(0 if all(one["ok"] for one in told) else 1)


@notices.command("list")
@_AS_JSON
def list_(*, as_json: bool) -> None:
    """Show the newest notices, and how each stands with its target."""
    query = select(table).order_by(table.c.created_at.desc()).limit(_SHOWN)
    with open_console() as services, reading(services.engine) as conn:
        told = [_shown(row._mapping) for row in conn.execute(query)]
    if as_json:
        click.echo(json.dumps(told))
    for one in () if as_json else told:
        why = f" ({one['problem']}, {one['tries']} tries)" if one["problem"] else ""
        click.echo(f"{one['created_at']} {one['status']}{why} {one['target']}: {one['subject']}")


def _tried(services: Services, named: NamedTarget) -> dict[str, Any]:
    letter = Letter(
        notice_id=str(uuid4()),
        kind=NoticeKind.TRIAL.value,
        severity=Severity.INFORMATIONAL.name.lower(),
        subject_line="A trial notice",
        text="Somebody at the gateway's console tried whether notices reach you. Nothing is to be done.",
        created_at=services.clock(),
    )
    try:
        problem = named.target.deliver(letter)
    finally:
        named.target.close()
    return {"target": named.name, "ok": problem is None, "problem": problem or ""}


def _shown(row: Any) -> dict[str, Any]:
    return {
        "notice_id": row["notice_id"],
        "target": row["target"],
        "kind": row["kind"],
        "subject": row["subject_line"],
        "status": row["status"],
        "tries": row["tries"],
        "problem": row["problem"],
        "created_at": row["created_at"].isoformat().replace("+00:00", "Z"),
    }
