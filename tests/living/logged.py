"""A gateway whose log goes to real sinks, on a PostgreSQL server of its own: what a storm over the log needs."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from living.home import home_in
from living.parts import COMMANDS, ServerPart, TreePart
from living.processes import Gateway, gateway_in
from living.sinks import Look, every_kind_of_sink
from services import postgresql
from services.elastic import Elastic
from services.splunk import Splunk

LOG_PARTS = ("sequencer", "forwarder", "web", "PostgreSQL")


@dataclass(frozen=True, slots=True)
class Logged:
    """A running gateway, the parts of the log's way, and what its sinks got."""

    gateway: Gateway
    database: postgresql.PostgreSQL
    sinks: dict[str, Look]

    def part(self, name: str) -> TreePart | ServerPart:
        """The part of that name (one of `LOG_PARTS`)."""
        if name in COMMANDS:
            return TreePart(self.gateway, name)
        return ServerPart(name, self.database)


@contextmanager
def logged(directory: Path) -> Iterator[Logged]:
    """Start it all."""
    with (
        postgresql.running() as database,
        every_kind_of_sink(directory, Splunk(), Elastic()) as (chosen, sinks),
        home_in(directory / "home", database, siem_sinks=chosen) as home,
        gateway_in(home) as gateway,
    ):
        yield Logged(gateway, database, sinks)
