"""What docs/audit-log.md shows of tiles is run as it stands there: the reader, the nginx, the rebuild, the hammer."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from io import BytesIO
from pathlib import Path
from zipfile import ZipFile

import httpx
import pytest
from living.driver import await_that
from living.home import clean_environment, home_in
from living.processes import Gateway, gateway_in
from services.nginx import running_nginx
from services.pages import blocks, run_shown
from services.ports import free_port
from tile_reader import open_checkpoint, read_log


@pytest.fixture
def gateway(tmp_path: Path) -> Iterator[Gateway]:
    """A running gateway that publishes its log in a folder."""
    published = f"file:{tmp_path / 'tlog'}"
    with home_in(tmp_path / "home", tlog_publish=published) as home, gateway_in(home) as running:
        yield running


def read_with_the_page_s_program(url: str, token: str = "") -> str:
    (program,) = [one for one in blocks("audit-log.md", "python") if "tile/entries" in one]
    done = subprocess.run(
        [sys.executable, "-c", program],
        env=clean_environment() | {"LOG": url} | ({"TOKEN": token} if token else {}),
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def command_with(word: str) -> str:
    """The commands of the one block that holds the word."""
    (block,) = [one for one in blocks("audit-log.md", "console") if word in one]
    return "\n".join(line.removeprefix("$ ") for line in block.splitlines() if line.startswith("$ "))


def test_the_log_is_read_as_tiles_and_cared_for_as_shown(gateway: Gateway, tmp_path: Path) -> None:
    """From the gateway itself, from the folder behind nginx; the tree is made again, and the hammer finds nothing."""
    auditor = gateway.as_role("auditor")
    token = auditor["Authorization"].removeprefix("Bearer ")
    base = str(gateway.http.base_url).rstrip("/")
    for _ in range(3):
        gateway.register()
    await_that("it is published", lambda: (tmp_path / "tlog" / "checkpoint").exists())
    bundle = gateway.http.get("/api/v1/audit/bundle", headers=auditor).content
    with ZipFile(BytesIO(bundle)) as archive:
        vkey = archive.read("keys/log.vkey").decode()
    (tmp_path / "log.vkey").write_text(vkey)

    told = read_with_the_page_s_program(f"{base}/tlog", token)
    through_nginx = published_through_nginx(tmp_path, vkey)

    assert "entries of" in told
    assert through_nginx > 0
    done = run_shown(command_with("audit rebuild"), gateway.home.directory, commands_of(gateway))
    assert "all is as it was signed" in done.stdout, done.stderr
    script = command_with("audit hammer").replace("--seconds 60", "--seconds 3")
    script = script.replace("https://gateway.example.com", base).replace("--vkey", "--seconds 3 --vkey")
    done = run_shown(
        script.replace("log.vkey", str(tmp_path / "log.vkey")),
        gateway.home.directory,
        commands_of(gateway) | {"TOKEN": token},
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.count("proofs verified") == 2


def commands_of(gateway: Gateway) -> dict[str, str]:
    return clean_environment() | gateway.home.environment()


def published_through_nginx(directory: Path, vkey: str) -> int:
    """How many entries the page's nginx hands out, all of them proven; with the headers that the page promises."""
    (locations,) = [one for one in blocks("audit-log.md", "nginx") if "/tlog/tile/" in one]
    port = free_port()
    site = locations.replace("/srv/tlog/", f"{directory / 'tlog'}/")
    server = f"server {{ listen 127.0.0.1:{port};\n{site}}}\n"
    base = f"http://127.0.0.1:{port}/tlog"
    with (
        running_nginx(directory / "nginx", server, port=port),
        httpx.Client(base_url=base, trust_env=False) as http,
    ):

        def fetch(path: str) -> bytes:
            answer = http.get(f"/{path}")
            assert answer.status_code == 200, path
            return answer.content

        entries = read_log(fetch, vkey)
        _, size, _ = open_checkpoint(fetch("checkpoint").decode(), vkey)
        tile = http.get(f"/tile/entries/000.p/{size}")
        shown = http.get("/checkpoint")
        assert http.get("/.incoming/").status_code == 404
        assert "lead to the signed root" in read_with_the_page_s_program(base)
    assert tile.headers["Cache-Control"] == "max-age=31536000, immutable"
    assert tile.headers["Content-Type"] == "application/octet-stream"
    assert shown.headers["Cache-Control"] == "no-cache"
    assert shown.headers["Content-Type"] == "text/plain; charset=utf-8"
    return len(entries)
