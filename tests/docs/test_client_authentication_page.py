"""docs/client-authentication.md: every block is run as it stands there, against a gateway behind a real nginx."""

from __future__ import annotations

import io
import json
import re
import shlex
import threading
from collections.abc import Iterator
from contextlib import contextmanager, redirect_stdout
from pathlib import Path

import pytest
from click.testing import CliRunner
from living.home import Home, home_in
from services.authority import Authority
from services.checkout import ROOT
from services.nginx import nginx_for
from services.pages import blocks, run_shown
from services.pebble import make_certificate, process
from services.ports import await_port, free_port
from werkzeug.serving import make_server

from gateway.app import create_app
from gateway.auth.proof.refused import ClientRefused
from gateway.auth.refusals import close_refusals
from gateway.cli import main
from gateway.config import load_config
from gateway.services import open_services

PAGE, NAME = "client-authentication.md", "fl.example.com"


@contextmanager
def served(home: Home) -> Iterator[int]:
    """The gateway on a port of this machine, in threads of the test: what is tested is the page, not the server."""
    services = open_services(load_config(home.environment()), part="web")
    app = create_app(services)
    server = make_server("127.0.0.1", 0, app, threaded=True)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    try:
        yield server.server_port
    finally:
        server.shutdown()
        thread.join()
        server.server_close()
        close_refusals(app)
        services.close()


def commands(part: str) -> list[str]:
    """The commands of the block in which this stands."""
    (block,) = [one for one in blocks(PAGE, "console") if part in one]
    return [line.removeprefix("$ ") for line in block.splitlines()]


def gateway_cli(command: str) -> str:
    """What a command of the gateway's prints."""
    done = CliRunner().invoke(main, shlex.split(command)[1:])
    assert done.exit_code == 0, (command, done.output)
    return done.stdout


def shell(command: str, **environ: str) -> str:
    done = run_shown(command, Path.cwd(), environ)
    assert done.returncode == 0, done.stderr
    return done.stdout


def program(part: str) -> str:
    """What the program prints in which this stands."""
    (block,) = [one for one in blocks(PAGE, "python") if part in one]
    with redirect_stdout(io.StringIO()) as printed:
        exec(compile(block, PAGE, "exec"), {})  # noqa: S102 - the page's own
    return printed.getvalue().strip()


def test_the_page_is_followed_from_top_to_bottom(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Keys, assertions with Authlib, certificates of both kinds through nginx with curl, and other proofs."""
    with home_in(tmp_path / "home", trusted_proxy="true") as home, served(home) as port:
        for name, value in home.environment().items():
            monkeypatch.setenv(name, value)
        (tmp_path / "work").mkdir()
        monkeypatch.chdir(tmp_path / "work")

        program("OKPKey.generate_key")
        signing = json.loads(gateway_cli(*commands("--auth private_key_jwt")))
        monkeypatch.setenv("GATEWAY_URL", f"http://127.0.0.1:{port}")
        monkeypatch.setenv("CLIENT_ID", signing["client_id"])
        assert program("fetch_token") == "training:participate model:download"
        assert Path("silo.key.json").stat().st_mode & 0o777 == 0o600
        assert '"d"' not in Path("silo.jwks").read_text()

        by_authority, by_itself = _clients_with_certificates()
        with _nginx(port):
            (fetch,) = commands("curl")
            fetch = fetch.replace("curl", "curl -K curl.rc")
            first = json.loads(shell(fetch, CLIENT_ID=by_authority))
            second = json.loads(shell(fetch.replace("silo-b", "silo-c"), CLIENT_ID=by_itself))
            crossed = json.loads(shell(fetch.replace("silo-b", "silo-c"), CLIENT_ID=by_authority))
        assert (first["token_type"], second["token_type"]) == ("Bearer", "Bearer")
        assert crossed["error"] == "invalid_client"

        gateway_cli("fl-gateway client add silo-d --role auditor")
        *changes, listing = [gateway_cli(command) for command in commands("client change")]
        assert "client_secret:" in changes[0]
        assert {row["name"] for row in json.loads(listing)} == {"silo-a", "silo-b", "silo-c", "silo-d"}


def _clients_with_certificates() -> tuple[str, str]:
    """Both clients as the page adds them; their ids."""
    authority = Authority(Path.cwd(), "clients-ca")
    authority.pair("silo-b")
    look, add = commands("openssl x509")
    subject = shell(look).strip().removeprefix("subject=")
    by_authority = json.loads(gateway_cli(add.replace("CN=silo-b,O=Hospital", subject)))
    shell(*commands("openssl req"))
    program("ECKey.import_key")
    by_itself = json.loads(gateway_cli(*commands("--auth self_signed_tls_client_auth")))
    return by_authority["client_id"], by_itself["client_id"]


@contextmanager
def _nginx(upstream: int) -> Iterator[None]:
    """nginx with the page's configuration, before the gateway; `curl.rc` leads curl to it."""
    here, port = Path.cwd(), free_port()
    make_certificate(here / "chain.pem", here / "privkey.pem", NAME)
    (command,) = commands("fl-gateway nginx")
    command = command.replace(" clients-ca.pem", f" {here}/clients-ca.pem")
    command += (
        f" --certificate {here}/chain.pem --upstream 127.0.0.1:{upstream} --listen 127.0.0.1 --webroot {here}"
    )
    command += (
        f" --http-port {free_port()} --https-port {port} --access-log {here}/a.log --error-log {here}/e.log"
    )
    gateway_cli(command)
    nginx = nginx_for(here / "nginx", Path("fl-gateway.conf").read_text())
    Path("curl.rc").write_text(f'silent\ncacert={here}/chain.pem\nconnect-to="::127.0.0.1:{port}"\n')
    with process(nginx.command(), here / "start.log") as master:
        await_port(port, master)
        yield


def test_the_page_names_every_reason() -> None:
    """An entry's reason is found on the page, and the page names none that does not exist."""
    code = "".join(path.read_text() for path in (ROOT / "gateway" / "auth" / "proof").glob("*.py"))
    reasons = set(re.findall(r'reason="([A-Z_]+)"', code)) | {
        ClientRefused().reason,
        "CERTIFICATE_FORGED",
        "PROOF_MISSING",
    }
    reasons |= {f"ASSERTION_{fault}" for fault in re.findall(r"Fault\.([A-Z]+)", code)}
    reasons |= {"ASSERTION_SIGNATURE", "ASSERTION_REPLAYED"}

    _, _, table = (ROOT / "docs" / PAGE).read_text().partition("| reason | means |")

    assert set(re.findall(r"`([A-Z]+(?:_[A-Z]+)+)`", table)) - {"FLG_RATE_LIMITS"} == reasons
