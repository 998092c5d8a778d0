"""The audit log for commands that mostly work without the gateway: opened when there is something to record."""

from __future__ import annotations

from collections.abc import Callable, Mapping

from audit.events import EventType
from gateway.cli.opening import open_console


def certificate_recorder() -> Callable[[str, Mapping[str, str | list[str] | None]], None]:
    """Writes one entry of a certificate's issue or renewal."""

    def record(event_type: str, facts: Mapping[str, str | list[str] | None]) -> None:
        told = {name: value for name, value in facts.items() if value is not None}
        with open_console(part="certificates") as services:
            services.trail.note(EventType(event_type), **told)

    return record
