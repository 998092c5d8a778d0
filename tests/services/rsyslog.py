"""A private rsyslog that listens on one TCP or TLS port of the loopback and writes what it gets to one file."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from services.authority import Pair
from services.pebble import process
from services.ports import await_port

_CONFIG = """\
global(workDirectory="{directory}" maxMessageSize="256k"{files})
module(load="imtcp" maxFrameSize="300000"{driver})
template(name="received" type="string"
         string="%syslogseverity% %timestamp:::date-rfc3339% %structured-data% %msg%\\n")
input(type="imtcp" port="{port}" address="127.0.0.1" ruleset="siem")
ruleset(name="siem") {{ action(type="omfile" file="{directory}/received" template="received") }}
"""

_FILES = """ defaultNetstreamDriverCAFile="{ca_file}"
       defaultNetstreamDriverCertFile="{certificate}" defaultNetstreamDriverKeyFile="{key}\""""
_DRIVER = """ streamDriver.name="gtls" streamDriver.mode="1"
       streamDriver.authMode="x509/name" permittedPeer=["{client}"]"""


@dataclass(frozen=True, slots=True)
class Tls:
    """What a TLS receiver shows, and whom it lets in: clients of the authority with this name."""

    ca_file: Path
    server: Pair
    client: str


@dataclass(frozen=True, slots=True)
class Rsyslog:
    """A running receiver and its file: severity, time, structured data, message in each line."""

    port: int
    received: Path

    def lines(self) -> list[str]:
        """The lines that are whole: the last one may be being written."""
        return whole_lines(self.received)


def whole_lines(path: Path) -> list[str]:
    """The lines of a file up to the last newline; none of a file that is not there."""
    content = path.read_bytes() if path.exists() else b""
    return content[: content.rfind(b"\n") + 1].decode("utf-8").splitlines()


@contextmanager
def running_rsyslog(directory: Path, port: int, tls: Tls | None = None) -> Iterator[Rsyslog]:
    """Start rsyslog, wait until it listens, stop it after the block; a restart adds to the same file."""
    directory.mkdir(parents=True, exist_ok=True)
    config = directory / "rsyslog.conf"
    config.write_text(_CONFIG.format(directory=directory, port=port, **_parts(tls)))
    command = ["rsyslogd", "-n", "-f", str(config), "-i", str(directory / "pid")]
    with process(command, directory / "rsyslog.log") as child:
        await_port(port, child)
        yield Rsyslog(port, directory / "received")


def _parts(tls: Tls | None) -> dict[str, str]:
    if tls is None:
        return {"files": "", "driver": ""}
    files = _FILES.format(ca_file=tls.ca_file, certificate=tls.server.certificate, key=tls.server.key)
    return {"files": files, "driver": _DRIVER.format(client=tls.client)}
