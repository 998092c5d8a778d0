"""`serve --server granian` behind the real TLS front: what holds on gunicorn holds here (decision 0094)."""

from __future__ import annotations

import os
import signal
import socket
import ssl
import time
from collections.abc import Iterator
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path

import httpx
import numpy as np
import pytest
from living.driver import BARE, await_that, good, tensors
from living.home import home_in
from living.processes import Gateway, gateway_in, is_alive
from services.nginx import running_nginx
from services.pebble import make_certificate
from services.ports import free_port
from services.slow_peer import trickle
from sqlalchemy import func, select

from aggregation.wire import write_safetensors
from audit.entry import Sealed
from audit.reading import reading
from gateway.auth.clients import NewClient
from gateway.front import Front, render
from gateway.tables import client_updates

_LIMIT = 128 << 20
_STREAM = "/api/v1/audit/stream"
_PACE = {"upload_grace_s": "1", "upload_least_bytes_per_s": "100000", "upload_threads": "2"}


@dataclass(frozen=True, slots=True)
class Site:
    """A gateway under granian, and the front before it."""

    gateway: Gateway
    port: int
    certificate: Path

    def client(self) -> httpx.Client:
        """A client of the front."""
        context = ssl.create_default_context(cafile=str(self.certificate))
        return httpx.Client(
            base_url=f"https://127.0.0.1:{self.port}", verify=context, timeout=30, trust_env=False
        )

    def connect(self) -> ssl.SSLSocket:
        """A bare connection to the front."""
        context = ssl.create_default_context(cafile=str(self.certificate))
        peer = socket.create_connection(("127.0.0.1", self.port), timeout=20)
        return context.wrap_socket(peer, server_hostname="127.0.0.1")

    def kept(self) -> tuple[int, int]:
        """How many updates and blobs there are."""
        with self.gateway.home.stores() as services, reading(services.engine) as conn:
            rows = conn.execute(select(func.count()).select_from(client_updates)).scalar_one()
            return rows, len(list(services.blobs.names()))


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    """One gateway and one front for the tests that leave no trace of their own in it but rounds."""
    directory = tmp_path_factory.mktemp("granian")
    path = directory / "web.sock"
    make_certificate(directory / "fullchain.pem", directory / "privkey.pem", "fl.example.com")
    front = Front(
        server_names=("fl.example.com",),
        upstreams=(f"unix:{path}",),
        certificate=directory / "fullchain.pem",
        certificate_key=directory / "privkey.pem",
        webroot=directory / "webroot",
        access_log=directory / "access.log",
        error_log=directory / "error.log",
        addresses=("127.0.0.1",),
        http_port=free_port(),
        https_port=free_port(),
        max_upload_bytes=2 * _LIMIT,
    )
    settings = _PACE | {"max_update_bytes": str(_LIMIT), "trusted_proxy": "true"}
    with (
        home_in(directory / "home", **settings) as home,
        gateway_in(home, "--server", "granian", "--socket", str(path)) as gateway,
        running_nginx(directory / "nginx", render(front), port=front.https_port),
    ):
        yield Site(gateway, front.https_port, front.certificate)


def _head(number: int, authorization: str, body: bytes, *length: str) -> bytes:
    lines = (
        f"POST /api/v1/rounds/{number}/updates HTTP/1.1",
        "Host: fl.example.com",
        f"Authorization: {authorization}",
        f"X-Update-Checksum: {sha256(body).hexdigest()}",
        *(length or (f"Content-Length: {len(body)}",)),
    )
    return ("\r\n".join(lines) + "\r\n\r\n").encode()


def test_a_round_runs_through_front_and_granian(site: Site) -> None:
    """A body with a length and a chunked one are both taken, and both counted."""
    site.gateway.add_model()
    number = site.gateway.open_round(BARE)
    people = [site.gateway.register(), site.gateway.register()]
    body = tensors(1)
    checksum = {"X-Update-Checksum": sha256(body).hexdigest()}

    with site.client() as client:
        path = f"/api/v1/rounds/{number}/updates"
        whole = client.post(path, content=body, headers=people[0].headers | checksum)
        pieces = (body[start : start + 50] for start in range(0, len(body), 50))
        chunked = client.post(path, content=pieces, headers=people[1].headers | checksum)

    assert (whole.status_code, chunked.status_code) == (202, 202), whole.text + chunked.text
    assert site.gateway.await_end(number)["num_updates"] == 2


def test_a_header_with_underscores_cannot_stand_for_the_fronts_own(site: Site) -> None:
    """To WSGI, `X_Forwarded_For` and `X-Forwarded-For` are one: the client's does not come through."""
    lies = {"X_Forwarded_For": "6.6.6.6", "X-Forwarded-For": "6.6.6.7", "Authorization": "Bearer wrong"}

    with site.client() as client:
        assert client.get("/api/v1/rounds", headers=lies).status_code == 401

    entry = await_that("the refusal's entry", lambda: (site.gateway.entries("access.refused") or [None])[-1])
    sealed = Sealed.read(entry["ip_address"])
    assert sealed is not None
    with site.gateway.home.stores() as services:
        assert services.sealer.open(sealed, f"{entry['id']}.ip_address") == "127.0.0.1"


@pytest.mark.parametrize("chunked", [False, True])
def test_a_cut_body_leaves_nothing(site: Site, *, chunked: bool) -> None:
    """Promise 7: neither a row nor a blob, and the client's whole body is taken afterwards."""
    site.gateway.add_model()
    number = site.gateway.open_round(BARE)
    person, body = site.gateway.register(), tensors(1)
    before = site.kept()

    with site.connect() as peer:
        if chunked:
            peer.sendall(
                _head(number, person.headers["Authorization"], body, "Transfer-Encoding: chunked")
                + b"40\r\n"
                + body[:64]
                + b"\r\n"
            )
        else:
            peer.sendall(_head(number, person.headers["Authorization"], body) + body[:64])
        time.sleep(0.3)

    time.sleep(0.3)
    assert site.kept() == before
    site.gateway.submit(person, number, body)


def test_a_trickling_upload_is_ended_and_others_are_answered_meanwhile(site: Site) -> None:
    """RULES 29, as on gunicorn: 408 once its grace is over."""
    site.gateway.add_model()
    number = site.gateway.open_round(BARE)
    slow, body = site.gateway.register(), tensors(1)

    with site.connect() as peer:
        peer.sendall(_head(number, slow.headers["Authorization"], body) + body[:10])
        with site.client() as client:
            small = client.get("/health")
        answer = trickle(peer, body[10:])

    assert small.status_code == 200
    assert answer.startswith(b"HTTP/1.1 408 ")
    assert b"UPLOAD_TOO_SLOW" in answer
    site.gateway.submit(slow, number, body)


def test_a_body_that_is_too_large_is_refused_before_it_comes(site: Site) -> None:
    """By its length alone, while the client still sends; the next request is answered."""
    authorization = site.gateway.as_role("operator")["Authorization"]
    head = (
        "POST /api/v1/models HTTP/1.1\r\nHost: fl.example.com\r\n"
        f"Authorization: {authorization}\r\nX-Model-Checksum: {'0' * 64}\r\n"
        f"Content-Length: {_LIMIT + 1}\r\n\r\n"
    )

    with site.connect() as peer:
        peer.sendall(head.encode() + b"x" * 1000)
        refused = peer.recv(65_536)

    assert refused.startswith(b"HTTP/1.1 413 ")
    with site.client() as client:
        assert client.get("/health").status_code == 200


def test_a_token_of_100_kb_ends_at_the_front(site: Site) -> None:
    """granian would read it to its end; the front asks nobody, and so no entry tells of it."""

    def refused() -> int:
        told = (entry["details"] for entry in site.gateway.entries("access.refused"))
        return sum((one["route"], one["status"]) == ("/api/v1/audit/entries", 401) for one in told)

    with site.client() as client:
        answers = [
            client.get("/api/v1/audit/entries", headers={"Authorization": f"Bearer {'A' * size}"})
            for size in (100_000, 100)
        ]
    await_that("the entry of the second", refused)

    assert [answer.status_code for answer in answers] == [400, 401]
    assert refused() == 1


@pytest.mark.parametrize("path", ["/api/v1/rounds/%ff", "/%00", "/api/v1/rounds/1?x=%ff", "/api/v1/é"])
def test_an_odd_path_is_a_refusal_and_no_failure(site: Site, path: str) -> None:
    """Promise 7: a path that is no UTF-8 gets a 4xx, and the server lives on."""
    with site.client() as client:
        answer = client.get(path)

        assert 400 <= answer.status_code < 500
        assert client.get("/health").status_code == 200


def test_a_large_body_is_never_whole_in_memory(site: Site) -> None:
    """The body streams: 96 MiB raise the web process's peak by less than a third of that."""
    body = b"".join(write_safetensors({"w": np.ones(24 << 20, np.float32)}))
    headers = {"X-Model-Checksum": sha256(body).hexdigest(), "X-Model-Metadata": '{"name": "large"}'}
    operator, pid = site.gateway.as_role("operator"), _worker_of(site.gateway)
    before = _peak_bytes(pid)

    with site.client() as client:
        good(client.post("/api/v1/models", content=body, headers=operator | headers), 201)

    assert _peak_bytes(pid) - before < len(body) / 3


def test_a_stop_lets_running_requests_end_and_leaves_no_socket(tmp_path: Path) -> None:
    """SIGTERM in the middle of an upload: it is answered, then everything ends, and the path is free again."""
    path = tmp_path / "web.sock"
    with (
        home_in(tmp_path / "home") as home,
        gateway_in(home, "--server", "granian", "--socket", str(path)) as gateway,
    ):
        gateway.add_model()
        number, person, body = gateway.open_round(BARE), gateway.register(), tensors(1)
        assert path.stat().st_mode & 0o777 == 0o660
        with socket.socket(socket.AF_UNIX) as peer:
            peer.settimeout(20)
            peer.connect(str(path))
            peer.sendall(_head(number, person.headers["Authorization"], body) + body[:64])
            time.sleep(0.5)
            supervisor = gateway.part_pid("serve")
            os.kill(supervisor, signal.SIGTERM)
            time.sleep(0.5)
            peer.sendall(body[64:])
            answer = peer.recv(65_536)
        gateway.stop()

    assert answer.startswith(b"HTTP/1.1 202 ")
    assert not path.exists()
    assert "Traceback" not in gateway.log()


def test_a_killed_gateway_leaves_nobody_and_starts_again_on_its_socket(tmp_path: Path) -> None:
    """SIGKILL of the first process: its children end by themselves, and what is left of the socket is replaced."""
    path = tmp_path / "web.sock"
    with (
        home_in(tmp_path / "home") as home,
        gateway_in(home, "--server", "granian", "--socket", str(path)) as gateway,
    ):
        left = gateway.kill_supervisor()
        await_that("the end of all children", lambda: not any(is_alive(pid) for pid in left))

        gateway.start()

        assert gateway.http.get("/health").status_code == 200


def test_granian_that_lost_its_first_process_ends_and_is_started_again(tmp_path: Path) -> None:
    """A worker without granian's own parent would go on beside the next one."""
    path = tmp_path / "web.sock"
    with (
        home_in(tmp_path / "home") as home,
        gateway_in(home, "--server", "granian", "--socket", str(path)) as gateway,
    ):
        worker = _worker_of(gateway)

        os.kill(gateway.part_pid("web"), signal.SIGKILL)

        await_that("the end of the worker", lambda: not is_alive(worker))
        await_that("another web part", lambda: _answers(gateway))
        assert _worker_of(gateway) != worker


def test_gunicorn_serves_on_a_socket_too(tmp_path: Path) -> None:
    """`--socket` needs no granian; the path outlives a restart of the web part, and goes at the end."""
    path = tmp_path / "web.sock"
    with home_in(tmp_path / "home") as home, gateway_in(home, "--socket", str(path)) as gateway:
        gateway.kill_part("web")

        await_that("the web part again", lambda: _answers(gateway))

        gateway.stop()
        assert not path.exists()


def test_what_cannot_be_listened_on_is_told_at_once(tmp_path: Path) -> None:
    """Granian on an address, a file at the path, and a socket that somebody serves: exit 2, and nothing is lost."""
    taken, file = tmp_path / "taken.sock", tmp_path / "file"
    file.write_text("mine")
    with home_in(tmp_path / "home") as home, socket.socket(socket.AF_UNIX) as other:
        other.bind(str(taken))
        other.listen()

        on_address = home.command("serve", "--server", "granian")
        on_file = home.command("serve", "--socket", str(file))
        on_taken = home.command("serve", "--socket", str(taken))

    assert (on_address.returncode, on_file.returncode, on_taken.returncode) == (2, 2, 2)
    assert "--socket" in on_address.stderr
    assert "no socket" in on_file.stderr
    assert file.read_text() == "mine"
    assert "in use" in on_taken.stderr


def test_a_stream_of_the_log_passes_front_and_granian_at_once(site: Site) -> None:
    """Server-sent events are not held back on the way, and readers that went away leave their places to others."""
    with site.client() as client:
        readers = [_bearer(client, site.gateway.client_add("siem")) for _ in range(4)]  # places: three
        began = time.monotonic()
        for reader in readers[:3]:
            with client.stream("GET", _STREAM, headers=reader) as said:
                assert next(line for line in said.iter_lines() if line.startswith("id: ")) == "id: 0"
        took_s = time.monotonic() - began
        await_that("a place is free", lambda: site.gateway.register() and _has_place(client, readers[3]))

    assert took_s < 8  # the first comment of a silent stream would come after ten seconds


def _has_place(client: httpx.Client, reader: dict[str, str]) -> bool:
    with client.stream("GET", _STREAM, headers=reader) as said:
        return said.status_code == 200


def _bearer(client: httpx.Client, added: NewClient) -> dict[str, str]:
    form, secret = {"grant_type": "client_credentials"}, (added.client_id, added.client_secret)
    return {
        "Authorization": f"Bearer {client.post('/oauth/token', data=form, auth=secret).json()['access_token']}"
    }


def _worker_of(gateway: Gateway) -> int:
    """Granian's worker process: the child of its first one."""
    web = gateway.part_pid("web")
    tasks = Path(f"/proc/{web}/task").glob("*/children")
    return max(int(pid) for task in tasks for pid in task.read_text().split())


def _peak_bytes(pid: int) -> int:
    lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    return next(int(line.split()[1]) * 1024 for line in lines if line.startswith("VmHWM:"))


def _answers(gateway: Gateway) -> bool:
    try:
        return gateway.http.get("/health").status_code == 200
    except httpx.TransportError:
        return False
