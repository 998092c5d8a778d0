"""Models sent by nginx itself: the same answers as from the gateway, and no way to any other file."""

from __future__ import annotations

import json
import os
import ssl
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from hashlib import sha256
from pathlib import Path

import httpx
import numpy as np
import pytest
from click.testing import CliRunner
from living.driver import await_that, good
from living.home import home_in
from living.processes import Gateway, gateway_in
from services.nginx import nginx_for, running_nginx
from services.pebble import make_certificate, process
from services.ports import await_port, free_port
from sqlalchemy import select

from aggregation.wire import write_safetensors
from audit.reading import reading
from audit.store import pending_count
from audit.tables import audit_log
from gateway.cli.nginx import nginx as nginx_command
from gateway.front import Front, render
from gateway.services import Services

NAME = "fl.example.com"
MODEL = b"".join(write_safetensors({"w": np.arange(750_000, dtype=np.float32)}))
CHECKSUM = sha256(MODEL).hexdigest()
LONG_AGO = datetime(2010, 1, 1, tzinfo=UTC).timestamp()
PATH = "/api/v1/models/1.0.0"
COMPARED = (
    "Accept-Ranges",
    "Cache-Control",
    "Content-Disposition",
    "Content-Length",
    "Content-Range",
    "Content-Type",
    "ETag",
    "Last-Modified",
    "X-Content-Type-Options",
    "X-Model-Checksum",
    "X-Model-Version",
    "X-RateLimit-Limit",
)


@dataclass(frozen=True, slots=True)
class Site:
    """A gateway with `FLG_MODEL_DOWNLOAD=accel`, and nginx before it."""

    gateway: Gateway
    front: Front
    outside: httpx.Client
    token: dict[str, str]

    def ask(self, method: str, path: str, **headers: str) -> httpx.Response:
        """What the outside gets."""
        named = {name.replace("_", "-"): value for name, value in headers.items()}
        return self.outside.request(method, path, headers=self.token | named)

    def both(self, method: str, **headers: str) -> tuple[httpx.Response, httpx.Response]:
        """The answer to a request for the model through nginx, and the gateway's own."""
        named = {name.replace("_", "-"): value for name, value in headers.items()}
        own = self.gateway.http.request(method, PATH, headers=self.token | named)
        return self.ask(method, PATH, **headers), own


def front_in(directory: Path, gateway: Gateway, blobs: Path) -> Front:
    make_certificate(directory / "fullchain.pem", directory / "privkey.pem", NAME)
    return Front(
        server_names=(NAME,),
        upstreams=(f"127.0.0.1:{gateway.http.base_url.port}",),
        certificate=directory / "fullchain.pem",
        certificate_key=directory / "privkey.pem",
        webroot=directory / "webroot",
        access_log=directory / "access.log",
        error_log=directory / "site-error.log",
        addresses=("127.0.0.1",),
        http_port=free_port(),
        https_port=free_port(),
        blobs=blobs,
    )


def client_of(front: Front) -> httpx.Client:
    context = ssl.create_default_context(cafile=str(front.certificate))
    url = f"https://127.0.0.1:{front.https_port}"
    return httpx.Client(verify=context, trust_env=False, base_url=url, timeout=20)


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    """A model of three megabytes, and an update, in one blob directory."""
    directory = tmp_path_factory.mktemp("accel")
    with (
        home_in(directory / "home", model_download="accel", trusted_proxy="true") as home,
        gateway_in(home) as gateway,
    ):
        front = front_in(directory, gateway, home.directory / "blobs")
        with (
            running_nginx(directory / "nginx", render(front), port=front.https_port),
            client_of(front) as outside,
        ):
            sent = {"X-Model-Checksum": CHECKSUM} | gateway.as_role("operator")
            good(outside.post("/api/v1/models", content=MODEL, headers=sent), 201)
            silo = gateway.register()
            number = gateway.open_round({"mechanism": "none"})
            gateway.submit(silo, number, MODEL)
            for file in (home.directory / "blobs").glob("??/*"):
                os.utime(file, (LONG_AGO, LONG_AGO))  # as a restored backup may have it
            yield Site(gateway, front, outside, silo.headers)


REQUESTS: dict[str, dict[str, str]] = {
    "everything": {},
    "the first bytes": {"Range": "bytes=0-99"},
    "bytes in the middle": {"Range": "bytes=1000000-2000000"},
    "one byte": {"Range": "bytes=7-7"},
    "from a byte on": {"Range": f"bytes={len(MODEL) - 10}-"},
    "the last bytes": {"Range": "bytes=-5"},
    "more than there is": {"Range": f"bytes=100-{len(MODEL) * 2}"},
    "beyond the end": {"Range": f"bytes={len(MODEL)}-"},
    "two ranges": {"Range": "bytes=0-1,5-6"},
    "another unit": {"Range": "tensors=0-1"},
    "no range": {"Range": "bytes=9-1"},
    "the same model still": {"If_None_Match": f'"{CHECKSUM}"'},
    "any model still": {"If_None_Match": "*"},
    "another model still": {"If_None_Match": '"0"'},
    "the same model still, in part": {"If_None_Match": f'"{CHECKSUM}"', "Range": "bytes=0-1"},
    "another model still, in part": {"If_None_Match": '"0"', "Range": "bytes=0-1"},
    "this model only": {"If_Match": f'"{CHECKSUM}"'},
    "this model only, in part": {"If_Match": f'"{CHECKSUM}"', "Range": "bytes=5-10"},
    "another model only": {"If_Match": '"0"'},
    "any model": {"If_Match": "*"},
    "going on with this model": {"If_Range": f'"{CHECKSUM}"', "Range": "bytes=20-29"},
    "going on with another": {"If_Range": '"0"', "Range": "bytes=20-29"},
    "going on weakly": {"If_Range": f'W/"{CHECKSUM}"', "Range": "bytes=20-29"},
    "newer than tomorrow": {"If_Modified_Since": "Fri, 01 Jan 2100 00:00:00 GMT"},
    "newer than long ago": {"If_Modified_Since": "Fri, 01 Jan 2010 00:00:00 GMT"},
    "as old as tomorrow": {"If_Unmodified_Since": "Fri, 01 Jan 2100 00:00:00 GMT"},
    "as old as long ago": {"If_Unmodified_Since": "Fri, 01 Jan 2010 00:00:00 GMT"},
}


@pytest.mark.parametrize("method", ["GET", "HEAD"])
@pytest.mark.parametrize("what", REQUESTS)
def test_nginx_answers_as_the_gateway_does(site: Site, what: str, method: str) -> None:
    """One resource, one answer: status, bytes, validators and facts do not tell who sent them."""
    outside, own = site.both(method, **REQUESTS[what])

    assert (outside.status_code, outside.content) == (own.status_code, own.content) or (
        outside.status_code == own.status_code >= 400
    )
    assert {name: outside.headers.get(name) for name in COMPARED if own.status_code < 300} == {
        name: own.headers.get(name) for name in COMPARED if own.status_code < 300
    }
    assert outside.headers["X-Request-ID"]
    assert outside.headers["Strict-Transport-Security"]


def test_the_right_bytes_arrive(site: Site) -> None:
    """The comparison above is with the truth."""
    whole, part = site.ask("GET", PATH), site.ask("GET", PATH, Range="bytes=999-1999999")

    assert (whole.status_code, whole.content) == (200, MODEL)
    assert (part.status_code, part.content) == (206, MODEL[999:2_000_000])
    assert part.headers["Content-Range"] == f"bytes 999-1999999/{len(MODEL)}"
    assert whole.headers["ETag"] == f'"{CHECKSUM}"'


def test_a_download_may_be_resumed_by_date(site: Site) -> None:
    """If-Range with the Last-Modified that was answered, which is the publication's and not the file's."""
    seen = site.ask("HEAD", PATH).headers["Last-Modified"]

    answer = site.ask("GET", PATH, If_Range=seen, Range="bytes=10-19")

    assert (answer.status_code, answer.content) == (206, MODEL[10:20])


def test_it_is_nginx_that_sends(site: Site) -> None:
    """The gateway's answer to nginx is a name without a body; who does not come through nginx gets bytes."""
    to_nginx = site.gateway.http.get(PATH, headers=site.token | {"X-Sendfile-Type": "X-Accel-Redirect"})
    outside, own = site.both("GET")

    assert to_nginx.content == b""
    assert to_nginx.headers["X-Accel-Redirect"].startswith("/_fl_models/")
    assert (own.content, outside.content) == (MODEL, MODEL)
    assert not {"X-Accel-Redirect", "X-Sendfile-Type"} & set(outside.headers)


def test_no_file_can_be_asked_for(site: Site) -> None:
    """Only the gateway names a file: models and updates lie side by side, and their paths open nothing."""
    blobs = site.front.blobs
    assert blobs is not None
    files = [str(path.relative_to(blobs)) for path in blobs.rglob("*") if path.is_file()]
    assert len(files) >= 2

    for file in [*files, "incoming/x", "../fl-gateway.db", "%2e%2e/fl-gateway.db", f"{files[0]}/"]:
        answer = site.ask("GET", f"/_fl_models/{file}", X_Accel_Redirect=f"/_fl_models/{files[0]}")
        assert answer.status_code == 404
        assert answer.headers["Content-Type"] == "application/problem+json"


def test_each_download_is_in_the_log(site: Site) -> None:
    """`model.downloaded` in this mode as in the others: one entry a request, with its status."""
    before = downloads(site)
    site.ask("GET", PATH)
    site.ask("GET", PATH, Range="bytes=0-9")
    site.ask("HEAD", PATH)
    site.ask("GET", PATH, If_None_Match=f'"{CHECKSUM}"')

    assert downloads(site)[len(before) :] == [200, 206]


def pending(services: Services) -> int:
    with reading(services.engine) as conn:
        return pending_count(conn)


def downloads(site: Site) -> list[int]:
    """The status of each download in the log, once everything is in it."""
    with site.gateway.home.stores() as services:
        await_that("everything is in the log", lambda: not pending(services))
    with site.gateway.home.stores() as services, reading(services.engine) as conn:
        query = select(audit_log.c.canonical).where(audit_log.c.event_type == "model.downloaded")
        found = conn.execute(query.order_by(audit_log.c.seq)).scalars().all()
    return [json.loads(entry)["details"]["status"] for entry in found]


@contextmanager
def closed_to_its_owner(site: Site) -> Iterator[None]:
    """Where nginx runs as the gateway's own user, as it does without root, nobody may read the files for a while."""
    assert site.front.blobs is not None
    files = [path for path in site.front.blobs.glob("??/*") if path.is_file()]
    for path in files:
        path.chmod(0)
    try:
        yield
    finally:
        for path in files:
            path.chmod(0o644)


def test_a_file_that_nginx_may_not_read_is_a_problem(site: Site, tmp_path: Path) -> None:
    """A directory with other rights than nginx has is 503 in the form of RFC 9457, and no page of nginx's."""
    front = replace(site.front, http_port=free_port(), https_port=free_port())
    nginx = nginx_for(tmp_path / "nginx", render(front))
    settings = nginx.directory / "nginx.conf"
    settings.write_text(settings.read_text().replace("user root;", "user nobody nogroup;"))
    tmp_path.chmod(0o711)

    with (
        closed_to_its_owner(site) if os.geteuid() else nullcontext(),
        process(nginx.command(), tmp_path / "start.log") as master,
        client_of(front) as outside,
    ):
        await_port(front.https_port, master)
        answer = outside.get(PATH, headers=site.token)

    assert (answer.status_code, answer.json()["code"]) == (503, "INSUFFICIENT_RESOURCES")


def test_the_command_takes_the_directory_from_the_settings(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """`fl-gateway nginx` sends models itself where FLG_MODEL_DOWNLOAD says so, and only there."""
    monkeypatch.chdir(tmp_path)
    words = ["--server-name", NAME]

    proxied = CliRunner().invoke(nginx_command, words).output
    given = CliRunner().invoke(nginx_command, [*words, "--blobs", "/srv/blobs"]).output
    monkeypatch.setenv("FLG_MODEL_DOWNLOAD", "accel")
    settled = CliRunner().invoke(nginx_command, words).output

    assert "_fl_models" not in proxied
    assert 'X-Sendfile-Type ""' in proxied
    assert "alias /srv/blobs/$fl_blob;" in given
    assert f"alias {tmp_path}/blobs/$fl_blob;" in settled
    assert 'X-Sendfile-Type "X-Accel-Redirect"' in settled
