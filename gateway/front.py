"""The TLS front: an nginx configuration made from a few checked facts, which can smuggle nothing in."""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from string import Template

from gateway.errors import ConfigError

_DOMAIN = r"(?=.{1,253}\Z)(?:[a-z0-9](?:[a-z0-9-]{0,61}[a-z0-9])?\.)*[a-z0-9](?:[a-z0-9-]{0,61}[a-z0-9])?"
_ADDRESS = r"\*|(?:\d{1,3}\.){3}\d{1,3}|\[[0-9a-f:.]{2,45}\]"
_PATH = r"/(?!.*(?:\A|/)\.\.(?:/|\Z))[A-Za-z0-9._/+-]{1,400}"
_HOST_PORT = rf"(?:{_DOMAIN}|\[[0-9a-f:.]{{2,45}}\]):(?P<port>\d{{1,5}})"
_SITE = "fl-gateway.conf.template"
_UPSTREAM = rf"(?:{_HOST_PORT}|unix:{_PATH})(?:,weight=[1-9]\d{{0,3}})?"


class ClientCertificates(StrEnum):
    """What nginx asks of a client that may show a certificate (RFC 8705)."""

    OFF = "off"
    CA = "ca"  # signed by the authority in `client_ca`
    SELF_SIGNED = "self-signed"  # any: the gateway compares it with the registered one


class _NginxTemplate(Template):
    """A template with `%{name}`, since `$name` belongs to nginx."""

    delimiter = "%"


@dataclass(frozen=True, slots=True)
class Front:
    """One gateway behind one nginx. Every value is checked before it is written into a configuration.

    Args:
        server_names: the names clients use; the first is the one the gateway hears.
        upstreams: `HOST:PORT` or `unix:/PATH`, each with `,weight=N` if wanted.
        certificate: the chain, as certbot keeps it in `live/NAME/fullchain.pem`.
        webroot: where certbot puts its answers to the certificate authority.
        blobs: the directory of the blob store, if nginx is to send the models in it itself.
    """

    server_names: tuple[str, ...]
    upstreams: tuple[str, ...]
    certificate: Path
    certificate_key: Path
    webroot: Path
    access_log: Path = Path("/var/log/nginx/fl-gateway.log")
    error_log: Path = Path("/var/log/nginx/error.log")
    addresses: tuple[str, ...] = ("*",)
    http_port: int = 80
    https_port: int = 443
    max_upload_bytes: int = 4 << 30
    max_json_bytes: int = 1 << 20
    client_certificates: ClientCertificates = ClientCertificates.OFF
    client_ca: Path | None = None
    blobs: Path | None = None

    def __post_init__(self) -> None:
        _require("server name", _DOMAIN, self.server_names, "a lower-case DNS name such as fl.example.com")
        _require("upstream", _UPSTREAM, self.upstreams, "HOST:PORT or unix:/PATH, with ,weight=N if wanted")
        _require("address", _ADDRESS, self.addresses, "*, an IPv4 address, or an IPv6 address in brackets")
        paths = [self.certificate, self.certificate_key, self.webroot, self.access_log, self.error_log]
        paths += [path for path in (self.client_ca, self.blobs) if path]
        _require("path", _PATH, tuple(map(str, paths)), "absolute, of letters, digits and ._/+-, without ..")
        for port in (self.http_port, self.https_port, *_ports(self.upstreams)):
            if not 1 <= port <= 65_535:
                raise ConfigError(f"{port} is no TCP port: choose one from 1 to 65535")
        if self.max_upload_bytes < 1 or self.max_json_bytes < 1:
            raise ConfigError("a body limit must be at least one byte: nginx takes 0 for no limit at all")
        match self.client_certificates, self.client_ca:
            case (ClientCertificates.CA, None):
                raise ConfigError("client certificates of an authority need its file: --client-ca")
            case (ClientCertificates.OFF, Path()):
                raise ConfigError("--client-ca says more about --client-certificates: add it")


def render_http(front: Front) -> str:
    """The part for port 80: enough to have the first certificate issued, when there is none for TLS yet."""
    return _render("http.conf.template", front)


def render(front: Front) -> str:
    """The whole configuration, to be included in nginx's http block."""
    return render_http(front) + "\n" + _render(_SITE, front)


def _render(name: str, front: Front) -> str:
    port = "" if front.https_port == 443 else f":{front.https_port}"
    facts: dict[str, object] = {
        "blobs": front.blobs,
        "sendfile_type": "X-Accel-Redirect" if front.blobs else "",
        "server_names": " ".join(front.server_names),
        "http_listen": _lines(f"listen {a}:{front.http_port};" for a in front.addresses),
        "https_listen": _lines(f"listen {a}:{front.https_port} ssl http2;" for a in front.addresses),
        "https_url": f"https://{front.server_names[0]}{port}",
        "upstream_servers": _lines(f"server {u.replace(',', ' ')};" for u in front.upstreams),
        "client_certificates": _lines(_client_certificate_lines(front)),
        "certificate": front.certificate,
        "certificate_key": front.certificate_key,
        "webroot": front.webroot,
        "access_log": front.access_log,
        "error_log": front.error_log,
        "max_upload_bytes": front.max_upload_bytes,
        "max_json_bytes": front.max_json_bytes,
    }
    if name == _SITE:
        facts["models"] = _render("models.conf.template", front) if front.blobs else ""
    return _NginxTemplate((_template_folder() / name).read_text("utf-8")).substitute(facts)


def _client_certificate_lines(front: Front) -> list[str]:
    authority = (
        [f"ssl_client_certificate {front.client_ca};", "ssl_verify_depth 3;"] if front.client_ca else []
    )
    match front.client_certificates:
        case ClientCertificates.OFF:
            return []
        case ClientCertificates.CA:
            return [*authority, "ssl_verify_client optional;"]
        case ClientCertificates.SELF_SIGNED:
            return [*authority, "ssl_verify_client optional_no_ca;"]


def _lines(lines: Iterable[str]) -> str:
    return "\n".join(f"    {line}" for line in lines)


def _ports(upstreams: tuple[str, ...]) -> list[int]:
    matches = (re.fullmatch(_UPSTREAM, upstream) for upstream in upstreams)
    return [int(match["port"]) for match in matches if match and match["port"]]


def _require(what: str, pattern: str, values: tuple[str, ...], form: str) -> None:
    if not values:
        raise ConfigError(f"at least one {what} is needed: {form}")
    for value in values:
        if not re.fullmatch(pattern, value):
            raise ConfigError(f"{value!r} is no {what} for the TLS front: it must be {form}")


def _template_folder() -> Path:
    """The templates: inside the package once it is installed, beside it in a checkout."""
    here = Path(__file__).resolve().parent
    installed = here / "_nginx"
    return installed if installed.is_dir() else here.parent / "nginx"
