"""`fl-gateway nginx`: write the TLS front's configuration."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import click

from gateway.config import load_config
from gateway.errors import ConfigError
from gateway.front import ClientCertificates, Front, render, render_http
from gateway.model_cache import Download

_CHOICES = click.Choice([choice.value for choice in ClientCertificates])


@click.command("nginx")
@click.option(
    "--server-name",
    "server_names",
    multiple=True,
    required=True,
    help="A DNS name; repeat it.",
)
@click.option("--upstream", "upstreams", multiple=True, help="HOST:PORT or unix:/PATH[,weight=N]; repeat it.")
@click.option("--certificate", type=Path, help="Certificate chain. Default: where `certs issue` puts it.")
@click.option("--certificate-key", type=Path, help="Private key of the certificate. Default: beside it.")
@click.option("--webroot", type=Path, help="Answers to the ACME server. Default: that of `certs issue`.")
@click.option(
    "--listen", "addresses", multiple=True, help="Address to listen on; repeat it. Default: *, all of IPv4."
)
@click.option("--http-port", type=int, default=80, show_default=True, help="Port of redirect and http-01.")
@click.option("--https-port", type=int, default=443, show_default=True, help="Port of TLS.")
@click.option(
    "--client-certificates", type=_CHOICES, default="off", help="What to ask of clients (RFC 8705)."
)
@click.option(
    "--client-ca",
    type=Path,
    help="Authority for --client-certificates ca; beside self-signed, clients of both kinds may come.",
)
@click.option(
    "--blobs",
    type=Path,
    help="Directory whose models nginx sends itself. Default: that of FLG_BLOB_URL where FLG_MODEL_DOWNLOAD is accel.",
)
@click.option("--access-log", type=Path, help="Access log. Default: /var/log/nginx/fl-gateway.log.")
@click.option("--error-log", type=Path, help="Error log. Default: /var/log/nginx/error.log.")
@click.option("--bootstrap", is_flag=True, help="Only port 80, while there is no certificate yet.")
@click.option("--output", "-o", type=Path, help="Write to this file instead of standard output.")
@click.option("--json", "as_json", is_flag=True, help="Print {path, configuration} for machines.")
def nginx(*, bootstrap: bool, output: Path | None, as_json: bool, **facts: Any) -> None:
    """Write the nginx configuration of the TLS front, for nginx's http block.

    First time: `--bootstrap`, reload nginx, `fl-gateway certs issue`, then again without it.
    """
    try:
        front = _front(**facts)
    except ConfigError as error:
        raise click.UsageError(error.detail) from error
    configuration = render_http(front) if bootstrap else render(front)
    if output is not None:
        output.write_text(configuration, "utf-8")
    if as_json:
        click.echo(json.dumps({"path": str(output) if output else None, "configuration": configuration}))
    elif output is None:
        click.echo(configuration, nl=False)


def _front(*, server_names: tuple[str, ...], **given: Any) -> Front:
    """The facts on the command line, completed by the configuration."""
    config = load_config()
    certificates = Path(config.certificates_dir).absolute()
    live = certificates / "config" / "live" / server_names[0]
    facts: dict[str, Any] = {
        "certificate": live / "fullchain.pem",
        "webroot": certificates / "webroot",
        "upstreams": ("127.0.0.1:8080",),
        "max_upload_bytes": config.max_update_bytes,
        "max_json_bytes": config.max_json_bytes,
    }
    scheme, _, directory = config.blob_url.partition(":")
    if config.model_download == Download.ACCEL and scheme == "file":
        facts["blobs"] = Path(directory).absolute()
    facts |= {name: value for name, value in given.items() if value not in (None, ())}
    facts.setdefault("certificate_key", Path(facts["certificate"]).with_name("privkey.pem"))
    facts["client_certificates"] = ClientCertificates(facts["client_certificates"])
    return Front(server_names=server_names, **facts)
