"""The TLS front as it is rendered, in a real nginx before a real HTTP server."""

from __future__ import annotations

import http.client
import json
import re
import socket
import ssl
import subprocess
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import httpx
import pytest
from click.testing import CliRunner
from services.nginx import nginx_for, running_nginx
from services.pebble import make_certificate
from services.ports import free_port

from gateway.cli.nginx import nginx as nginx_command
from gateway.errors import ConfigError
from gateway.front import ClientCertificates, Front, render, render_http

NAME = "fl.example.com"
PERSON = "canary-3f1c"
LIMIT = 200_000


@dataclass(slots=True)
class Upstream:
    """What stands for the gateway: it remembers each request and when its first bytes came."""

    port: int
    requests: list[tuple[str, dict[str, str], int]] = field(default_factory=list)
    body_begun: threading.Event = field(default_factory=threading.Event)
    connections: int = 0


@contextmanager
def running_upstream() -> Iterator[Upstream]:
    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def setup(self) -> None:
            super().setup()
            upstream.connections += 1

        def do_GET(self) -> None:
            left = read = int(self.headers.get("Content-Length", 0))
            while left:
                left -= len(self.rfile.read(min(left, 1000)))
                upstream.body_begun.set()
            upstream.requests.append((self.path, {k.lower(): v for k, v in self.headers.items()}, read))
            self.send_response(200)
            self.send_header("Content-Length", "2")
            self.end_headers()
            self.wfile.write(b"ok")

        do_POST = do_PATCH = do_GET  # noqa: N815

        def log_message(self, *_: object) -> None:
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        server.daemon_threads = True
        upstream = Upstream(server.server_port)
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield upstream
        server.shutdown()


@dataclass(frozen=True, slots=True)
class Site:
    """A running front and its upstream."""

    front: Front
    upstream: Upstream
    directory: Path

    @property
    def url(self) -> str:
        return f"https://127.0.0.1:{self.front.https_port}"

    def client(self, **options: object) -> httpx.Client:
        context = ssl.create_default_context(cafile=str(self.front.certificate))
        if "cert" in options:
            context.load_cert_chain(*options.pop("cert"))  # type: ignore[misc]
        return httpx.Client(verify=context, trust_env=False, base_url=self.url, timeout=10)

    def access_lines(self, *, last_method: str) -> list[dict[str, str]]:
        """The access log, once its last line is of that method: nginx writes a line after it has answered."""
        deadline = time.monotonic() + 10
        while True:
            lines = [json.loads(line) for line in self.front.access_log.read_text().splitlines()]
            if lines and lines[-1]["method"] == last_method:
                return lines
            assert time.monotonic() < deadline, lines[-5:]
            time.sleep(0.02)

    def logged(self) -> str:
        """Every byte that nginx wrote about requests: access log and both error logs."""
        logs = [self.front.access_log, self.front.error_log, self.directory / "nginx" / "error.log"]
        return "".join(log.read_text() for log in logs if log.exists())


def front_in(directory: Path, upstream_port: int) -> Front:
    make_certificate(directory / "fullchain.pem", directory / "privkey.pem", NAME)
    return Front(
        server_names=(NAME, "alias.example.com"),
        upstreams=(f"127.0.0.1:{upstream_port}",),
        certificate=directory / "fullchain.pem",
        certificate_key=directory / "privkey.pem",
        webroot=directory / "webroot",
        access_log=directory / "access.log",
        error_log=directory / "site-error.log",
        addresses=("127.0.0.1",),
        http_port=free_port(),
        https_port=free_port(),
        max_upload_bytes=LIMIT,
        max_json_bytes=LIMIT // 2,
        client_certificates=ClientCertificates.SELF_SIGNED,
    )


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    """A front that asks for client certificates and takes any."""
    directory = tmp_path_factory.mktemp("front")
    with running_upstream() as upstream:
        front = front_in(directory, upstream.port)
        with running_nginx(directory / "nginx", render(front), port=front.https_port):
            yield Site(front, upstream, directory)


@pytest.mark.parametrize(
    ("certificates", "has_authority"),
    [
        (ClientCertificates.OFF, False),
        (ClientCertificates.CA, True),
        (ClientCertificates.SELF_SIGNED, False),
        (ClientCertificates.SELF_SIGNED, True),
    ],
)
def test_nginx_accepts_what_we_render(
    tmp_path: Path, certificates: ClientCertificates, has_authority: bool
) -> None:
    """The configuration is valid in each of its forms, without a warning."""
    front = front_in(tmp_path, 8080)
    front = replace(
        front,
        upstreams=("127.0.0.1:8080,weight=2", "unix:/run/fl-gateway.sock", "[::1]:8080"),
        client_certificates=certificates,
        client_ca=front.certificate if has_authority else None,
    )

    checked = nginx_for(tmp_path / "nginx", render(front)).check()

    assert checked.returncode == 0, checked.stderr
    assert "warn" not in checked.stderr


def test_port_80_works_before_there_is_a_certificate(tmp_path: Path) -> None:
    """The first certificate can be issued: nginx starts without one, and serves the challenge."""
    front = replace(front_in(tmp_path, 8080), certificate=tmp_path / "none.pem")
    challenge = front.webroot / ".well-known" / "acme-challenge" / "token"
    challenge.parent.mkdir(parents=True)
    challenge.write_text("proof")

    with running_nginx(tmp_path / "nginx", render_http(front), port=front.http_port):
        answer = httpx.get(f"http://127.0.0.1:{front.http_port}/.well-known/acme-challenge/token")

    assert (answer.status_code, answer.text) == (200, "proof")


def test_everything_else_on_port_80_is_sent_to_https(site: Site) -> None:
    """Nothing but the challenge is served in clear; method and body survive the redirect (308)."""
    answer = httpx.post(f"http://127.0.0.1:{site.front.http_port}/api/v1/rounds?page=2")

    assert answer.status_code == 308
    assert answer.headers["location"] == f"https://{NAME}:{site.front.https_port}/api/v1/rounds?page=2"


def test_tls_works_and_says_so_for_a_year(site: Site) -> None:
    """TLS 1.3 to the client, HTTP/1.1 with kept connections to the gateway, HSTS on every answer."""
    with site.client() as client:
        begun = site.upstream.connections
        answers = [client.get("/api/v1/rounds") for _ in range(5)]

    assert {answer.text for answer in answers} == {"ok"}
    assert {answer.headers["strict-transport-security"] for answer in answers} == {"max-age=31536000"}
    assert site.upstream.connections - begun <= 1
    assert "connection" not in site.upstream.requests[-1][1]


@pytest.mark.parametrize(("version", "works"), [("-tls1_1", False), ("-tls1_2", True), ("-tls1_3", True)])
def test_old_tls_is_refused(site: Site, version: str, *, works: bool) -> None:
    """TLS 1.2 and 1.3 are spoken, TLS 1.1 is not, however weak a client is ready to be."""
    command = [
        "openssl",
        "s_client",
        "-connect",
        f"127.0.0.1:{site.front.https_port}",
        version,
        "-alpn",
        "h2",
    ]

    done = subprocess.run(
        [*command, "-cipher", "ALL:@SECLEVEL=0"], input=b"", capture_output=True, timeout=20, check=False
    )

    assert (b"ALPN protocol: h2" in done.stdout) is works
    assert (b"alert protocol version" in done.stderr) is not works


def test_a_client_cannot_say_which_certificate_it_holds(site: Site) -> None:
    """DESIGN: nginx blanks the certificate header before it sets it, and the forwarded address is its own."""
    forged = [
        "X-SSL-Client-Cert",
        "X-SSL-Client-Verify",
        "Client-Cert",
        "X-Forwarded-Client-Cert",
        "Forwarded",
    ]
    forged += ["X_SSL_Client_Cert", "X-Forwarded-For", "X-Forwarded-Host", "X-Real-IP", "X-Forwarded-Prefix"]

    with site.client() as client:
        client.get("/api/v1/rounds", headers={**dict.fromkeys(forged, "forged"), "Host": "evil.example.com"})

    seen = site.upstream.requests[-1][1]
    assert not [name for name, value in seen.items() if "forged" in value or "evil" in value]
    assert seen["x-ssl-client-verify"] == "NONE"
    assert "x-ssl-client-cert" not in seen
    assert (seen["x-forwarded-for"], seen["x-forwarded-proto"], seen["host"]) == ("127.0.0.1", "https", NAME)


def test_a_client_certificate_reaches_the_gateway(site: Site, tmp_path: Path) -> None:
    """RFC 8705: the certificate of the TLS connection, and no other, is passed on."""
    certificate, key = tmp_path / "client.pem", tmp_path / "client.key"
    make_certificate(certificate, key, "silo")

    with site.client(cert=(certificate, key)) as client:
        client.get("/api/v1/rounds", headers={"X-SSL-Client-Cert": "forged"})

    seen = site.upstream.requests[-1][1]
    assert seen["x-ssl-client-cert"].startswith("-----BEGIN%20CERTIFICATE-----")
    assert "forged" not in seen["x-ssl-client-cert"]
    assert seen["x-ssl-client-verify"].startswith("FAILED:")


def test_the_logs_hold_no_query_id_or_address(site: Site) -> None:
    """RULES 16: nginx logs no query string and no client id, whatever goes wrong."""
    paths = [f"/api/v1/clients/{PERSON}?name={PERSON}", f"/{PERSON}?q={PERSON}", "/health"]

    with site.client() as client:
        statuses = [client.get(path, headers={"User-Agent": PERSON}).status_code for path in paths]
        too_big = client.post(f"/api/v1/models?{PERSON}", content=bytes(LIMIT + 1)).status_code
        client.request("CANARY", "/health")

    lines = site.access_lines(last_method="other")
    assert [*statuses, too_big] == [200, 200, 200, 413]
    assert [line["area"] for line in lines[-5:]] == [
        "/api/v1/clients",
        "other",
        "/health",
        "/api/v1/models",
        "/health",
    ]
    assert lines[-1]["method"] == "other"
    assert "canary" not in site.logged().lower()
    assert "127.0.0.1" not in site.logged()


def test_a_gateway_that_does_not_answer_is_a_problem_document(tmp_path: Path) -> None:
    """Promise 7 and RULES 16: 502 in the form of RFC 9457, and no request line in the error log."""
    front = front_in(tmp_path, free_port())
    with running_nginx(tmp_path / "nginx", render(front), port=front.https_port):
        site = Site(front, Upstream(0), tmp_path)
        with site.client() as client:
            answer = client.get(f"/api/v1/rounds?{PERSON}")

    assert answer.status_code == 502
    assert answer.headers["content-type"] == "application/problem+json"
    problem = answer.json()
    assert (problem["status"], problem["code"]) == (502, "INSUFFICIENT_RESOURCES")
    assert problem["type"] == "urn:fl-gateway:problem:insufficient-resources"
    assert problem["error"]["request_id"] == answer.headers["x-request-id"]
    assert answer.headers["strict-transport-security"]
    assert PERSON not in site.logged()


@pytest.mark.parametrize(
    ("path", "limit"),
    [("/api/v1/rounds/7/updates", LIMIT), ("/api/v1/models", LIMIT), ("/oauth/token", LIMIT // 2)],
)
def test_a_body_above_the_limit_is_refused(site: Site, path: str, limit: int) -> None:
    """413 from Content-Length alone, as a problem document; a body of the limit passes."""
    with site.client() as client:
        fits = client.post(path, content=bytes(limit))
        refused = client.post(path, content=bytes(limit + 1))

    assert fits.status_code == 200
    assert (refused.status_code, refused.json()["code"]) == (413, "PAYLOAD_TOO_LARGE")


@pytest.mark.parametrize(
    ("path", "streams"),
    [("/api/v1/rounds/7/updates", True), ("/api/v1/uploads/x", True), ("/oauth/token", False)],
)
def test_an_upload_is_passed_on_as_it_arrives(site: Site, path: str, *, streams: bool) -> None:
    """The gateway sees an upload's first bytes before the client sent the last; others are sent whole."""
    site.upstream.body_begun.clear()
    context = ssl.create_default_context(cafile=str(site.front.certificate))
    connection = http.client.HTTPSConnection("127.0.0.1", site.front.https_port, context=context, timeout=10)
    connection.putrequest("POST", path)
    connection.putheader("Content-Length", "80000")
    connection.endheaders(bytes(40_000))

    seen_early = site.upstream.body_begun.wait(3 if streams else 0.5)
    connection.send(bytes(40_000))
    answer = connection.getresponse()

    assert seen_early is streams
    assert (answer.status, site.upstream.requests[-1][2]) == (200, 80_000)
    connection.close()


def test_metrics_are_not_served_to_the_outside(site: Site) -> None:
    """DESIGN: metrics have their own port or a network rule."""
    with site.client() as client:
        answer = client.get("/metrics")

    assert (answer.status_code, answer.json()["code"]) == (404, "NOT_FOUND")


def test_a_broken_request_line_is_refused_without_a_trace(site: Site) -> None:
    """What is no HTTP gets 400, and its words are not logged."""
    context = ssl.create_default_context(cafile=str(site.front.certificate))
    with (
        socket.create_connection(("127.0.0.1", site.front.https_port), 5) as plain,
        context.wrap_socket(plain, server_hostname=NAME) as tls,
    ):
        tls.sendall(f"{PERSON} nonsense\r\n\r\n".encode())
        answer = tls.recv(4096)

    assert b" 400 " in answer
    assert b"application/problem+json" in answer
    assert PERSON not in site.logged()


SMUGGLED = "127.0.0.1:80; } server { listen 81;"


@pytest.mark.parametrize(
    "change",
    [
        {"server_names": (NAME, "a b")},
        {"server_names": ("fl.example.com;",)},
        {"server_names": ()},
        {"upstreams": (SMUGGLED,)},
        {"upstreams": ("host:99999",)},
        {"upstreams": ("unix:/run/../etc/x",)},
        {"webroot": Path("/srv/$host")},
        {"webroot": Path("relative")},
        {"certificate": Path("/etc/a;b.pem")},
        {"addresses": ("0.0.0.0; }",)},
        {"https_port": 0},
        {"max_upload_bytes": 0},
        {"client_certificates": ClientCertificates.CA},
    ],
    ids=lambda change: re.sub(r"\W+", "-", str(change))[:40],
)
def test_no_value_smuggles_in_a_directive(tmp_path: Path, change: dict[str, object]) -> None:
    """Names, ports and paths are checked before they become configuration."""
    front = front_in(tmp_path, 8080)

    with pytest.raises(ConfigError):
        replace(front, **change)  # type: ignore[arg-type]


def test_the_command_writes_what_nginx_takes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """`fl-gateway nginx`: certificate and webroot are those of `fl-gateway certs issue` unless given."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("FLG_CERTIFICATES_DIR", str(tmp_path / "certificates"))
    live = tmp_path / "certificates" / "config" / "live" / NAME
    live.mkdir(parents=True)
    make_certificate(live / "fullchain.pem", live / "privkey.pem", NAME)
    logs = ["--access-log", str(tmp_path / "access.log"), "--error-log", str(tmp_path / "error.log")]
    ports = ["--http-port", str(free_port()), "--https-port", str(free_port()), "--listen", "127.0.0.1"]
    output = tmp_path / "site.conf"

    done = CliRunner().invoke(nginx_command, ["--server-name", NAME, *logs, *ports, "-o", str(output)])

    assert done.exit_code == 0, done.output
    checked = nginx_for(tmp_path / "nginx", output.read_text()).check()
    assert checked.returncode == 0, checked.stderr


def test_the_command_refuses_a_wrong_name_with_exit_2() -> None:
    """DESIGN: wrong usage exits 2 and says what is wrong."""
    done = CliRunner().invoke(nginx_command, ["--server-name", "a b"])

    assert done.exit_code == 2
    assert "'a b' is no server name" in done.output
