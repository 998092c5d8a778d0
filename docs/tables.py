"""Writes the tables that the pages take from the code: settings, error codes, event types, routes (`make docs`).

A page holds a table between `<!-- table: NAME -->` and `<!-- end of table -->`. With `--check` nothing is
written, and the exit code tells whether every page is up to date.
"""

from __future__ import annotations

import re
import sys
from collections.abc import Callable, Iterator
from dataclasses import fields
from inspect import getdoc
from pathlib import Path
from typing import Any

from flask import Flask

import gateway.api.blueprints
import gateway.app
import gateway.console
import gateway.storage.kms
from audit.events import EVENTS, Event, Kind, Outcome
from compliance.errors import ComplianceError
from gateway.auth.rules import RULES, Owner, Proof
from gateway.backup.errors import BackupError  # noqa: F401 - defines its refusals
from gateway.config import PREFIX, Config
from gateway.errors import GatewayError
from gateway.problems import compliance_status

_PAGES = Path(__file__).parent
_TABLE = re.compile(r"(<!-- table: (\w+) -->\n).*?(<!-- end of table -->)", re.DOTALL)


def _settings() -> Iterator[tuple[str, ...]]:
    yield "setting", "default", "what it is"
    for setting in fields(Config):
        default = str(setting.default).lower() if isinstance(setting.default, bool) else str(setting.default)
        yield f"`{PREFIX}{setting.name.upper()}`", f"`{default}`" if default else "", setting.metadata["doc"]


def _errors() -> Iterator[tuple[str, ...]]:
    yield "code", "status", "title", "when"
    rows = {("INTERNAL_ERROR", 500, GatewayError.title, "A fault of ours: see the server's own log.")}
    for refusal in _kinds_of(GatewayError):
        rows.add((refusal.code, refusal.status, refusal.title, _first_paragraph(refusal)))
    for kind in _kinds_of(ComplianceError):
        if (status := compliance_status(kind)) != 500:
            rows.add((kind.code, status, "", _first_paragraph(kind)))
    for code, status, title, when in sorted(rows, key=lambda row: (row[1], row[0], row[2], row[3])):
        yield f"`{code}`", str(status), title, when


def _kinds_of(base: type) -> Iterator[Any]:
    for kind in base.__subclasses__():
        yield kind
        yield from _kinds_of(kind)


def _events() -> Iterator[tuple[str, ...]]:
    yield "event type", "meaning", "severity", "in clear", "sealed", "kept as", "OCSF"
    for name, event in EVENTS.items():
        yield (
            f"`{name}`",
            _meaning_of(event),
            event.severity.name.lower(),
            _details_of(event, is_clear=True),
            _details_of(event, is_clear=False),
            event.retention.value,
            f"{event.ocsf.class_uid}, {event.ocsf.activity_id}",
        )


def _meaning_of(event: Event) -> str:
    outcomes = "" if event.outcomes[0] is Outcome.SUCCESS else f" Outcome `{event.outcomes[0]}`."
    if len(event.outcomes) > 1 and not outcomes:
        outcomes = f" Outcome {' or '.join(f'`{outcome}`' for outcome in event.outcomes)}."
    return event.meaning + outcomes + (" *Reserved.*" if event.is_reserved else "")


def _details_of(event: Event, *, is_clear: bool) -> str:
    return ", ".join(
        f"`{name}{'' if field.is_required else '?'}{'' if field.kind is Kind.TEXT else f':{field.kind}'}`"
        for name, field in event.fields.items()
        if field.is_clear is is_clear
    )


def _rules() -> Iterator[tuple[str, ...]]:
    yield "route", "proof", "scopes", "whose", "limit"
    app = Flask("gateway", static_folder=None)
    for blueprint in (*gateway.api.blueprints.BLUEPRINTS, *gateway.console.BLUEPRINTS):
        app.register_blueprint(blueprint)
    for route in sorted(
        app.url_map.iter_rules(), key=lambda route: (route.rule, sorted(route.methods or ()))
    ):
        rule, methods = RULES[route.endpoint], sorted((route.methods or set()) - {"HEAD", "OPTIONS"})
        proof = f"token, or none by `{PREFIX}{rule.open_by.upper()}`" if rule.open_by else rule.proof.value
        yield (
            f"`{' '.join(methods)} {route.rule}`",
            "" if rule.proof is Proof.NONE else proof,
            " ".join(f"`{scope}`" for scope in rule.scopes),
            "" if rule.owner is Owner.EVERYONE else rule.owner.value,
            f"`{rule.limit}`" if rule.limit else "",
        )


_TABLES: dict[str, Callable[[], Iterator[tuple[str, ...]]]] = {
    "settings": _settings,
    "errors": _errors,
    "events": _events,
    "rules": _rules,
}


def _first_paragraph(documented: object) -> str:
    return " ".join((getdoc(documented) or "").split("\n\n")[0].split())


def _markdown(name: str) -> str:
    head, *rows = ([cell.replace("|", "\\|") for cell in row] for row in _TABLES[name]())
    return "".join(f"| {' | '.join(row)} |\n" for row in [head, ["---"] * len(head), *rows])


def _up_to_date(text: str) -> str:
    return _TABLE.sub(lambda found: found[1] + _markdown(found[2]) + found[3], text)


def main(*, check: bool) -> int:
    """Bring every page up to date, or say which are not."""
    old = 0
    for page in sorted(_PAGES.rglob("*.md")):
        text = page.read_text("utf-8")
        if (new := _up_to_date(text)) == text:
            continue
        old += 1
        print(f"{page.name}: {'out of date, see `make docs`' if check else 'written'}")
        if not check:
            page.write_text(new, "utf-8")
    return 1 if check and old else 0


if __name__ == "__main__":
    sys.exit(main(check="--check" in sys.argv[1:]))
