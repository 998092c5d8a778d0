"""The parts that a storm may hit: those of the gateway's own process tree; servers bring their own."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from living.driver import await_that
from living.processes import Gateway

COMMANDS = {
    "web": "web",
    "worker": "worker",
    "sequencer": "sequence",
    "forwarder": "forward",
}


@dataclass(slots=True)
class TreePart:
    """A part of a gateway's process tree; its supervisor starts it again."""

    gateway: Gateway
    name: str
    _frozen: list[int] = field(default_factory=list)

    def kill(self) -> None:
        """SIGKILL it, as soon as it runs."""
        await_that(f"{self.name} runs", self._is_up)
        self.gateway.kill_part(COMMANDS[self.name])

    def start(self) -> None:
        """The supervisor does it."""
        await_that(f"{self.name} runs again", self._is_up)

    def freeze(self) -> None:
        """SIGSTOP it."""
        await_that(f"{self.name} runs", self._is_up)
        self._frozen = self.gateway.freeze_part(COMMANDS[self.name])

    def thaw(self) -> None:
        """SIGCONT."""
        self.gateway.thaw(self._frozen)

    def _is_up(self) -> bool:
        try:
            return self.gateway.part_pid(COMMANDS[self.name]) > 0
        except IndexError:
            return False


@dataclass(slots=True)
class ServerPart:
    """A server that the gateway stands on."""

    name: str
    server: Any

    def kill(self) -> None:
        """SIGKILL it."""
        match self.name:
            case "PostgreSQL":
                self.server.stop(crash=True)
            case "S3":
                self.server.stop()  # which is a kill
            case _:
                self.server.kill()

    def start(self) -> None:
        """Start it again, with the data that it had."""
        self.server.start()

    def freeze(self) -> None:
        """SIGSTOP it, with every process of it."""
        (self.server.pause if self.name == "S3" else self.server.freeze)()

    def thaw(self) -> None:
        """SIGCONT."""
        (self.server.resume if self.name == "S3" else self.server.thaw)()
