"""A gateway whose log goes to real sinks, on a PostgreSQL server of its own: what a storm over the log needs."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from living.home import home_in
from living.log_storm import Sent
from living.parts import COMMANDS, ServerPart, TreePart
from living.processes import Gateway, gateway_in
from services import postgresql
from services.pebble import free_port
from services.rsyslog import Rsyslog, running_rsyslog

LOG_PARTS = ("sequencer", "forwarder", "web", "PostgreSQL")
_DATA = re.compile(r'\[flg@32473 seq="(\d+)" prevSeq="(-?\d+)"\]')


@dataclass(frozen=True, slots=True)
class Logged:
    """A running gateway, the parts of the log's way, and what its sinks got."""

    gateway: Gateway
    database: postgresql.PostgreSQL
    sinks: dict[str, Callable[[], Sent]]

    def part(self, name: str) -> TreePart | ServerPart:
        """The part of that name (one of `LOG_PARTS`)."""
        if name in COMMANDS:
            return TreePart(self.gateway, name)
        return ServerPart(name, self.database)


@contextmanager
def logged(directory: Path) -> Iterator[Logged]:
    """Start it all."""
    port = free_port()
    file = directory / "home" / "siem.jsonl"
    chosen = f"file:{file}, syslog+tcp://127.0.0.1:{port}"
    with (
        postgresql.running() as database,
        running_rsyslog(directory / "rsyslog", port) as rsyslog,
        home_in(directory / "home", database, siem_sinks=chosen) as home,
        gateway_in(home) as gateway,
    ):
        sinks = {"the file": lambda: _in_file(file), "rsyslog": lambda: _in_syslog(rsyslog)}
        yield Logged(gateway, database, sinks)


def _in_file(path: Path) -> Sent:
    text = path.read_text() if path.exists() else ""
    events = [json.loads(line) for line in text[: text.rfind("\n") + 1].splitlines()]
    return [(event["seq"], event["prev_seq"]) for event in events]


def _in_syslog(rsyslog: Rsyslog) -> Sent:
    return [(int(found[1]), int(found[2])) for line in rsyslog.lines() if (found := _DATA.search(line))]
