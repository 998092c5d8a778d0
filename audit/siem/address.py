"""How `FLG_SIEM_SINKS` names a sink: a URL whose query holds the options, each of which some sink must want."""

from __future__ import annotations

from dataclasses import dataclass, field
from ipaddress import ip_address
from urllib.parse import SplitResult, parse_qsl, urlsplit

from audit.siem.errors import BadSink
from audit.siem.formats import FORMATS
from audit.siem.tls import TlsFiles

KINDS = "file:PATH, syslog+tls://HOST:PORT, syslog+tcp://HOST:PORT, hec+https://HOST:PORT or elastic+https://HOST:PORT"
REMEDY = f"write {KINDS}, several with commas between them"
_LONGEST_NAME = 255
_LONGEST_TIMEOUT_S = 600.0


@dataclass(slots=True)
class Address:
    """One sink's URL, taken apart; options are taken out one by one, and what is left is refused."""

    url: SplitResult
    options: dict[str, str] = field(default_factory=dict)

    @classmethod
    def parse(cls, text: str) -> Address:
        """Take the URL apart; the whole of it is in no text, since it may carry a token."""
        try:
            url = urlsplit(text)
        except ValueError:
            raise BadSink(f"FLG_SIEM_SINKS has a sink that is no URL: {REMEDY}") from None
        shown = f"{url.scheme}:…"
        if "@" in url.netloc:
            raise BadSink(
                f"the sink {shown} carries credentials in its URL: put them into a file and name it with ?secret_file="
            )
        pairs = parse_qsl(url.query, keep_blank_values=True)
        if len(dict(pairs)) != len(pairs):
            raise BadSink(f"the sink {shown} has an option twice: leave one of them out")
        return cls(url, dict(pairs))

    def host_and_port(self, default: int | None, shape: str) -> tuple[str, int]:
        """Where it listens.

        Raises:
            BadSink: no host, or no port where none is customary; `shape` is what to write.
        """
        try:
            host, port = self.url.hostname, self.url.port or default
            (host or "").encode("idna")  # as connecting does, which refuses a label that is empty or too long
        except ValueError:
            host, port = None, None
        if not host or not port:
            raise BadSink(f"this sink needs a host and a port from 1 to 65535: {shape}")
        return host, port

    def take(self, name: str, default: str = "") -> str:
        """An option that may be left out."""
        return self.options.pop(name, default)

    def format(self, default: str) -> str:
        """The name of its form (`?format=`)."""
        name = self.take("format", default)
        if name not in FORMATS:
            raise BadSink(
                f"a sink asks for an unknown format: write ?format= and one of {', '.join(FORMATS)}"
            )
        return name

    def timeout_s(self) -> float:
        """How long its answer may take (`?timeout=`)."""
        try:
            timeout_s = float(self.take("timeout", "30"))
        except ValueError:
            timeout_s = 0.0
        if not 0 < timeout_s <= _LONGEST_TIMEOUT_S:
            raise BadSink(f"?timeout= of a sink is a number of seconds, at most {_LONGEST_TIMEOUT_S:g}")
        return timeout_s

    def tls(self) -> TlsFiles:
        """The files of its TLS."""
        files = TlsFiles(self.take("ca_file"), self.take("cert_file"), self.take("key_file"))
        if files.key_file and not files.cert_file:
            raise BadSink("a sink has key_file without cert_file: name both, or neither")
        return files

    def insist_tls_or_here(self, host: str) -> None:
        """Plain HTTP carries a secret and the events for everybody to read: to this machine alone."""
        if not self.url.scheme.endswith("https") and not _is_here(host):
            raise BadSink(f"a sink of the kind {self.url.scheme} is for this machine alone: write +https")

    def end(self) -> None:
        """Refuse the options that nobody took."""
        if self.options:
            raise BadSink(
                f"a sink has the unknown option {min(self.options)!r}: the docs list them (docs/siem.md)"
            )

    def name(self, host: str, port: int) -> str:
        """The name of its cursor: the URL without options."""
        shown = f"[{host}]" if ":" in host else host
        return checked_name(f"{self.url.scheme}://{shown}:{port}{self.url.path.rstrip('/')}")


def checked_name(name: str) -> str:
    """The name, if the table of cursors has room for it."""
    if len(name) > _LONGEST_NAME:
        raise BadSink(f"the name of a sink is longer than {_LONGEST_NAME} characters: choose a shorter path")
    return name


def _is_here(host: str) -> bool:
    try:
        return ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"
