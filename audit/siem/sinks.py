"""What a sink is, and how `FLG_SIEM_SINKS` names it: `file:PATH` or `syslog+tcp://HOST:PORT`, with commas."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol
from urllib.parse import SplitResult, parse_qsl, urlsplit

from audit.siem.errors import BadSink
from audit.siem.event import SiemEvent
from audit.siem.file_sink import FileSink
from audit.siem.syslog_sink import Confirmation, SyslogSink

_REMEDY = "write file:PATH or syslog+tcp://HOST:PORT, several with commas between them"
_MAX_NAME = 255


class Sink(Protocol):
    """Where events go. What it has taken when `deliver` returns, it keeps."""

    def deliver(self, events: Sequence[SiemEvent]) -> None:
        """Hand over a batch, whole and in order; raises SinkDown when any of it may be missing."""


@dataclass(frozen=True, slots=True)
class NamedSink:
    """A sink and the name of its cursor: two sinks of one name would share their place in the log."""

    name: str
    sink: Sink


def parse_sinks(text: str, *, hostname: str = "-") -> list[NamedSink]:
    """The sinks of `FLG_SIEM_SINKS`; none for an empty text.

    Args:
        hostname: what syslog messages say about their origin (RFC 5424 HOSTNAME).
    """
    sinks = [_parse(part.strip(), hostname) for part in text.split(",") if part.strip()]
    names = [sink.name for sink in sinks]
    if len(set(names)) != len(names):
        raise BadSink("FLG_SIEM_SINKS names a sink twice: leave one of them out")
    return sinks


def _parse(text: str, hostname: str) -> NamedSink:
    url = urlsplit(text)
    shown = f"{url.scheme}:…"  # never the whole: a URL may carry a token
    if "@" in url.netloc:
        raise BadSink(f"the sink {shown} carries credentials in its URL, and none is needed: {_REMEDY}")
    options = dict(parse_qsl(url.query, keep_blank_values=True))
    if options.pop("format", "raw") != "raw":
        raise BadSink(f"the sink {shown} asks for an unknown format: leave ?format= out, or write raw")
    match url.scheme:
        case "file":
            return _file(url, options)
        case "syslog+tcp":
            return _syslog(url, options, hostname)
        case scheme:
            raise BadSink(f"FLG_SIEM_SINKS has an unknown kind of sink, {scheme!r}: {_REMEDY}")


def _file(url: SplitResult, options: dict[str, str]) -> NamedSink:
    if not url.path or url.netloc:
        raise BadSink(f"a file sink needs a path on this machine: {_REMEDY}")
    _refuse(options)
    name = _name(f"file:{url.path}")
    return NamedSink(name, FileSink(url.path))


def _syslog(url: SplitResult, options: dict[str, str], hostname: str) -> NamedSink:
    try:
        host, port = url.hostname, url.port
    except ValueError:
        host, port = None, None
    if not host or not port or url.path.strip("/"):
        raise BadSink("a syslog sink needs a host and a port from 1 to 65535: syslog+tcp://HOST:PORT")
    confirm = options.pop("confirm", Confirmation.CLOSE.value)
    if confirm not in tuple(Confirmation):
        raise BadSink("?confirm= of a syslog sink is close (the receiver has read all) or sent (weaker)")
    _refuse(options)
    name = _name(f"syslog+tcp://{f'[{host}]' if ':' in host else host}:{port}")
    return NamedSink(name, SyslogSink(host, port, hostname=hostname, confirmation=Confirmation(confirm)))


def _refuse(options: dict[str, str]) -> None:
    if options:
        raise BadSink(f"a sink has the unknown option {min(options)!r}: the docs list them (docs/siem.md)")


def _name(name: str) -> str:
    if len(name) > _MAX_NAME:
        raise BadSink(f"the name of a sink is longer than {_MAX_NAME} characters: choose a shorter path")
    return name
