"""A private pebble (the ACME test server of Let's Encrypt) that truly fetches the http-01 challenge."""

from __future__ import annotations

import json
import os
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from services.ports import await_port, free_port

_ENVIRONMENT = {"PEBBLE_VA_NOSLEEP": "1", "PEBBLE_WFE_NONCEREJECT": "0", "PEBBLE_VA_ALWAYS_VALID": "0"}


@dataclass(frozen=True, slots=True)
class Pebble:
    """A running ACME server: its directory, the CA of its own TLS, the port it fetches challenges from."""

    acme_url: str
    ca_bundle: Path
    http_port: int
    log: Path


@contextmanager
def process(command: list[str], log: Path, **environment: str) -> Iterator[subprocess.Popen[bytes]]:
    """Run a service for the length of the block, its output in the log; it ends with the block or with us."""
    with log.open("ab") as output:
        child = subprocess.Popen(
            ["setpriv", "--pdeathsig=TERM", "--", *command],
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=output,
            env={**os.environ, **environment},
        )
    try:
        yield child
    finally:
        child.terminate()
        try:
            child.wait(10)
        except subprocess.TimeoutExpired:
            child.kill()
            child.wait()


@contextmanager
def running_pebble(directory: Path, http_port: int, *, validity_s: int | None = None) -> Iterator[Pebble]:
    """Start pebble and a name server that answers 127.0.0.1 to every name; stop both after the block.

    pebble refuses `localhost`, so the tests use names of their own, resolved by pebble-challtestsrv.
    """
    directory.mkdir(parents=True, exist_ok=True)
    port, dns = free_port(), free_port()
    config, log = _write_config(directory, port, http_port, validity_s), directory / "pebble.log"
    names = ["pebble-challtestsrv", "-defaultIPv6", "", "-dns01", f"127.0.0.1:{dns}", "-http01", ""]
    names += ["-https01", "", "-tlsalpn01", "", "-management", f"127.0.0.1:{free_port()}"]
    server = ["pebble", "-config", str(config), "-dnsserver", f"127.0.0.1:{dns}"]
    with (
        process(names, directory / "names.log") as resolver,
        process(server, log, **_ENVIRONMENT) as acme,
    ):
        await_port(dns, resolver)
        await_port(port, acme)
        yield Pebble(f"https://localhost:{port}/dir", directory / "cert.pem", http_port, log)


def _write_config(directory: Path, port: int, http_port: int, validity_s: int | None) -> Path:
    make_certificate(directory / "cert.pem", directory / "key.pem", "localhost")
    settings: dict[str, object] = {
        "listenAddress": f"127.0.0.1:{port}",
        "managementListenAddress": f"127.0.0.1:{free_port()}",
        "certificate": str(directory / "cert.pem"),
        "privateKey": str(directory / "key.pem"),
        "httpPort": http_port,
        "tlsPort": free_port(),
        "ocspResponderURL": "",
        "externalAccountBindingRequired": False,
    }
    if validity_s is not None:
        settings["certificateValidityPeriod"] = validity_s
    path = directory / "pebble.json"
    path.write_text(json.dumps({"pebble": settings}))
    return path


def make_certificate(certificate: Path, key: Path, name: str) -> None:
    """Write a self-signed certificate (P-256, two days) for the name and 127.0.0.1, and its key."""
    command = ["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes"]
    command += ["-days", "2", "-subj", f"/CN={name}", "-addext", f"subjectAltName=DNS:{name},IP:127.0.0.1"]
    subprocess.run([*command, "-keyout", str(key), "-out", str(certificate)], check=True, capture_output=True)
