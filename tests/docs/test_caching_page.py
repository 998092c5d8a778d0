"""What docs/caching.md shows is run as it stands there: Redis, S3, curl, and an nginx that sends the models."""

from __future__ import annotations

import re
import sys
from hashlib import sha256
from pathlib import Path

import pytest
from living.driver import tensors
from living.home import clean_environment, home_in
from living.processes import Gateway, gateway_in
from services import redis_server, s3
from services.checkout import ROOT
from services.nginx import nginx_for
from services.pages import blocks, run_shown
from services.pebble import make_certificate, process
from services.ports import await_port, free_port

from gateway.config import Config

NAME = "fl.example.com"


def block_with(word: str) -> str:
    """The commands of the one block that holds the word."""
    (block,) = [one for one in blocks("caching.md", "console") if word in one]
    return "\n".join(line.removeprefix("$ ") for line in block.splitlines() if line.startswith("$ "))


def run(script: str, directory: Path, **environ: str) -> str:
    done = run_shown(script, directory, clean_environment() | environ)
    assert done.returncode == 0, done.stderr
    return done.stdout


def token_of(gateway: Gateway) -> str:
    return gateway.as_role("operator")["Authorization"].removeprefix("Bearer ")


def test_the_shown_settings_put_a_model_into_redis(tmp_path: Path) -> None:
    """The block of settings, an S3 store, a download, and the two commands that look afterwards."""
    (block,) = blocks("caching.md", "sh")
    shown = dict(re.findall(r"export FLG_(\w+)='?([^'\n]+)'?", block))
    assert int(shown["CACHE_TTL_S"]) == Config().cache_ttl_s
    assert int(shown["CACHE_MODEL_BYTES"]) == Config().cache_model_bytes
    with redis_server.running(password="PASSWORD") as redis, s3.running("moto") as bucket:
        url = shown["CACHE_URL"].replace("cache.example.com:6379", f"127.0.0.1:{redis.port}")
        settings = (
            {name.lower(): value for name, value in shown.items()} | {"cache_url": url} | bucket.settings()
        )
        with home_in(tmp_path / "home", **settings) as home, gateway_in(home) as gateway:
            gateway.add_model()
            got = gateway.http.get("/api/v1/models/1.0.0", headers=gateway.as_role("operator"))
            with home.stores() as services:
                origin = services.origin
            script = block_with("redis-cli").replace(
                "http://127.0.0.1:8080", str(gateway.http.base_url).rstrip("/")
            )
            told = run(script, tmp_path, FLG_CACHE_URL=url)

    assert got.content == tensors(0)
    assert told.split() == [f"fl-gateway:{origin}:model:1.0.0", "healthy"]


def test_nginx_sends_the_models_as_shown(tmp_path: Path) -> None:
    """The command for nginx, a download that is resumed, and the door that is shut."""
    with (
        home_in(tmp_path / "home", model_download="accel", trusted_proxy="true") as home,
        gateway_in(home) as gateway,
    ):
        gateway.add_model()
        nginx, port = nginx_for(tmp_path / "nginx", ""), free_port()
        certificate = tmp_path / "chain.pem"
        make_certificate(certificate, tmp_path / "privkey.pem", NAME)
        more = f"--certificate {certificate} --upstream 127.0.0.1:{gateway.http.base_url.port} --listen 127.0.0.1"
        more += f" --http-port {free_port()} --https-port {port} --webroot {tmp_path}"
        more += f" --access-log {tmp_path}/access.log --error-log {tmp_path}/error.log -o {nginx.directory}/site.conf"
        command, check, _ = block_with("--blobs").splitlines()
        command = command.replace("/srv/fl-gateway/blobs", str(home.directory / "blobs"))
        run(
            re.sub(r"-o \S+", more, command).replace("fl-gateway", f"{sys.executable} -m gateway.cli", 1),
            tmp_path,
        )
        run(check.replace("nginx", " ".join(nginx.command()), 1), tmp_path)
        with process(nginx.command(), tmp_path / "start.log") as master:
            await_port(port, master)
            (tmp_path / "curl.rc").write_text(f'cacert={certificate}\nconnect-to="::127.0.0.1:{port}"\n')
            first, second = block_with("-C -").replace("curl", "curl -K curl.rc").splitlines()
            run(first, tmp_path, TOKEN=token_of(gateway))
            whole = (tmp_path / "model.safetensors").read_bytes()
            (tmp_path / "model.safetensors").write_bytes(whole[:50])
            run(second, tmp_path, TOKEN=token_of(gateway))
            shut = run(block_with("_fl_models").replace("curl", "curl -K curl.rc"), tmp_path)

    assert sha256(whole).hexdigest() == sha256(tensors(0)).hexdigest()
    assert (tmp_path / "model.safetensors").read_bytes() == whole
    assert shut.strip() == "404"


@pytest.mark.parametrize("name", ["cache_url", "cache_ttl_s", "cache_model_bytes", "model_download"])
def test_the_page_names_each_of_its_settings(name: str) -> None:
    """A reader who searches for a setting finds it here."""
    assert f"FLG_{name.upper()}" in (ROOT / "docs" / "caching.md").read_text("utf-8")
