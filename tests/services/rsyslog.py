"""A private rsyslog that listens on one TCP port of the loopback and writes what it gets to one file."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from services.pebble import await_port, process

_CONFIG = """\
global(workDirectory="{directory}" maxMessageSize="256k")
module(load="imtcp" maxFrameSize="300000")
template(name="received" type="string"
         string="%syslogseverity% %timestamp:::date-rfc3339% %structured-data% %msg%\\n")
input(type="imtcp" port="{port}" address="127.0.0.1" ruleset="siem")
ruleset(name="siem") {{ action(type="omfile" file="{directory}/received" template="received") }}
"""


@dataclass(frozen=True, slots=True)
class Rsyslog:
    """A running receiver and its file: severity, time, structured data, message in each line."""

    port: int
    received: Path

    def lines(self) -> list[str]:
        return self.received.read_text().splitlines() if self.received.exists() else []


@contextmanager
def running_rsyslog(directory: Path, port: int) -> Iterator[Rsyslog]:
    """Start rsyslog, wait until it listens, stop it after the block; a restart adds to the same file."""
    directory.mkdir(parents=True, exist_ok=True)
    config = directory / "rsyslog.conf"
    config.write_text(_CONFIG.format(directory=directory, port=port))
    command = ["rsyslogd", "-n", "-f", str(config), "-i", str(directory / "pid")]
    with process(command, directory / "rsyslog.log") as child:
        await_port(port, child)
        yield Rsyslog(port, directory / "received")
