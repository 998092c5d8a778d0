"""The sinks of `FLG_SIEM_SINKS`: each URL makes one, with the options that docs/siem.md lists."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from uuid import uuid4

from audit.siem.address import REMEDY, Address, checked_name
from audit.siem.elastic_sink import ElasticSink
from audit.siem.errors import BadSink
from audit.siem.file_sink import FileSink
from audit.siem.formats import FORMATS
from audit.siem.hec_sink import Ack, HecSink
from audit.siem.http import Endpoint
from audit.siem.sink import Sink
from audit.siem.syslog_sink import Confirmation, SyslogSink

_SYSLOG_TLS_PORT, _HEC_PORT, _ELASTIC_PORT = 6514, 8088, 9200
DATA_STREAM = "logs-fl_gateway.audit-default"


@dataclass(frozen=True, slots=True)
class NamedSink:
    """A sink and the name of its cursor: two sinks of one name would share their place in the log.

    Args:
        name: that name, made from the URL.
        sink: where events go.
        format: the form in which they go.
        secret_files: files of it that nobody else may read.
    """

    name: str
    sink: Sink
    format: str = "raw"
    secret_files: tuple[str, ...] = ()


def parse_sinks(
    text: str, *, hostname: str = "-", new_channel: Callable[[], object] = uuid4
) -> list[NamedSink]:
    """The sinks of `FLG_SIEM_SINKS`; none for an empty text. No file is read and nobody is asked.

    Args:
        text: the setting.
        hostname: what events say about their origin (RFC 5424 HOSTNAME, Splunk's host).
        new_channel: makes the GUID under which a Splunk sink posts.
    """
    sinks = [_parse(part.strip(), hostname, new_channel) for part in text.split(",") if part.strip()]
    names = [sink.name for sink in sinks]
    if len(set(names)) != len(names):
        raise BadSink("FLG_SIEM_SINKS names a sink twice: leave one of them out")
    return sinks


def _parse(text: str, hostname: str, new_channel: Callable[[], object]) -> NamedSink:
    address = Address.parse(text)
    match address.url.scheme:
        case "file":
            made = _file(address)
        case "syslog+tcp" | "syslog+tls":
            made = _syslog(address, hostname)
        case "hec+https" | "hec+http":
            made = _hec(address, hostname, str(new_channel()))
        case "elastic+https" | "elastic+http":
            made = _elastic(address)
        case scheme:
            raise BadSink(f"FLG_SIEM_SINKS has an unknown kind of sink, {scheme!r}: {REMEDY}")
    address.end()
    return made


def _file(address: Address) -> NamedSink:
    path = address.url.path
    if not path or address.url.netloc:
        raise BadSink(f"a file sink needs a path on this machine: {REMEDY}")
    form = address.format("raw")
    return NamedSink(checked_name(f"file:{path}"), FileSink(path, form=FORMATS[form]), form)


def _syslog(address: Address, hostname: str) -> NamedSink:
    is_tls = address.url.scheme == "syslog+tls"
    shape = f"{address.url.scheme}://HOST:PORT"
    host, port = address.host_and_port(_SYSLOG_TLS_PORT if is_tls else None, shape)
    if address.url.path.strip("/"):
        raise BadSink(f"a syslog sink has a path: write {shape}")
    confirm = address.take("confirm", Confirmation.CLOSE)
    if confirm not in tuple(Confirmation):
        raise BadSink("?confirm= of a syslog sink is close (the receiver has read all) or sent (weaker)")
    form, files = address.format("raw"), address.tls() if is_tls else None
    sink = SyslogSink(
        host,
        port,
        form=FORMATS[form],
        hostname=hostname,
        confirmation=Confirmation(confirm),
        tls=files,
        timeout_s=address.timeout_s(),
    )
    keys = (files.key_file or files.cert_file,) if files and files.cert_file else ()
    return NamedSink(address.name(host, port), sink, form, keys)


def _hec(address: Address, hostname: str, channel: str) -> NamedSink:
    ack = address.take("ack", Ack.AUTO)
    if ack not in tuple(Ack):
        raise BadSink(
            "?ack= of a Splunk sink is auto (its 200 may do where it gives no acknowledgement) or required"
        )
    if "secret_file" not in address.options:
        raise BadSink("a Splunk sink needs the file that holds its token: add ?secret_file=PATH")
    form, index = address.format("raw"), address.take("index")
    sourcetype = address.take("sourcetype", f"fl_gateway:{form}")
    name, endpoint, keys = _endpoint(address, "Splunk", _HEC_PORT, index)
    sink = HecSink(
        endpoint,
        form=FORMATS[form],
        channel=channel,
        host=hostname,
        sourcetype=sourcetype,
        index=index,
        ack=Ack(ack),
    )
    return NamedSink(name, sink, form, keys)


def _elastic(address: Address) -> NamedSink:
    form, index = address.format("ecs"), address.take("index", DATA_STREAM)
    name, endpoint, keys = _endpoint(address, "ApiKey", _ELASTIC_PORT, index if index != DATA_STREAM else "")
    return NamedSink(name, ElasticSink(endpoint, form=FORMATS[form], index=index), form, keys)


def _endpoint(
    address: Address, scheme: str, default_port: int, index: str
) -> tuple[str, Endpoint, tuple[str, ...]]:
    """The sink's name, its server, and the files of it that are secret; the index is a part of the name."""
    host, port = address.host_and_port(default_port, f"{address.url.scheme}://HOST:PORT")
    address.insist_tls_or_here(host)
    name = address.name(host, port)
    kind, _, place = name.partition("://")
    named = checked_name(f"{name}?index={index}" if index else name)
    secret_file, files = address.take("secret_file"), address.tls()
    url = f"{kind.partition('+')[2]}://{place}"
    made = Endpoint(named, url, scheme, secret_file, files, address.timeout_s())
    keys = tuple(filter(None, (secret_file, files.key_file or files.cert_file)))
    return named, made, keys
