"""Writes the tables that the pages take from the code: settings, error codes, event types (`make docs`).

A page holds a table between `<!-- table: NAME -->` and `<!-- end of table -->`. With `--check` nothing is
written, and the exit code tells whether every page is up to date.
"""

from __future__ import annotations

import re
import sys
from collections.abc import Callable, Iterator
from dataclasses import fields
from inspect import getdoc, isclass
from pathlib import Path

import gateway.errors
from audit.events import EVENTS
from gateway.config import PREFIX, Config
from gateway.errors import GatewayError

_PAGES = Path(__file__).parent
_TABLE = re.compile(r"(<!-- table: (\w+) -->\n).*?(<!-- end of table -->)", re.DOTALL)


def _settings() -> Iterator[tuple[str, ...]]:
    yield "setting", "default", "what it is"
    for setting in fields(Config):
        default = str(setting.default).lower() if isinstance(setting.default, bool) else str(setting.default)
        yield f"`{PREFIX}{setting.name.upper()}`", f"`{default}`" if default else "", setting.metadata["doc"]


def _errors() -> Iterator[tuple[str, ...]]:
    yield "code", "status", "title", "when"
    refusals = {
        one for one in vars(gateway.errors).values() if isclass(one) and issubclass(one, GatewayError)
    }
    for refusal in sorted(refusals, key=lambda one: (one.status, one.code)):
        when = (
            _first_paragraph(refusal)
            if refusal is not GatewayError
            else "A fault of ours: see the server's own log."
        )
        yield f"`{refusal.code}`", str(refusal.status), refusal.title, when


def _events() -> Iterator[tuple[str, ...]]:
    yield "event type", "meaning", "in clear", "kept as"
    for name, event in EVENTS.items():
        in_clear = ", ".join(f"`{detail}`" for detail in sorted(event.impersonal))
        yield f"`{name}`", event.meaning, in_clear, event.retention.value


_TABLES: dict[str, Callable[[], Iterator[tuple[str, ...]]]] = {
    "settings": _settings,
    "errors": _errors,
    "events": _events,
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
